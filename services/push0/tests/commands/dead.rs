//! Dead letters are shown, retried and dropped.

use crate::{Deployment, block, stderr};
use push0_bus::{DeadLetters, Stream, now};
use push0_domain::message::{
    AttemptRecord, BlockContext, BlockFacts, Dead, DeadLetter, EmissionOutcome, Failure, FailureClass,
    StageReady, TaskRange,
};
use push0_domain::task::StageKey;
use push0_domain::trace::TraceContext;
use push0_domain::{Announcement, BlockHash, Payload, Payloads, subject};

#[tokio::test]
async fn dead_letters_are_shown_retried_and_dropped() {
    let deployment = Deployment::start().await;
    for id in ["one", "two"] {
        let pipeline = "demo".parse().expect("a name");
        let letters = DeadLetters::new(deployment.bus.clone());
        letters
            .store(Some(&pipeline), &letter(id), &TraceContext::default())
            .await
            .expect("it is stored");
    }
    let list = deployment.ok(&["dead", "list"]);
    assert!(
        list.contains("one") && list.contains("5-05050505 fast/prove/0"),
        "{list}"
    );
    let shown = deployment.ok(&["dead", "show", "one"]);
    assert!(
        shown.contains("out-of-memory") && shown.contains("64 GiB were not enough"),
        "{shown}"
    );
    assert!(
        deployment
            .ok(&["block", "5", "--json"])
            .contains("\"dead_letters\":[\"one\",\"two\"]")
    );
    assert_eq!(
        deployment.push0(&["dead", "show", "three"]).status.code(),
        Some(1)
    );

    let retried = deployment.ok(&["dead", "retry", "one"]);
    assert_eq!(retried, "one: attempt 4 is asked for\n");
    let stage = deployment
        .bus
        .last::<StageReady>(Stream::Stages, &subject::all(subject::Kind::Stage))
        .await;
    let stage = stage.expect("the broker answers").expect("it is stored");
    assert!(
        stage.subject.ends_with(".vm.demo.5-05050505.fast.prove.0.4"),
        "{}",
        stage.subject
    );
    assert_eq!(stage.body.expect("it decodes").attempt, 4);

    assert_eq!(
        deployment
            .json(&["dead", "list", "--pipeline", "demo"])
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert_eq!(deployment.json(&["dead", "drop", "--all"])["dropped"], 1);
    assert_eq!(deployment.ok(&["dead", "list"]), "no dead letters\n");
}

#[tokio::test]
async fn a_retry_that_can_lead_to_no_proof_is_refused() {
    let deployment = Deployment::start().await;
    let pipeline = "demo".parse().expect("a name");
    let letters = DeadLetters::new(deployment.bus.clone());
    for id in ["early", "late"] {
        let mut letter = letter(id);
        if let Dead::Task { retry, .. } = &mut letter.what {
            retry.tasks.of = 3;
        }
        letters
            .store(Some(&pipeline), &letter, &TraceContext::default())
            .await
            .expect("it is stored");
    }
    deployment.ok(&["dead", "retry", "early"]);
    let (dead_letter, reason) = ("late".to_owned(), "no attempts left".to_owned());
    deployment
        .emit(5, EmissionOutcome::Dead { dead_letter, reason })
        .await;
    let refused = deployment.push0(&["dead", "retry", "late"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("the other tasks of this stage are gone"),
        "{}",
        stderr(&refused)
    );
    assert!(deployment.ok(&["dead", "list"]).contains("late"));
}

fn letter(id: &str) -> DeadLetter {
    let record = |attempt| AttemptRecord {
        attempt,
        prover: "vm-1".parse().expect("a name"),
        ended_at: now(),
        prove_us: 1_000,
        failure: Failure::new(FailureClass::OutOfMemory, "64 GiB were not enough"),
    };
    let stage = StageKey {
        pipeline: "demo".parse().expect("a name"),
        block: block(5),
        first: None,
        proof_type: "fast".parse().expect("a name"),
        stage: "prove".parse().expect("a name"),
    };
    let context = BlockContext {
        amends: false,
        revision: 1,
        parent_hash: BlockHash([4; 32]),
        announcement: Announcement(1),
        stored_at: now(),
        first_announcement: None,
        deadline_at: None,
        facts: BlockFacts::default(),
    };
    let retry = StageReady {
        stage,
        context,
        zkvm: "vm".parse().expect("a name"),
        tasks: TaskRange {
            first: 0,
            count: 1,
            of: 1,
        },
        attempt: 3,
        hedge_of: None,
        avoid: Vec::new(),
        inputs: Payloads::one(Payload::empty()),
        busy_us: 0,
    };
    let history = vec![record(1), record(2), record(3)];
    DeadLetter {
        id: id.into(),
        reason: "no attempts left".into(),
        at: now(),
        what: Dead::Task { retry, history },
    }
}
