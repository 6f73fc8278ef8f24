//! Dead letters are shown, retried and dropped.

use crate::rig::{Deployment, block, stderr};
use push0_bus::{DeadLetters, Stream, now};
use push0_domain::message::{
    AttemptRecord, BlockContext, BlockFacts, Dead, DeadLetter, EmissionOutcome, Failure, FailureClass,
    StageReady, TaskRange,
};
use push0_domain::task::StageKey;
use push0_domain::trace::TraceContext;
use push0_domain::{Announcement, BlockHash, CriticalPath, Payload, Payloads, Timestamp, subject};

#[tokio::test]
async fn dead_letters_are_shown_retried_and_dropped() {
    let deployment = Deployment::start().await;
    for id in ["one", "two"] {
        store(&deployment, &letter(id)).await;
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

    // A retry is about a block, with all letters about it.
    let retried = deployment.ok(&["dead", "retry", "one"]);
    assert_eq!(retried, "one, two: attempt 4 is asked for\n");
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
    let ready = stage.body.expect("it decodes");
    assert_eq!(ready.attempt, 4);
    // The block has no record yet, so its time goes on, and the time until now is the failures'.
    let path = &ready.path;
    assert_eq!((path.ready_at, path.failed), (Timestamp(100), 1));
    assert_eq!(path.failed_until, ready.context.stored_at);

    assert_eq!(
        deployment.json(&["dead", "list"]).as_array().map(Vec::len),
        Some(0)
    );
    store(&deployment, &letter("three")).await;
    assert_eq!(deployment.json(&["dead", "drop", "--all"])["dropped"], 1);
    assert_eq!(deployment.ok(&["dead", "list"]), "no dead letters\n");
}

#[tokio::test]
async fn a_letter_rewrites_no_screen_and_asks_for_nothing_that_the_ingester_knows_otherwise() {
    let deployment = Deployment::start().await;
    let mut dead = letter("rude");
    dead.reason = "\u{1b}[2J\u{1b}]0;title\u{7}gone\n\u{202e}down".into();
    store(&deployment, &dead).await;
    for args in [&["dead", "list"][..], &["dead", "show", "rude"]] {
        let shown = deployment.ok(args);
        assert!(shown.contains("gone"), "{shown}");
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{shown:?}");
    }
    let exact = deployment.json(&["dead", "list"]);
    assert_eq!(exact[0]["reason"], dead.reason);

    // The ingester knows another parent of block 5.
    deployment.remember(5, None).await;
    let refused = deployment.push0(&["dead", "retry", "rude"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("says otherwise of block"),
        "{}",
        stderr(&refused)
    );
    let stages = deployment.bus.subjects(Stream::Stages, ">").await;
    assert_eq!(stages.expect("the broker answers"), []);
}

#[tokio::test]
async fn a_task_among_several_is_retried_with_the_witness_of_its_block() {
    let deployment = Deployment::start().await;
    let mut dead = letter("late");
    if let Dead::Task { retry, .. } = &mut dead.what {
        retry.tasks.of = 3;
    }
    store(&deployment, &dead).await;
    let (dead_letter, reason) = ("late".to_owned(), "no attempts left".to_owned());
    deployment
        .emit(5, EmissionOutcome::Dead { dead_letter, reason })
        .await;
    let refused = deployment.push0(&["retry", "5", "--no-wait"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("did not remember the witness"),
        "{}",
        stderr(&refused)
    );
    assert!(deployment.ok(&["dead", "list"]).contains("late"));

    let witness = Payload::Inline(b"5".to_vec());
    deployment.remember(5, Some(witness.clone())).await;
    let asked = deployment.push0(&["retry", "5", "--no-wait"]);
    assert!(asked.status.success(), "{}", stderr(&asked));
    assert_eq!(
        stderr(&asked),
        "demo: block 5: it is proved again from its first stage\n"
    );
    let stage = deployment
        .bus
        .last::<StageReady>(Stream::Stages, &subject::all(subject::Kind::Stage))
        .await;
    let ready = stage
        .expect("the broker answers")
        .expect("it is stored")
        .body
        .expect("it decodes");
    assert_eq!(
        (ready.attempt, ready.tasks.of, ready.context.amends),
        (1, 1, true)
    );
    assert_eq!(ready.inputs, Payloads::one(witness));
    // The time of the block counts anew.
    let path = CriticalPath::behind(Vec::new(), ready.context.stored_at);
    assert_eq!(ready.path, path);
    assert_eq!(deployment.ok(&["dead", "list"]), "no dead letters\n");

    deployment.emit(5, EmissionOutcome::Proved(Vec::new())).await;
    let none = deployment.push0(&["retry", "4..6"]);
    assert!(
        stderr(&none).contains("none of these blocks is dead"),
        "{}",
        stderr(&none)
    );
}

async fn store(deployment: &Deployment, letter: &DeadLetter) {
    let letters = DeadLetters::new(deployment.bus.clone());
    let pipeline = "demo".parse().expect("a name");
    let stored = letters
        .store(Some(&pipeline), letter, &TraceContext::default())
        .await;
    stored.expect("it is stored");
}

#[tokio::test]
async fn the_logs_of_a_block_are_printed_or_their_place_is_named() {
    let deployment = Deployment::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let log_dir = dir.path().to_str().expect("a path");
    let mine = "demo.5-5.fast.prove.0.1.00000001.log";
    std::fs::write(dir.path().join(mine), "hello from the guest\n").expect("it is written");
    let unknown = deployment.push0(&["logs", "6", "--log-dir", log_dir]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("exec.log_dir"), "{}", stderr(&unknown));

    let mut letter = letter("a");
    if let Dead::Task { history, .. } = &mut letter.what {
        history[0].failure.message = format!("exited\nwhole output: gpu-1:/logs/{mine}");
        history[1].failure.message = "exited\nwhole output: gpu-2:/logs/other.log".into();
    }
    let pipeline = "demo".parse().expect("a name");
    DeadLetters::new(deployment.bus.clone())
        .store(Some(&pipeline), &letter, &TraceContext::default())
        .await
        .expect("it is stored");
    let shown = deployment.ok(&["logs", "5", "--log-dir", log_dir]);
    assert!(shown.contains("attempt 1 at fast/prove 0") && shown.contains("hello from the guest"));
    assert!(
        shown.contains("gpu-2:/logs/other.log") && !shown.contains("gpu-1"),
        "{shown}"
    );
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
        failed: 0,
        avoid: Vec::new(),
        inputs: Payloads::one(Payload::empty()),
        path: CriticalPath::behind(Vec::new(), Timestamp(100)).failed_at(Timestamp(900)),
    };
    let history = vec![record(1), record(2), record(3)];
    DeadLetter {
        id: id.into(),
        reason: "no attempts left".into(),
        at: now(),
        what: Dead::Task { retry, history },
    }
}
