use crate::{Broker, message};
use push0_bus::{Bus, Log, Message, PublishError, Stream};
use push0_domain::{PipelineId, subject};
use std::time::Duration;

pub(crate) const BUDGET: Duration = Duration::from_secs(20);

pub(crate) fn demo() -> PipelineId {
    "demo".parse().expect("a name")
}

pub(crate) fn log(bus: &Bus, pipeline: &PipelineId, own: u64) -> Log {
    let subjects = subject::proofs_of_pipeline(pipeline);
    Log::new(bus.clone(), Stream::Proofs, subjects, own)
}

pub(crate) fn records(pipeline: &PipelineId, numbers: impl IntoIterator<Item = u64>) -> Vec<Message> {
    let record = |number| message(subject::proof(pipeline, number), &number);
    numbers.into_iter().map(record).collect()
}

async fn stored(bus: &Bus, pipeline: &PipelineId) -> Vec<u64> {
    let subjects = subject::proofs_of_pipeline(pipeline);
    let all = bus.scan::<u64>(Stream::Proofs, &subjects, 1, 10_000).await;
    let all = all.expect("the stream is there").into_iter();
    all.map(|kept| kept.body.expect("readable")).collect()
}

#[tokio::test]
async fn what_is_sent_together_is_stored_in_order() {
    let broker = Broker::start().await;
    let mut log = log(&broker.bus, &demo(), 0);
    log.append(&records(&demo(), 1..=300), BUDGET).await.unwrap();
    log.append(&records(&demo(), 301..=302), BUDGET).await.unwrap();
    assert_eq!(stored(&broker.bus, &demo()).await, (1..=302).collect::<Vec<_>>());
}

#[tokio::test]
async fn two_writers_of_one_log_cannot_both_append() {
    let broker = Broker::start().await;
    let (mut one, mut two) = (log(&broker.bus, &demo(), 0), log(&broker.bus, &demo(), 0));
    one.append(&records(&demo(), 1..=3), BUDGET).await.unwrap();
    let refused = two.append(&records(&demo(), 1..=3), BUDGET).await.unwrap_err();
    assert!(matches!(refused, PublishError::Unexpected { .. }), "{refused:?}");
    assert!(!refused.is_transient());
    assert_eq!(stored(&broker.bus, &demo()).await, [1, 2, 3]);
}

#[tokio::test]
async fn logs_that_share_a_stream_do_not_hold_each_other_up() {
    let broker = Broker::start().await;
    let names: Vec<PipelineId> = ["a", "b", "c", "d"].map(|name| name.parse().unwrap()).into();
    let append = async |name: &PipelineId| {
        let bus = broker.another().await;
        let mut log = log(&bus, name, 0);
        for first in (1..=200).step_by(4) {
            log.append(&records(name, first..first + 4), BUDGET)
                .await
                .unwrap();
        }
    };
    futures::future::join_all(names.iter().map(append)).await;
    for name in &names {
        assert_eq!(
            stored(&broker.bus, name).await,
            (1..=200).collect::<Vec<_>>(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_kill_of_the_broker_leaves_no_gap_and_nothing_twice() {
    let mut broker = Broker::start().await;
    let bus = broker.bus.clone();
    let all = records(&demo(), 1..=2000);
    let append = async {
        let mut own = 0;
        // Appends like a collector: after an append of unknown outcome, the writer reads back
        // the stored records.
        loop {
            let done = stored(&bus, &demo()).await.len();
            let mut log = log(&bus, &demo(), own);
            match log.append(&all[done..], BUDGET).await {
                Ok(()) => return,
                Err(PublishError::Unexpected { .. }) => {
                    let subjects = subject::proofs_of_pipeline(&demo());
                    let last = bus.last::<u64>(Stream::Proofs, &subjects).await.unwrap();
                    own = last.map_or(0, |kept| kept.sequence);
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    let kill = async {
        let enough = || async { stored(&broker.another().await, &demo()).await.len() > 100 };
        push0_harness::wait_for("some records", BUDGET, enough).await;
        broker.server.kill();
        broker.server.restart().await;
    };
    tokio::join!(append, kill);
    assert_eq!(stored(&broker.bus, &demo()).await, (1..=2000).collect::<Vec<_>>());
}
