//! Carries out decisions.

use super::Active;
use crate::{
    decide::{Effect, End, Reason},
    unheld::{Fate, Unheld},
};
use push0_bus::{
    Ack, BusError, Handed, Kept, Message, PublishError, Stream, consumer_of_checks, consumer_of_tasks, now,
};
use push0_domain::{
    PipelineId, ProverId, ZkvmId,
    message::{
        Control, Failure, FailureClass, Happening, Held, Outcome, ResultEvent, Role, StageReady, Task,
        TaskRange, TaskResult,
    },
    pipeline::Rest,
    subject::{self, AttemptKey, Kind},
    trace::TraceContext,
    wanted::Claims,
};
use push0_runtime::trace;
use serde::{Serialize, de::IgnoredAny};
use std::{collections::HashMap, time::Duration};

/// How long a report is retried before the watchdog starts over from stored state.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most messages of a stream to compare with the leases. CHECKS only holds more while there are far too few
/// verifiers. Then a delivery in no lease waits for the broker's ack wait of 5 s.
const LOOK_MAX: u64 = 30_000;

/// An attempt whose prover cannot report its end.
struct Lost {
    task: Task,
    trace: TraceContext,
    prover: ProverId,
    end: End,
    ran_ms: u64,
    ack: Ack,
}

