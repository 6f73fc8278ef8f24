//! Checks: which verdicts they get, and which of them get none.

use crate::{
    mock, rig,
    rig::{PATIENCE, Rig, class, key},
};
use push0_bus::{Message, Signals, Stream};
use push0_domain::{
    message::{
        Event, FailureClass, Happening, Lease, Obstacle, Outcome, ResultEvent, Role, StageKind, Task,
        TaskResult,
    },
    subject::{self, Kind},
    trace::TraceContext,
};
use push0_harness::wait_for;

#[tokio::test]
async fn a_true_proof_is_verified_and_a_false_one_refused() {
    let rig = rig([
        mock("honest").env("PUSH0_MOCK__FALSE_RATE", "0"),
        mock("verifier").arg("--verify"),
    ])
    .await;
    let mut task = rig.task(1);
    task.header.check = true;
    rig.publish(&task).await;
    let verdict = rig.result(&task).await.verdict.expect("verified");
    assert_eq!((verdict.verifier.as_str(), verdict.invalid), ("verifier", None));
    let lease: Lease = rig
        .lease("verifier", "a lease", |lease| Some(lease.clone()))
        .await;
    assert_eq!(lease.role, Role::Verifier);

    rig.deployment.service("honest").terminate();
    rig.deployment.service("honest").wait_exit(PATIENCE).await;
    let mut rig = rig;
    rig.deployment
        .start_service(mock("liar").env("PUSH0_MOCK__FALSE_RATE", "1"));
    let mut task = rig.task(2);
    task.header.check = true;
    rig.publish(&task).await;
    let verdict = rig.result(&task).await.verdict.expect("verified");
    let reason = verdict.invalid.expect("refused");
    assert!(reason.contains("not a proof of block"), "{reason}");
    checks_are_gone(&rig).await;
}

#[tokio::test]
async fn a_proof_that_contradicts_the_facts_is_false() {
    let rig = rig([mock("a"), mock("verifier").arg("--verify")]).await;
    let mut other_parent = rig.task(1);
    other_parent.header.check = true;
    other_parent.header.context.parent_hash.0[0] ^= 1;
    rig.publish(&other_parent).await;
    let verdict = rig.result(&other_parent).await.verdict.expect("a verdict");
    let reason = verdict.invalid.expect("refused");
    assert!(reason.contains("has parent"), "{reason}");
    assert_eq!(key(&other_parent).zkvm, rig.zkvm);
}

