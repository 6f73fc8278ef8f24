//! Test rig: a broker with one pipeline; the test acts as dispatcher, collector and watchdog.

use push0_bus::{Bus, Kept, Message, Stream};
use push0_domain::{
    Announcement, Payload, Payloads, PipelineId, Timestamp, ZkvmId,
    message::{
        BlockContext, BlockFacts, Control, Failure, FailureClass, Held, Lease, Outcome, ProverState,
        ResultEvent, StageKind, Task, TaskHeader, TaskResult,
    },
    subject::{self, AttemptKey},
    trace::TraceContext,
};
use push0_harness::{Deployment, ProcessBuilder, synthetic_block, synthetic_hash, wait_for};
use std::time::Duration;

/// Far longer than any step of these tests takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Rig {
    pub(crate) deployment: Deployment,
    pub(crate) pipeline: PipelineId,
    pub(crate) zkvm: ZkvmId,
}

impl Rig {
    /// Starts a pipeline `rig` with one proof of `zkvm`, known blocks 1 to 50, and these services.
    pub(crate) async fn start(zkvm: &str, services: Vec<ProcessBuilder>) -> Self {
        let toml = format!(
            r#"
            name = "rig"
            source = {{ kind = "external" }}
            [[proof]]
            type = "main"
            zkvm = "{zkvm}"
            [[proof.stage]]
            name = "prove"
            kind = "map"
            timeout = "10s"
            "#
        );
        let builder = Deployment::builder().pipeline(&toml);
        let deployment = services
            .into_iter()
            .fold(builder, |builder, service| builder.service(service))
            .start()
            .await;
        let pipeline: PipelineId = "rig".parse().expect("a name");
        deployment.submit_blocks(&pipeline, 1..=50).await;
        Self {
            deployment,
            pipeline,
            zkvm: zkvm.parse().expect("a name"),
        }
    }

    pub(crate) fn bus(&self) -> &Bus {
        self.deployment.bus()
    }

    /// Returns the first attempt at the only task of a synthetic block.
    pub(crate) fn task(&self, number: u64) -> Task {
        let stage = push0_domain::task::StageKey {
            pipeline: self.pipeline.clone(),
            block: synthetic_block(&self.pipeline, number),
            first: None,
            proof_type: "main".parse().expect("a name"),
            stage: "prove".parse().expect("a name"),
        };
        let context = BlockContext {
            amends: false,
            revision: 1,
            parent_hash: synthetic_hash(&self.pipeline, number - 1),
            announcement: Announcement(1),
            stored_at: Timestamp::default(),
            first_announcement: None,
            deadline_at: None,
            facts: BlockFacts::default(),
        };
        Task {
            header: TaskHeader {
                id: stage.task(0),
                attempt: 1,
                hedge_of: None,
                zkvm: self.zkvm.clone(),
                context,
                kind: StageKind::Map,
                of: 1,
                timeout_ms: 10_000,
                hedge_after_ms: None,
                attempts_max: 3,
                give_up_at: None,
                check: false,
                program_id: None,
                busy_us: 0,
            },
            inputs: Payloads::one(Payload::Inline(number.to_string().into_bytes())),
            avoid: Vec::new(),
        }
    }

    pub(crate) async fn publish(&self, task: &Task) {
        let subject = subject::task(&key(task));
        let message = Message::new(subject, task, &TraceContext::default()).expect("it can be written");
        let stored = self.bus().publish_patiently(message, PATIENCE).await;
        stored.expect("the task is stored");
    }

    /// Waits in RESULTS for the end of an attempt: the verifier's verdict if the task is checked,
    /// else the prover's result.
    pub(crate) async fn result(&self, task: &Task) -> TaskResult {
        if task.header.check {
            self.result_at(subject::verdict(&key(task))).await
        } else {
            self.result_of_prover(task).await
        }
    }

    /// Waits for the prover's own result. For a checked task, that exists only if the attempt failed.
    pub(crate) async fn result_of_prover(&self, task: &Task) -> TaskResult {
        self.result_at(subject::result(&key(task))).await
    }

    async fn result_at(&self, subject: String) -> TaskResult {
        let kept: Kept<ResultEvent> = wait_for("a result", PATIENCE, async || {
            self.bus()
                .last(Stream::Results, &subject)
                .await
                .expect("answered")
        })
        .await;
        match kept.body.expect("readable") {
            ResultEvent::Attempt(result) => result,
            other @ ResultEvent::Ended(_) => panic!("not an attempt: {other:?}"),
        }
    }

    /// Waits until a task has been acknowledged.
    pub(crate) async fn acknowledged(&self, task: &Task) {
        let subject = subject::task(&key(task));
        wait_for("the task's end in TASKS", PATIENCE, async || {
            let there = self.bus().last::<Task>(Stream::Tasks, &subject).await;
            there.expect("answered").is_none()
        })
        .await;
    }

    /// Waits for a lease for which `says` returns a value, and returns the value.
    pub(crate) async fn lease<T>(&self, prover: &str, what: &str, says: impl Fn(&Lease) -> Option<T>) -> T {
        let subject = subject::lease(&self.zkvm, &prover.parse().expect("a name"));
        wait_for(what, PATIENCE, async || {
            let kept = self
                .bus()
                .last::<Lease>(Stream::Leases, &subject)
                .await
                .expect("answered");
            let lease = kept
                .and_then(|kept| kept.body.ok())
                .ok_or("no lease".to_owned())?;
            says(&lease).ok_or(format!("{lease:?}"))
        })
        .await
    }

    /// Waits until the prover's lease shows the task as running.
    pub(crate) async fn running(&self, prover: &str, task: &Task) {
        self.lease(prover, "a running attempt", |lease| {
            held(lease, task)?.running_ms.map(|_| ())
        })
        .await;
    }

    pub(crate) async fn order(&self, prover: &str, order: &Control) {
        let subject = subject::control(&prover.parse().expect("a name"));
        let message = Message::new(subject, order, &TraceContext::default()).expect("it can be written");
        let stored = self.bus().publish_patiently(message, PATIENCE).await;
        stored.expect("the order is stored");
    }
}

pub(crate) fn key(task: &Task) -> AttemptKey {
    AttemptKey::of(&task.header.zkvm, &task.header.attempt_id())
}

pub(crate) fn held<'a>(lease: &'a Lease, task: &Task) -> Option<&'a Held> {
    let attempt = task.header.attempt_id();
    lease.held.iter().find(|held| held.header.attempt_id() == attempt)
}

pub(crate) fn is_idle(lease: &Lease) -> Option<()> {
    (lease.held.is_empty() && lease.state == ProverState::Active).then_some(())
}

pub(crate) fn failure(result: &TaskResult) -> &Failure {
    match &result.outcome {
        Outcome::Failed(failure) => failure,
        Outcome::Completed { .. } => panic!("completed: {result:?}"),
    }
}

pub(crate) fn class(result: &TaskResult) -> FailureClass {
    failure(result).class
}

/// Returns the only output of a completed attempt.
pub(crate) async fn output(bus: &Bus, result: &TaskResult) -> Vec<u8> {
    let Outcome::Completed { outputs } = &result.outcome else {
        panic!("not completed: {result:?}");
    };
    assert_eq!(outputs.count(), 1);
    let payload = outputs.get(0).expect("one output");
    let blobs = bus.blobs().await.expect("the blob store");
    blobs.resolve(&payload).await.expect("the output is there")
}