impl Active<'_> {
    pub(super) async fn perform(&mut self, effect: Effect) -> Result<(), BusError> {
        let act = match effect {
            Effect::Report { prover, held, end } => return self.report(prover, &held, end).await,
            Effect::Hedge { prover, held } => return self.hedge(prover, &held).await,
            Effect::Announce(happening) => {
                let lost = matches!(happening, Happening::ProverLost { .. });
                self.bus.announce(None, happening);
                // The lost prover may have been the last one not in quarantine.
                return if lost {
                    self.end_quarantines().await
                } else {
                    Ok(())
                };
            }
            Effect::GiveBack(held) => {
                self.bus.ack_of(&held.ack_subject).give_back(Duration::ZERO).await;
                "given-back"
            }
            Effect::Stop {
                prover,
                attempt,
                reason,
            } => {
                if reason == Reason::Emitted && self.finishes(&attempt.task.stage.pipeline).await? {
                    return Ok(());
                }
                let order = Control::Stop {
                    attempt,
                    reason: reason.as_str().into(),
                };
                self.publish(subject::control(&prover), &order, &TraceContext::default())
                    .await?;
                "stopped"
            }
            Effect::Late(attempts, ended) => {
                if !self.is_any_there(&attempts).await? {
                    return Ok(());
                }
                let subject = subject::ended(&ended.pipeline);
                self.publish(subject, &ResultEvent::Ended(*ended), &TraceContext::default())
                    .await?;
                "late"
            }
        };
        self.metrics.acts.with_label_values(&[act]).inc();
        Ok(())
    }

    /// Returns whether a pipeline lets superfluous proofs finish.
    async fn finishes(&self, pipeline: &PipelineId) -> Result<bool, BusError> {
        let current = self.pipelines.current_of(pipeline).await?;
        Ok(current.is_some_and(|p| p.rest == Rest::Finish))
    }

    /// Returns the task stored in TASKS. `None` if it was acknowledged or purged, so nothing is
    /// left to report.
    async fn task(&self, key: &AttemptKey) -> Result<Option<Kept<Task>>, BusError> {
        self.bus.last::<Task>(Stream::Tasks, &subject::task(key)).await
    }

    async fn is_any_there(&self, attempts: &[AttemptKey]) -> Result<bool, BusError> {
        for key in attempts {
            if self.task(key).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn report(&self, prover: ProverId, held: &Held, end: End) -> Result<(), BusError> {
        let key = AttemptKey::of(&held.header.zkvm, &held.header.attempt_id());
        let Some(Ok(task)) = self.task(&key).await?.map(|kept| kept.body) else {
            return Ok(());
        };
        if task.claim() != held.header.context.claim() {
            // TASKS now holds a newer attempt that replaced this one, so no report is needed.
            return Ok(());
        }
        let lost = Lost {
            task,
            trace: held.trace.clone(),
            prover,
            end,
            ran_ms: held.running_ms.unwrap_or(0),
            ack: self.bus.ack_of(&held.ack_subject),
        };
        self.write_end(&key, lost).await
    }

    /// Writes the end of an attempt in place of its prover, and only then ends its delivery, so that a crash
    /// in between costs a second run and never the task.
    async fn write_end(&self, key: &AttemptKey, lost: Lost) -> Result<(), BusError> {
        let header = lost.task.header;
        let (class, message, act) = match lost.end {
            End::Silent(silent) => (FailureClass::Died, format!("silent for {silent:?}"), "died"),
            End::Restarted => (FailureClass::Died, "restarted".to_owned(), "died"),
            End::Hung => (
                FailureClass::TimedOut,
                format!("hung after {} ms", header.timeout_ms),
                "timed-out",
            ),
        };
        let span = tracing::info_span!(
            "reassign",
            block.number = header.id.stage.block.number,
            task.id = %header.id,
            attempt = header.attempt,
            prover.id = %lost.prover,
            outcome = class.as_str(),
        );
        trace::set_parent(&span, &lost.trace);
        tracing::warn!(parent: &span, reason = message, "attempt lost, reporting it as failed");
        let result = TaskResult {
            header,
            prover: lost.prover,
            outcome: Outcome::Failed(Failure::new(class, message)),
            inputs: Some(lost.task.inputs),
            prove_us: lost.ran_ms * 1000,
            verdict: None,
        };
        let context = trace::context(&span, &lost.trace);
        self.publish(subject::result(key), &ResultEvent::Attempt(result), &context)
            .await?;
        lost.ack.done().await;
        self.metrics.acts.with_label_values(&[act]).inc();
        Ok(())
    }

    async fn hedge(&self, prover: ProverId, held: &Held) -> Result<(), BusError> {
        let key = AttemptKey::of(&held.header.zkvm, &held.header.attempt_id());
        let Some(Ok(task)) = self.task(&key).await?.map(|kept| kept.body) else {
            return Ok(());
        };
        let header = task.header;
        let ready = StageReady {
            tasks: TaskRange {
                first: header.id.index,
                count: 1,
                of: header.of,
            },
            stage: header.id.stage.clone(),
            zkvm: header.zkvm.clone(),
            attempt: header.attempt + 1,
            hedge_of: Some(header.attempt),
            avoid: vec![prover],
            inputs: task.inputs,
            busy_us: header.busy_us,
            context: header.context,
        };
        let key = AttemptKey::of(&header.zkvm, &header.id.attempt(ready.attempt));
        self.publish(subject::stage(&key), &ready, &held.trace).await?;
        self.metrics.acts.with_label_values(&["hedged"]).inc();
        Ok(())
    }

    /// Compares TASKS and CHECKS with the leases, and passes on deliveries in no lease.
    pub(super) async fn look(&mut self) -> Result<(), BusError> {
        let streams = [
            (Stream::Tasks, Kind::Task, Role::Prover),
            (Stream::Checks, Kind::Check, Role::Verifier),
        ];
        for (stream, kind, role) in streams {
            if self.bus.level(stream).await?.messages > LOOK_MAX {
                continue;
            }
            let subjects = self.bus.subjects(stream, &subject::all(kind)).await?;
            let keys = subjects
                .iter()
                .map(|(subject, _)| AttemptKey::parse(subject, kind));
            let unheld = self.core.look(role, keys.filter_map(Result::ok).collect(), now());
            let mut handed = HashMap::new();
            for unheld in unheld {
                self.pass_on(stream, unheld, &mut handed).await?;
            }
        }
        Ok(())
    }

    /// Passes on an unheld attempt if it was delivered. Otherwise it waits for a prover. An attempt whose
    /// delivery was acknowledged is over, and is removed.
    async fn pass_on(
        &mut self,
        stream: Stream,
        unheld: Unheld,
        handed: &mut HashMap<ZkvmId, Option<Handed>>,
    ) -> Result<(), BusError> {
        let Unheld { key, role, fate } = unheld;
        let (subject, consumer) = match role {
            Role::Prover => (subject::task(&key), consumer_of_tasks(&key.zkvm)),
            Role::Verifier => (subject::check(&key), consumer_of_checks(&key.zkvm)),
        };
        if !handed.contains_key(&key.zkvm) {
            let now = self.bus.handed_out(stream, &consumer).await?;
            handed.insert(key.zkvm.clone(), now);
        }
        let out = handed.get(&key.zkvm).copied().flatten();
        let kept = self.bus.last::<IgnoredAny>(stream, &subject).await?;
        let stored = kept.map(|kept| kept.sequence);
        let is_over = |sequence: &u64| out.is_some_and(|out| out.is_acknowledged(*sequence));
        if let Some(sequence) = stored.filter(is_over) {
            tracing::info!(attempt = %key, stream = stream.name(), "removing an acknowledged message");
            self.metrics.acts.with_label_values(&["removed"]).inc();
            return self.bus.purge_up_to(stream, &subject, sequence).await;
        }
        let delivered = stored.zip(out);
        let delivered = delivered.filter(|(sequence, out)| out.unacknowledged > 0 && *sequence <= out.up_to);
        let Some((sequence, out)) = delivered else {
            self.core.waits(role, &key);
            return Ok(());
        };
        let ack = self.bus.ack_at(stream, &consumer, sequence, &out);
        let (prover, end) = match fate {
            Fate::Fell(prover, end) => (prover, end),
            Fate::Suspect => return Ok(()),
            Fate::Lost => {
                tracing::info!(attempt = %key, "delivered but in no lease, giving it to another process");
                ack.give_back(Duration::ZERO).await;
                self.metrics.acts.with_label_values(&["given-back"]).inc();
                return Ok(());
            }
        };
        let kept = self.task(&key).await?;
        let Some((Ok(task), trace)) = kept.map(|kept| (kept.body, kept.trace)) else {
            return Ok(());
        };
        let lost = Lost {
            task,
            trace,
            prover,
            end,
            ran_ms: 0,
            ack,
        };
        self.write_end(&key, lost).await
    }

    pub(super) async fn publish<T: Serialize>(
        &self,
        subject: String,
        body: &T,
        trace: &TraceContext,
    ) -> Result<(), BusError> {
        let message = Message::new(subject.clone(), body, trace);
        let message = message.map_err(|source| BusError::Corrupt {
            what: subject,
            source,
        })?;
        match self.bus.publish_patiently(message, PATIENCE).await {
            // Published before, which is just as well.
            Ok(_) | Err(PublishError::Occupied { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