/// Returns the obstacle of the next check without a verdict, and its words.
async fn obstacle(signals: &mut Signals) -> (Obstacle, String) {
    let heard = async {
        loop {
            let signal = signals.next().await.expect("signals come");
            if let Ok(Event {
                what: Happening::CheckUnverified { obstacle, reason, .. },
                ..
            }) = signal.body()
            {
                return (obstacle, reason);
            }
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("an event")
}

#[tokio::test]
async fn a_proof_about_a_block_without_facts_waits_for_them_and_nobody_is_judged() {
    let rig = rig([mock("a"), mock("verifier").arg("--verify")]).await;
    let mut events = rig
        .bus()
        .listen([subject::all(Kind::Notice)])
        .await
        .expect("listening");
    let mut task = rig.task(51);
    task.header.check = true;
    rig.publish(&task).await;
    for _ in 0..3 {
        let (obstacle, reason) = obstacle(&mut events).await;
        assert_eq!(obstacle, Obstacle::Facts);
        assert!(reason.contains("no facts about block 51"), "{reason}");
    }
    rig.deployment.submit_blocks(&rig.pipeline, 51..=51).await;
    let result = rig.result(&task).await;
    let verdict = result.verdict.expect("a verdict");
    assert_eq!(verdict.invalid, None);
    // Until the facts came, no verifier could tell: that time is a wait.
    assert!(verdict.waited_us > 300_000, "{verdict:?}");
    assert_eq!(result.prover.as_str(), "a");
}

/// Returns the check of prover `a` for an attempt with this output.
fn unverified(task: &Task, output: push0_domain::Payload) -> TaskResult {
    TaskResult {
        header: task.header.clone(),
        prover: "a".parse().expect("a name"),
        outcome: Outcome::Completed {
            outputs: push0_domain::Payloads::one(output),
        },
        inputs: Some(task.inputs.clone()),
        prove_us: 1,
        transfer_us: 0,
        waited_us: 0,
        signature: None,
        verdict: None,
    }
}

/// Stores a check as the prover `speaker` may.
async fn check_of(rig: &Rig, speaker: &str, check: &TaskResult) {
    let subject = subject::check(&speaker.parse().expect("a name"), &check.header.key(), None);
    let message = Message::new(subject, check, &TraceContext::default());
    let stored = rig.bus().publish(message.expect("it can be written")).await;
    stored.expect("the check is stored");
}

async fn checks_are_gone(rig: &Rig) {
    wait_for("CHECKS to be empty", PATIENCE, async || {
        let subjects = subject::checks_of_zkvm(&rig.zkvm);
        let left = rig.bus().subjects(Stream::Checks, &subjects).await;
        left.expect("answered").is_empty()
    })
    .await;
}

/// A false proof in the name of another prover had that prover quarantined.
#[tokio::test]
async fn a_check_in_the_name_of_another_prover_is_taken_away_without_a_verdict() {
    let rig = rig([mock("verifier").arg("--verify")]).await;
    let mut task = rig.task(1);
    task.header.check = true;
    let rubbish = push0_domain::Payload::Inline(b"no proof".to_vec());
    check_of(&rig, "hostile", &unverified(&task, rubbish.clone())).await;
    checks_are_gone(&rig).await;
    let verdicts = subject::reports_of_attempt(Kind::Verdict, &key(&task));
    let stored = rig.bus().subjects(Stream::Results, &verdicts).await;
    assert!(stored.expect("answered").is_empty());
    // In its own name it is charged.
    check_of(&rig, "a", &unverified(&task, rubbish)).await;
    let result = rig.result(&task).await;
    assert!(result.verdict.expect("a verdict").invalid.is_some());
    assert_eq!(result.prover.as_str(), "a");
}

/// A verifier would work for it for ever.
#[tokio::test]
async fn a_check_cannot_lengthen_the_work_of_its_verifier() {
    let rig = rig([mock("verifier").arg("--verify")]).await;
    let mut task = rig.task(1);
    task.header.check = true;
    task.header.kind = StageKind::Split;
    let mut check = unverified(&task, push0_domain::Payload::empty());
    let outputs = vec![push0_domain::Payload::Inline(b"no proof".to_vec()); 1000];
    check.outcome = Outcome::Completed {
        outputs: push0_domain::Payloads::List(outputs),
    };
    check_of(&rig, "a", &check).await;
    let reason = rig
        .result(&task)
        .await
        .verdict
        .and_then(|verdict| verdict.invalid);
    let reason = reason.expect("refused");
    assert!(reason.contains("defines a Map"), "{reason}");
}

#[tokio::test]
async fn a_lost_output_is_proved_again_and_nobody_is_judged() {
    let rig = rig([mock("verifier").arg("--verify")]).await;
    let mut events = rig
        .bus()
        .listen([subject::all(Kind::Notice)])
        .await
        .expect("listening");
    let mut task = rig.task(1);
    task.header.check = true;
    let place = push0_domain::BlobPlace {
        zkvm: Some(rig.zkvm.clone()),
        writer: "a".parse().expect("a name"),
        pipeline: rig.pipeline.clone(),
        number: 1,
    };
    let lost = push0_domain::Payload::Blob(push0_domain::BlobRef::of(place, b"expired"));
    check_of(&rig, "a", &unverified(&task, lost)).await;
    let (obstacle, reason) = obstacle(&mut events).await;
    assert_eq!(obstacle, Obstacle::Output);
    assert!(reason.contains("is not in the store"), "{reason}");
    // The pauses until an output counts as lost take 12 to 26 s.
    let subject = subject::reports_of_attempt(Kind::Verdict, &key(&task));
    let kept = wait_for("the end of the attempt", 2 * PATIENCE, async || {
        let kept = rig.bus().last::<ResultEvent>(Stream::Results, &subject).await;
        kept.expect("answered")
    })
    .await;
    let ResultEvent::Attempt(result) = kept.body.expect("readable") else {
        panic!("not an attempt")
    };
    assert_eq!(class(&result), FailureClass::Surroundings);
    assert_eq!(
        (result.verdict.is_some(), result.inputs),
        (false, Some(task.inputs))
    );
}
