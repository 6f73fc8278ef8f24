//! What blocks wait for, retries under way, and blocks that the chain replaced.

use crate::rig::{Deployment, block, good, stderr, stdout};
use push0_bus::{Bucket, now};
use push0_domain::message::{
    BlockContext, BlockFacts, EmissionOutcome, Failure, FailureClass, HeldQueue, Outcome, ResultEvent,
    StageReady, TaskHeader, TaskRange, TaskResult,
};
use push0_domain::subject::{self, AttemptKey};
use push0_domain::task::StageKey;
use push0_domain::{Announcement, BlockHash, BlockRef, CriticalPath, Payload, Payloads};
use push0_harness::synthetic_header;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

fn stage(number: u64) -> StageKey {
    StageKey {
        pipeline: "demo".parse().expect("a name"),
        block: block(number),
        first: None,
        proof_type: "fast".parse().expect("a name"),
        stage: "prove".parse().expect("a name"),
    }
}

fn context(amends: bool) -> BlockContext {
    BlockContext {
        amends,
        revision: 1,
        parent_hash: BlockHash([9; 32]),
        announcement: Announcement(1),
        stored_at: now(),
        first_announcement: None,
        deadline_at: None,
        facts: BlockFacts::default(),
    }
}

/// Asks for an attempt at the only task of a block.
async fn ask(deployment: &Deployment, number: u64, attempt: u32, amends: bool) {
    let ready = StageReady {
        stage: stage(number),
        context: context(amends),
        zkvm: "vm".parse().expect("a name"),
        tasks: TaskRange {
            first: 0,
            count: 1,
            of: 1,
        },
        attempt,
        hedge_of: None,
        failed: 0,
        avoid: Vec::new(),
        inputs: Payloads::one(Payload::empty()),
        path: CriticalPath::behind(Vec::new(), now()),
    };
    let key = AttemptKey::of(&ready.zkvm, &ready.stage.task(0).attempt(attempt));
    deployment.publish(subject::stage(&key), &ready).await;
}

/// Stores the end of an attempt at the only task of a block.
async fn end(deployment: &Deployment, number: u64, attempt: u32, outcome: Outcome) {
    let zkvm = "vm".parse().expect("a name");
    let header = TaskHeader {
        id: stage(number).task(0),
        attempt,
        ..synthetic_header(&"demo".parse().expect("a name"), number, &zkvm, "prove")
    };
    let result = TaskResult {
        prover: "vm-1".parse().expect("a name"),
        outcome,
        inputs: None,
        prove_us: 1,
        transfer_us: 0,
        waited_us: 0,
        signature: None,
        verdict: None,
        header,
    };
    let subject = subject::result(&result.prover, &result.header.key(), None);
    deployment.publish(subject, &ResultEvent::Attempt(result)).await;
}

fn failed() -> Outcome {
    Outcome::Failed(Failure::new(FailureClass::Retryable, "no key"))
}

#[tokio::test]
async fn a_failed_attempt_completes_no_task() {
    let deployment = Deployment::start().await;
    deployment.remember(7, None).await;
    end(&deployment, 7, 1, failed()).await;
    ask(&deployment, 7, 2, false).await;
    let shown = deployment.ok(&["block", "7"]);
    assert!(shown.contains("fast: prove 0/1"), "{shown}");
    let outputs = Payloads::one(Payload::Inline(b"proof".to_vec()));
    end(&deployment, 7, 2, Outcome::Completed { outputs }).await;
    let shown = deployment.ok(&["block", "7"]);
    assert!(shown.contains("fast: prove 1/1"), "{shown}");
}

