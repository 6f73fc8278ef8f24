//! Messages that cannot be decoded: those of services become dead letters with a reason, those of participants change
//! nothing, and all other work goes on.

use push0_bus::{Bus, Message, Stream};
use push0_domain::{
    codec::Encoding,
    message::{Dead, DeadLetter},
    subject::{self, AttemptKey, Kind},
    trace::TraceContext,
};
use push0_harness::{Deployment, assert_complete_in_order, wait_for};
use push0_scenarios::{MOCK, PATIENCE, dead_letters, demo, deploy, prover, settled, single, verifier};

/// Returns the key of a plausible attempt.
fn key() -> AttemptKey {
    let block = push0_harness::synthetic_block(&demo(), 3);
    AttemptKey {
        zkvm: MOCK.parse().expect("a name"),
        pipeline: demo(),
        block: block.key(),
        proof_type: "main".parse().expect("a name"),
        stage: "prove".parse().expect("a name"),
        index: 0,
        attempt: 7,
    }
}

/// Publishes three kinds of garbage under a valid subject: 32 bytes of 0xff, JSON of another shape, and an
/// empty message. Each has its own attempt number, because most subjects hold a single message.
async fn litter(bus: &Bus, make: impl Fn(&AttemptKey) -> String) {
    let none = TraceContext::default();
    let mut key = key();
    let noise = Message::encoded(make(&key), &[0xff_u8; 32], &none, Encoding::Bincode);
    key.attempt += 1;
    let shape = serde_json::json!({ "not": ["ours"] });
    let foreign = Message::encoded(make(&key), &shape, &none, Encoding::Json);
    key.attempt += 1;
    let empty = Message::encoded(make(&key), &(), &none, Encoding::Bincode);
    for message in [noise, foreign, empty] {
        let stored = bus.publish(message.expect("it can be written")).await;
        stored.expect("the litter is stored");
    }
}

async fn letters_about(bus: &Bus, stream: Stream, count: usize) -> Vec<DeadLetter> {
    let of =
        |letter: &DeadLetter| matches!(&letter.what, Dead::Message { stream: s, .. } if s == stream.name());
    wait_for(
        &format!("{count} dead letters of {}", stream.name()),
        PATIENCE,
        async || {
            let letters: Vec<_> = dead_letters(bus).await.into_iter().filter(of).collect();
            if letters.len() == count {
                Ok(letters)
            } else {
                Err(letters.len())
            }
        },
    )
    .await
}

async fn end_as_dead_letters(stream: Stream, make: impl Fn(&AttemptKey) -> String) {
    let deployment = deploy(&single("timeout = \"10s\""), [prover("p1"), verifier("v1")]).await;
    let pipeline = demo();
    deployment.submit_blocks(&pipeline, 1..=10).await;
    litter(deployment.bus(), make).await;
    deployment.submit_blocks(&pipeline, 11..=20).await;
    let emissions = deployment.wait_emitted(&pipeline, 20, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=20);
    for letter in letters_about(deployment.bus(), stream, 3).await {
        assert!(!letter.reason.is_empty(), "{letter:?}");
    }
    settled(deployment.bus()).await;
}

#[tokio::test]
async fn unreadable_blocks_become_dead_letters() {
    end_as_dead_letters(Stream::Blocks, |_| subject::block(&demo())).await;
}

#[tokio::test]
async fn unreadable_stages_become_dead_letters() {
    end_as_dead_letters(Stream::Stages, subject::stage).await;
}

/// Returns whether all blocks are proved although this garbage lies in a stream of participants.
async fn go_on(make: impl Fn(&AttemptKey) -> String) -> Deployment {
    let deployment = deploy(&single("timeout = \"10s\""), [prover("p1"), verifier("v1")]).await;
    let pipeline = demo();
    deployment.submit_blocks(&pipeline, 1..=10).await;
    litter(deployment.bus(), make).await;
    deployment.submit_blocks(&pipeline, 11..=20).await;
    let emissions = deployment.wait_emitted(&pipeline, 20, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=20);
    assert_eq!(
        dead_letters(deployment.bus()).await,
        [],
        "participants cause none"
    );
    deployment
}

/// Only another adapter can read these, so they wait for it.
#[tokio::test]
async fn unreadable_tasks_wait_while_others_are_done() {
    let deployment = go_on(subject::task).await;
    let log = deployment.service("p1").log();
    assert!(log.contains("cannot read a message"), "{log}");
    let tasks = deployment
        .bus()
        .subjects(Stream::Tasks, &subject::all(Kind::Task))
        .await;
    assert_eq!(tasks.expect("answered").len(), 3);
}

#[tokio::test]
async fn unreadable_checks_hold_nothing_up() {
    go_on(|key| subject::check(&"p1".parse().expect("a name"), key, None)).await;
}

#[tokio::test]
async fn unreadable_results_change_nothing() {
    let deployment = go_on(|key| subject::result(&"p1".parse().expect("a name"), key, None)).await;
    settled(deployment.bus()).await;
}

#[tokio::test]
async fn unreadable_verdicts_change_nothing() {
    let deployment = go_on(|key| subject::verdict(&"v1".parse().expect("a name"), key)).await;
    settled(deployment.bus()).await;
}

#[tokio::test]
async fn unreadable_ends_of_blocks_become_dead_letters() {
    end_as_dead_letters(Stream::Results, |_| subject::ended(&demo())).await;
}

/// Covers all streams with three copies each. A write that a broker cannot repeat on its copy would end the
/// stream, and the dead letters must cause no such write.
#[tokio::test]
async fn unreadable_messages_of_services_become_dead_letters_on_three_brokers() {
    let builder = Deployment::builder()
        .as_shipped()
        .pipeline(&single("timeout = \"20s\""));
    let builder = builder.service(prover("p1")).service(verifier("v1"));
    let deployment = builder.start_cluster(3).await;
    let (bus, pipeline) = (deployment.bus(), demo());
    deployment.submit_blocks(&pipeline, 1..=10).await;
    litter(bus, |_| subject::block(&demo())).await;
    litter(bus, |_| subject::ended(&demo())).await;
    let name = "p1".parse().expect("a name");
    litter(bus, subject::stage).await;
    litter(bus, |key| subject::result(&name, key, None)).await;
    litter(bus, |key| subject::verdict(&name, key)).await;
    deployment.submit_blocks(&pipeline, 11..=20).await;
    let emissions = deployment.wait_emitted(&pipeline, 20, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=20);
    for stream in [Stream::Blocks, Stream::Stages, Stream::Results] {
        letters_about(bus, stream, 3).await;
    }
    settled(bus).await;
}

#[tokio::test]
async fn unreadable_heartbeats_and_orders_are_passed_over() {
    let deployment = deploy(&single("timeout = \"10s\""), [prover("p1"), verifier("v1")]).await;
    let (bus, pipeline) = (deployment.bus(), demo());
    deployment.submit_blocks(&pipeline, 1..=10).await;
    let zkvm: push0_domain::ZkvmId = MOCK.parse().expect("a name");
    for name in ["p1", "v1", "nobody"] {
        let name: push0_domain::ProverId = name.parse().expect("a name");
        litter(bus, |_| subject::lease(&zkvm, &name)).await;
        let of = push0_domain::Participant {
            zkvm: zkvm.clone(),
            name,
        };
        litter(bus, |_| subject::control(&of)).await;
    }
    deployment.submit_blocks(&pipeline, 11..=20).await;
    let emissions = deployment.wait_emitted(&pipeline, 20, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=20);
    assert_eq!(dead_letters(bus).await, []);
    settled(bus).await;
}
