//! The state of streams' copies, as shown by `push0 status` and the watchdog's metrics.

use crate::{
    Broker,
    copies::{Cluster, ELECTION},
};
use push0_bus::{Bus, Trouble, stream_names};
use push0_harness::wait_for;

/// Returns the trouble of each stream. Fails while a stream's state is unknown because brokers are away.
async fn troubles(bus: &Bus) -> Result<Vec<Option<Trouble>>, String> {
    let standings = bus.standings().await;
    assert_eq!(standings.len(), stream_names().len());
    let told = standings.into_iter().map(|(stream, standing)| match standing {
        Ok(standing) => Ok(standing.trouble()),
        Err(error) => Err(format!("{stream}: {error}")),
    });
    told.collect()
}

/// Waits until every stream is in the given state of trouble, or in none.
async fn all_are_in(bus: &Bus, wanted: Option<Trouble>) {
    wait_for(&format!("{wanted:?} of every stream"), ELECTION, async || {
        let seen = troubles(bus).await?;
        let other = seen.into_iter().find(|trouble| *trouble != wanted);
        other.map_or(Ok(()), |other| Err(format!("{other:?}")))
    })
    .await;
}

#[tokio::test]
async fn the_streams_of_a_single_broker_are_in_no_trouble() {
    let broker = Broker::start().await;
    assert!(troubles(&broker.bus).await.unwrap().iter().all(Option::is_none));
}

#[tokio::test]
async fn a_broker_that_is_away_is_named_and_so_are_streams_without_a_leader() {
    let mut cluster = Cluster::start().await;
    all_are_in(&cluster.bus, None).await;
    cluster.servers.kill(2);
    let brokers = vec!["n2".to_owned()];
    all_are_in(&cluster.bus, Some(Trouble::Behind { brokers })).await;
    cluster.servers.kill(1);
    all_are_in(&cluster.bus, Some(Trouble::NoLeader)).await;
    cluster.servers.restart(1).await;
    cluster.servers.restart(2).await;
    all_are_in(&cluster.bus, None).await;
}