#[tokio::test]
async fn a_retry_under_way_is_shown_with_its_held_queue_and_a_cancellation_leaves_it() {
    let deployment = Deployment::start().await;
    let dead = EmissionOutcome::Dead {
        dead_letter: "gone".into(),
        reason: "no attempts left".into(),
    };
    deployment.emit(5, dead).await;
    let idle = deployment.ok(&["block", "5"]);
    assert!(!idle.contains("retry"), "{idle}");
    let without = deployment.ok(&["cancel", "5", "--note", "x"]);
    assert!(
        without.contains("nothing changes") && !without.contains("retry"),
        "{without}"
    );

    deployment.remember(5, Some(Payload::Inline(b"5".to_vec()))).await;
    ask(&deployment, 5, 7, true).await;
    let held = HeldQueue {
        since: now(),
        failures: 12,
        error: "no key\nmore".into(),
        task: None,
    };
    let facts = deployment.bus.facts(Bucket::State).await.expect("a bucket");
    let key = subject::facts::hold(&"vm".parse().expect("a name"));
    facts.put(&key, &held).await.expect("it is stored");
    let shown = deployment.ok(&["block", "5"]);
    for part in [
        "an operator's retry is under way: attempt 7",
        "the queue of zkVM vm is held, because 12 attempts failed without a success, the last one with: no key",
        "1 of fast.prove",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(deployment.json(&["block", "5"])["retry_attempt"], 7);
    let cancelled = deployment.ok(&["cancel", "5", "--note", "x"]);
    assert!(
        cancelled.contains("an operator's retry of a dead block is under way and goes on"),
        "{cancelled}"
    );

    let mut retry = Command::new(env!("CARGO_BIN_EXE_push0"))
        .args([
            "retry",
            "5",
            "--dir",
            "/nonexistent/push0",
            "--nats",
            &deployment.nats.url(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("push0 runs");
    let lines = BufReader::new(retry.stderr.take().expect("it is piped")).lines();
    let said: Vec<String> = lines.map(|line| line.expect("text")).take(3).collect();
    retry.kill().expect("it runs");
    retry.wait().expect("it ends");
    let said = said.join("\n");
    assert!(
        said.contains("attempt 7 is under way") && said.contains("the last one with: no key"),
        "{said}"
    );
}

#[tokio::test]
async fn a_block_that_the_chain_replaced_does_not_look_valid() {
    let deployment = Deployment::start().await;
    for number in 4..=8 {
        deployment.emit(number, good()).await;
    }
    let other = BlockRef {
        number: 5,
        hash: BlockHash([0xee; 32]),
    };
    deployment.emit_block(other, good()).await;

    let gone = deployment.ok(&["block", "7"]);
    assert!(
        gone.contains("the output goes on at block 6, and this record does not count")
            && gone.contains("Block 7 was replaced, and no successor of this number was announced yet"),
        "{gone}"
    );
    assert_eq!(deployment.json(&["block", "7"])["replaced_from"], 6);
    let both = deployment.ok(&["block", "5"]);
    let line = |hash: &BlockHash| {
        let found = both.lines().find(|line| line.contains(&hash.to_string()));
        found.unwrap_or_default().to_owned()
    };
    assert!(
        line(&other.hash).ends_with("(the record is about this one)"),
        "{both}"
    );
    assert!(line(&block(5).hash).ends_with("(replaced)"), "{both}");
    let none = deployment.ok(&["blocks", "--from", "7", "--to", "8"]);
    assert!(none.contains("the output goes on at block 6"), "{none}");

    let old = block(5).hash.to_string();
    for named in ["7", &old] {
        for command in ["get", "verify"] {
            let refused = deployment.push0(&["proof", command, named]);
            assert_eq!(refused.status.code(), Some(1), "{}", stdout(&refused));
            assert!(stderr(&refused).contains("was replaced"), "{}", stderr(&refused));
        }
    }
    assert_eq!(deployment.ok(&["proof", "get", "5"]), "proof");
}

#[tokio::test]
async fn the_exit_code_does_not_depend_on_the_form_of_the_output() {
    let deployment = Deployment::start().await;
    for command in ["block", "logs"] {
        for form in [&[][..], &["--json"]] {
            let output = deployment.push0(&[&[command, "9999"], form].concat());
            assert_eq!(output.status.code(), Some(1), "{command} {form:?}");
        }
    }
    let json = deployment.push0(&["block", "9999", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&json.stdout).expect("it is JSON");
    let sentence = said["waits_for"].as_str().expect("a sentence");
    assert!(
        sentence.starts_with("Block 9999 is not known to demo"),
        "{sentence}"
    );
}
