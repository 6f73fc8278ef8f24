//! Test rig: a broker with one pipeline; the test acts as dispatcher, collector and watchdog.

use push0_bus::{Bus, Kept, Message, Stream};
use push0_domain::{
    Participant, Payload, Payloads, PipelineId, ZkvmId,
    message::{
        Control, Failure, FailureClass, Held, Lease, Outcome, ProverState, ResultEvent, Task, TaskResult,
    },
    subject::{self, AttemptKey, Kind},
    trace::TraceContext,
};
use push0_harness::{Deployment, ProcessBuilder, synthetic_header, wait_for};
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
        Task {
            header: synthetic_header(&self.pipeline, number, &self.zkvm, "prove"),
            inputs: Payloads::one(Payload::Inline(number.to_string().into_bytes())),
            avoid: Vec::new(),
        }
    }

    pub(crate) async fn publish(&self, task: &Task) {
        let subject = subject::task(&key(task));
        let keys = self.bus().seals().await.expect("the keys of the seals");
        let header = keys.keys().seal(task.header.clone()).expect("it can be sealed");
        let task = &Task {
            header,
            ..task.clone()
        };
        let message = Message::new(subject, task, &TraceContext::default()).expect("it can be written");
        let stored = self.bus().publish_patiently(message, PATIENCE).await;
        stored.expect("the task is stored");
    }

    /// Waits in RESULTS for the end of an attempt: the verifier's verdict if the task is checked,
    /// else the prover's result.
    pub(crate) async fn result(&self, task: &Task) -> TaskResult {
        if task.header.check {
            self.result_at(subject::reports_of_attempt(Kind::Verdict, &key(task)))
                .await
        } else {
            self.result_of_prover(task).await
        }
    }

    /// Waits for the prover's own result. For a checked task, that exists only if the attempt failed.
    pub(crate) async fn result_of_prover(&self, task: &Task) -> TaskResult {
        self.result_at(subject::reports_of_attempt(Kind::Result, &key(task)))
            .await
    }

    async fn result_at(&self, subject: String) -> TaskResult {
        let kept: Kept<ResultEvent> = wait_for("a result", PATIENCE, async || {
            // A broker that stood still is not connected again at once.
            let last = self.bus().last(Stream::Results, &subject).await;
            last.map_err(|error| error.to_string())?.ok_or("none".to_owned())
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
            match there {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err("the task is there".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }

    /// Waits for a lease for which `says` returns a value, and returns the value.
    pub(crate) async fn lease<T>(&self, prover: &str, what: &str, says: impl Fn(&Lease) -> Option<T>) -> T {
        let subject = subject::lease(&self.zkvm, &prover.parse().expect("a name"));
        wait_for(what, PATIENCE, async || {
            let kept = self.bus().last::<Lease>(Stream::Leases, &subject).await;
            let lease = kept
                .map_err(|error| error.to_string())?
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
        let subject = subject::control(&Participant {
            zkvm: self.zkvm.clone(),
            name: prover.parse().expect("a name"),
        });
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
    let blobs = bus.blobs();
    blobs.resolve(&payload).await.expect("the output is there")
}
