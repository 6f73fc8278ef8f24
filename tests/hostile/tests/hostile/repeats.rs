//! A prover repeats its sealed checks, or makes checks up, where a verifier takes them. Or it tells of its attempt what the
//! collector does not believe, and others might.

use crate::thefts::{THIEF, feign, honest, sign_in, take, unsigned};
use futures::{StreamExt as _, future::join_all, stream};
use nkeys::KeyPair;
use push0_bus::{Bus, Message};
use push0_domain::{
    Payload, Payloads, PipelineId,
    message::{EmissionOutcome, Failure, FailureClass, Outcome, ResultEvent, Role, Task, TaskResult},
    signature::Signature,
    subject,
    trace::TraceContext,
};
use push0_harness::{Deployment, DeploymentBuilder, ProcessBuilder};
use push0_hostile::{PATIENCE, key_of};
use std::{convert::Infallible, time::Duration};

const PIPELINE: &str = "name = \"demo\"\nsource = { kind = \"external\" }\n[[proof]]\ntype = \"main\"\nzkvm = \"mock\"\n\
                        verify = \"final\"\n[[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"20s\"\n";

/// How many checks the thief makes. They would take a verifier of 100 ms longer than the honest proofs may.
const CHECKS: u64 = 300;

/// Starts a verifier with one slot that takes so long for a proof. The thief is the only prover.
async fn verified(verify_time: &str) -> Deployment {
    let verifier = honest("v1", 1, "0s")
        .env("PUSH0_MOCK__VERIFY_TIME", verify_time)
        .arg("--verify");
    with_thief(PIPELINE).service(verifier).start().await
}

async fn unverified() -> Deployment {
    let pipeline = PIPELINE.replace("\"final\"", "\"off\"");
    with_thief(&pipeline).start().await
}

fn with_thief(pipeline: &str) -> DeploymentBuilder {
    let builder = Deployment::builder().as_shipped().pipeline(pipeline);
    builder.member(THIEF, Role::Prover, "mock")
}

fn demo() -> PipelineId {
    "demo".parse().expect("a name")
}

fn prover() -> ProcessBuilder {
    honest("p1", 2, "50ms")
}

/// Takes so many attempts, the next of which may follow from what is done about the ones before.
async fn taken(thief: &Bus, count: usize) -> Vec<Task> {
    let taken = tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            taken = take(thief, count) => taken,
            never = feign(thief, 1, Vec::new()) => match never {},
        }
    });
    let mut tasks = Vec::new();
    for task in taken.await.expect("the thief gets tasks") {
        task.ack.done().await;
        tasks.push(task.body);
    }
    tasks
}

/// Submits block 1, whose task the thief takes away. Returns the thief's connection and the task.
async fn robbed(deployment: &Deployment) -> (Bus, Task) {
    let thief = sign_in(deployment).await;
    deployment.submit_blocks(&demo(), 1..=1).await;
    let task = taken(&thief, 1).await.remove(0);
    (thief, task)
}

/// Returns the end of an attempt of the thief, signed.
fn ended(deployment: &Deployment, task: &Task, outcome: Outcome) -> TaskResult {
    let seed = deployment.seed(THIEF).expect("a deployment with accounts");
    let pair = KeyPair::from_seed(std::fs::read_to_string(seed).expect("a seed").trim()).expect("a seed");
    let mut result = unsigned(task.header.clone(), task, outcome);
    result.signature = Some(Signature {
        key: pair.public_key(),
        word: None,
        bytes: pair
            .sign(result.statement().as_bytes())
            .expect("a key that signs"),
    });
    result
}

/// Returns a check with a false proof. Each number makes another message.
fn check(deployment: &Deployment, task: &Task, number: u64) -> Message {
    let result = ended(deployment, task, completed(number));
    let key = key_of(deployment, THIEF);
    let subject = subject::check(&result.prover, &task.header.key(), Some(&key));
    Message::new(subject, &result, &TraceContext::default()).expect("it can be written")
}

fn completed(number: u64) -> Outcome {
    Outcome::Completed {
        outputs: Payloads::one(Payload::Inline(number.to_be_bytes().to_vec())),
    }
}

/// Returns a report of the thief on its attempt.
fn report(deployment: &Deployment, result: TaskResult) -> Message {
    let key = key_of(deployment, THIEF);
    let subject = subject::result(&result.prover, &result.header.key(), Some(&key));
    let result = ResultEvent::Attempt(result);
    Message::new(subject, &result, &TraceContext::default()).expect("it can be written")
}

/// Stores these messages again and again, as fast as the broker takes them.
async fn repeat(thief: &Bus, messages: &[Message]) -> Infallible {
    loop {
        join_all(messages.iter().map(|message| thief.publish(message.clone()))).await;
    }
}

