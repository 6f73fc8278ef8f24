//! A log on a stream of three copies, and the messages that must never be sent to such a stream.

use crate::{
    log::{BUDGET, demo, log, records},
    soon,
};
use push0_bus::{Bus, Limits, Message, NatsConfig, PublishError, Stream};
use push0_domain::subject;
use push0_harness::{NatsCluster, wait_for};
use std::time::Duration;

/// The longest election, on a busy machine.
pub(crate) const ELECTION: Duration = Duration::from_secs(40);

pub(crate) struct Cluster {
    pub(crate) servers: NatsCluster,
    pub(crate) bus: Bus,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let servers = NatsCluster::start(3).await;
        let bus = connect(&servers.url()).await;
        let limits = Limits {
            replicas: 3,
            store_bytes: 1 << 30,
            ..Limits::default()
        };
        bus.provision(&limits).await.expect("provisioned");
        Self { servers, bus }
    }
}

async fn connect(url: &str) -> Bus {
    let config = NatsConfig {
        url: url.into(),
        ..NatsConfig::default()
    };
    let bus = Bus::connect(&config, "test").await.expect("a valid URL");
    bus.connected().await;
    bus
}

/// Returns the numbers of the stored records, once the leader of their stream answers.
async fn stored(bus: &Bus) -> Vec<u64> {
    let subjects = subject::proofs_of_pipeline(&demo());
    let all = async || bus.scan::<u64>(Stream::Proofs, &subjects, 1, 10_000).await;
    let all = wait_for("an answer of the leader", ELECTION, all).await;
    all.into_iter().map(|kept| kept.body.expect("readable")).collect()
}

/// Appends like a collector: after an append of unknown outcome, the writer reads the stream back.
async fn append_all(bus: &Bus, all: &[Message]) {
    let subjects = subject::proofs_of_pipeline(&demo());
    let mut own = 0;
    loop {
        let done = stored(bus).await.len();
        let mut log = log(bus, &demo(), own);
        let mut rest = all[done..].chunks(20);
        let refused = loop {
            let Some(some) = rest.next() else { return };
            if let Err(error) = log.append(some, BUDGET).await {
                break error;
            }
        };
        assert!(matches!(refused, PublishError::Unexpected { .. }), "{refused}");
        let last = async || bus.last::<u64>(Stream::Proofs, &subjects).await;
        let last = wait_for("the newest record", ELECTION, last).await;
        own = last.map_or(0, |kept| kept.sequence);
    }
}

#[tokio::test]
async fn a_stale_writer_is_refused_and_the_stream_of_three_copies_lives() {
    let cluster = Cluster::start().await;
    let (mut one, mut two) = (log(&cluster.bus, &demo(), 0), log(&cluster.bus, &demo(), 0));
    one.append(&records(&demo(), 1..=3), BUDGET).await.unwrap();
    for stale in [records(&demo(), 1..=1), records(&demo(), 1..=5)] {
        let refused = two.append(&stale, BUDGET).await.unwrap_err();
        assert!(matches!(refused, PublishError::Unexpected { .. }), "{refused:?}");
    }
    one.append(&records(&demo(), 4..=4), BUDGET).await.unwrap();
    one.append(&records(&demo(), 5..=100), BUDGET).await.unwrap();
    assert_eq!(stored(&cluster.bus).await, (1..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_batch_that_lost_a_message_is_stored_by_no_copy() {
    let cluster = Cluster::start().await;
    let urls = cluster.servers.url();
    let client = async_nats::connect(urls.split(',').collect::<Vec<_>>())
        .await
        .unwrap();
    let jetstream = async_nats::jetstream::new(client.clone());
    let send = |at: u64, commits: bool| {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Batch-Id", "torn");
        headers.insert("Nats-Batch-Sequence", at.to_string());
        if commits {
            headers.insert("Nats-Batch-Commit", "1");
        }
        (subject::proof(&demo(), at), headers)
    };
    let (first, headers) = send(1, false);
    client
        .publish_with_headers(first, headers, "1".into())
        .await
        .unwrap();
    // The second message of three is lost.
    let (last, headers) = send(3, true);
    let sent = jetstream.publish_with_headers(last, headers, "3".into()).await;
    assert!(soon(sent.unwrap().into_future()).await.is_err());
    let mut log = log(&cluster.bus, &demo(), 0);
    log.append(&records(&demo(), 1..=3), BUDGET).await.unwrap();
    assert_eq!(stored(&cluster.bus).await, [1, 2, 3]);
}

#[tokio::test]
async fn a_log_of_two_writers_has_no_gap_and_nothing_twice_while_the_leader_of_its_stream_changes() {
    let mut cluster = Cluster::start().await;
    let bus = cluster.bus.clone();
    let all = records(&demo(), 1..=2000);
    let (second, another) = (
        connect(&cluster.servers.url()).await,
        connect(&cluster.servers.url()).await,
    );
    let kills = async {
        for enough in [100, 600] {
            let some = async || {
                let there = stored(&another).await.len();
                if there > enough { Ok(()) } else { Err(there) }
            };
            wait_for("some records", ELECTION, some).await;
            let leads = cluster.servers.leader_of(Stream::Proofs.name()).await;
            cluster.servers.kill(leads);
            cluster.servers.restart(leads).await;
        }
    };
    // Two collectors that both take themselves for the leader: one of them is refused, reads the stream, and goes on.
    tokio::join!(append_all(&bus, &all), append_all(&second, &all), kills);
    assert_eq!(stored(&bus).await, (1..=2000).collect::<Vec<_>>());
}