/// Stores checks.
async fn store(thief: &Bus, checks: impl Iterator<Item = Message>) {
    // Signed first: the signatures take longer than the broker.
    let checks: Vec<Message> = checks.collect();
    let stored = stream::iter(checks).map(|check| thief.publish_patiently(check, PATIENCE));
    let stored: Vec<_> = stored.buffered(50).collect().await;
    for stored in stored {
        stored.expect("the check is stored");
    }
}

async fn assert_proved(deployment: &Deployment, blocks: u64) {
    let records = deployment
        .wait_emitted(&demo(), blocks as usize, 2 * PATIENCE)
        .await;
    for kept in &records {
        let outcome = &kept.body.as_ref().expect("a readable record").outcome;
        assert!(matches!(outcome, EmissionOutcome::Proved(_)), "{outcome:?}");
    }
}

/// The first attempt has its verdict, which makes a second one. The thief takes that away and goes on with checks of the
/// first one.
#[tokio::test]
async fn a_repeated_check_with_a_verdict_hides_no_loss() {
    let mut deployment = verified("0s").await;
    let (thief, first) = robbed(&deployment).await;
    let stored = thief.publish(check(&deployment, &first, 0)).await;
    stored.expect("the check is stored");
    let second = taken(&thief, 1).await.remove(0);
    assert_eq!(second.header.attempt, 2);
    deployment.start_service(prover());
    let checks: Vec<Message> = (0..64).map(|number| check(&deployment, &first, number)).collect();
    tokio::select! {
        () = assert_proved(&deployment, 1) => {}
        never = repeat(&thief, &checks) => match never {},
    }
}

/// The same report on a failed attempt, as fast as the broker takes it.
#[tokio::test]
async fn a_flood_of_one_result_delays_no_block() {
    let mut deployment = unverified().await;
    let (thief, task) = robbed(&deployment).await;
    let failed = Outcome::Failed(Failure::new(FailureClass::Retryable, "as told"));
    let failed = vec![report(&deployment, ended(&deployment, &task, failed)); 64];
    deployment.start_service(prover());
    let honest = async {
        assert_proved(&deployment, 1).await;
        deployment.submit_blocks(&demo(), 2..=20).await;
        assert_proved(&deployment, 20).await;
    };
    tokio::select! {
        () = honest => {}
        never = repeat(&thief, &failed) => match never {},
    }
}

/// One task makes many checks, each of which would take the only verifier a tenth of a second.
#[tokio::test]
async fn hundreds_of_checks_of_one_attempt_delay_no_verdict_of_another() {
    let mut deployment = verified("100ms").await;
    let (thief, task) = robbed(&deployment).await;
    store(
        &thief,
        (0..CHECKS).map(|number| check(&deployment, &task, number)),
    )
    .await;
    deployment.start_service(prover());
    deployment.submit_blocks(&demo(), 2..=3).await;
    assert_proved(&deployment, 3).await;
}

/// The same with attempts that were never released.
#[tokio::test]
async fn hundreds_of_made_up_checks_delay_no_verdict_of_another() {
    let mut deployment = verified("100ms").await;
    let (thief, mut task) = robbed(&deployment).await;
    let checks = (0..CHECKS).map(|number| {
        task.header.attempt += 1;
        task.header.seal.0[..8].copy_from_slice(&number.to_be_bytes());
        check(&deployment, &task, number)
    });
    store(&thief, checks).await;
    deployment.start_service(prover());
    assert_proved(&deployment, 1).await;
}

/// The collector refuses a completed attempt without a signature. The attempt of an honest prover that follows must not be
/// stopped because of it.
#[tokio::test]
async fn an_unsigned_result_stops_no_attempt_of_another() {
    let mut deployment = unverified().await;
    let (thief, task) = robbed(&deployment).await;
    let failed = Outcome::Failed(Failure::new(FailureClass::Retryable, "as told"));
    let failed = report(&deployment, ended(&deployment, &task, failed));
    thief.publish(failed).await.expect("the failure is stored");
    deployment.start_service(honest("p1", 2, "2s"));
    let mut unsigned = ended(&deployment, &task, completed(1));
    unsigned.signature = None;
    let unsigned = report(&deployment, unsigned);
    let lie = async {
        let mut pause = tokio::time::interval(Duration::from_millis(100));
        loop {
            pause.tick().await;
            let _ = thief.publish(unsigned.clone()).await;
        }
    };
    tokio::select! {
        () = assert_proved(&deployment, 1) => {}
        () = lie => {}
    }
}
