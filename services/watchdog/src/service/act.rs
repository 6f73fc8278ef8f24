//! Carries out decisions.

use super::{Active, place::place_of};
use crate::{
    decide::{Because, Effect, End, Reason},
    reports,
    silence::SUSPECT_AFTER,
};
use push0_bus::{Ack, BusError, Kept, Message, PublishError, Stream, now};
use push0_domain::{
    Participant, PipelineId, Timestamp,
    message::{Control, Failure, FailureClass, Happening, Held, ResultEvent, Role, Task, TaskHeader},
    pipeline::Rest,
    subject::{self, AttemptKey},
    trace::{AttemptTold, Cause, Span, TraceContext, attempt},
};
use push0_runtime::trace;
use serde::{Serialize, de::IgnoredAny};
use std::time::Duration;

/// How long a report is retried before the watchdog starts over from stored state.
const PATIENCE: Duration = Duration::from_secs(10);

/// An attempt whose prover cannot report its end.
pub(super) struct Lost {
    pub(super) trace: TraceContext,
    pub(super) prover: Participant,
    pub(super) end: End,
    /// When the broker stored the task.
    pub(super) released_at: Timestamp,
    /// When the prover was last heard, and how long the attempt had run then; `None` without a lease of it.
    pub(super) heard: Option<(Timestamp, Duration)>,
    pub(super) ack: Ack,
}

impl Active<'_> {
    pub(super) async fn perform(&mut self, effect: Effect) -> Result<(), BusError> {
        let act = match effect {
            Effect::Report {
                prover,
                held,
                end,
                heard_at,
            } => return self.report(prover, &held, end, heard_at).await,
            Effect::Hedge {
                prover,
                held,
                because,
            } => {
                let key = held.header.key();
                return self.second_copy(&key, prover, because, Some(&held.trace)).await;
            }
            Effect::Extend(_, held) => {
                if let Some(ack) = self.ack_of(Role::Prover, &held).await? {
                    ack.progress().await;
                }
                return Ok(());
            }
            Effect::Announce(happening) => return self.announce(happening).await,
            Effect::GiveBack(_, role, held) => {
                let Some(ack) = self.ack_of(role, &held).await? else {
                    return Ok(());
                };
                ack.give_back(Duration::ZERO).await;
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

    /// Returns the acknowledgement of a delivery in a lease, made from its stream, its consumer and its sequence. Returns
    /// `None` unless that is the message of the attempt in the sealed header: a lease may name any sequence.
    async fn ack_of(&self, role: Role, held: &Held) -> Result<Option<Ack>, BusError> {
        let key = held.header.key();
        let (stream, consumer, subject) = place_of(role, &key);
        let kept = self.bus.last::<IgnoredAny>(stream, &subject).await?;
        if kept.is_none_or(|kept| kept.sequence != held.sequence) {
            return Ok(None);
        }
        let handed = self.bus.handed_out(stream, &consumer).await?;
        Ok(handed.map(|handed| self.bus.ack_at(stream, &consumer, held.sequence, &handed)))
    }

    /// Tells observers and the log what was noticed about a process.
    async fn announce(&mut self, happening: Happening) -> Result<(), BusError> {
        // A process that is not there any more may have been the last prover not in quarantine.
        let mut is_fewer = false;
        match &happening {
            Happening::ProverSuspected { prover, held, .. } => {
                is_fewer = true;
                tracing::warn!(prover.id = %prover, held, "suspected: no heartbeat, its attempts get second copies");
            }
            Happening::ProverBack {
                prover, silent_ms, ..
            } => {
                tracing::info!(prover.id = %prover, silent_ms, "back: heard again, its attempts go on");
            }
            Happening::ProverLost { prover, held, .. } => {
                is_fewer = true;
                if *held == 0 {
                    tracing::warn!(prover.id = %prover, "dead: it held nothing");
                } else {
                    tracing::warn!(prover.id = %prover, held, "dead: its attempts are reported as died");
                }
            }
            Happening::NameTakenTwice { prover, origins } => {
                let origins: Vec<String> = origins.iter().map(ToString::to_string).collect();
                tracing::error!(
                    prover.id = %prover,
                    origins = origins.join(", "),
                    "two processes of one name, give one of them another PUSH0_PROVER__ID"
                );
            }
            _ => {}
        }
        self.bus.announce(None, happening);
        if is_fewer {
            self.end_quarantines().await
        } else {
            Ok(())
        }
    }

    /// Returns whether a pipeline lets superfluous proofs finish.
    async fn finishes(&self, pipeline: &PipelineId) -> Result<bool, BusError> {
        let current = self.pipelines.current_of(pipeline).await?;
        Ok(current.is_some_and(|p| p.rest == Rest::Finish))
    }

    /// Returns the task stored in TASKS. `None` if it was acknowledged or purged, so nothing is
    /// left to report.
    pub(super) async fn task(&self, key: &AttemptKey) -> Result<Option<Kept<Task>>, BusError> {
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

    async fn report(
        &self,
        prover: Participant,
        held: &Held,
        end: End,
        heard_at: Timestamp,
    ) -> Result<(), BusError> {
        let key = held.header.key();
        let kept = self.task(&key).await?;
        let kept = kept.map(|kept| (kept.body, kept.sequence, kept.stored_at));
        let Some((Ok(task), sequence, released_at)) = kept else {
            return Ok(());
        };
        if sequence != held.sequence {
            // TASKS now holds a newer message that replaced this one, so no report is needed.
            return Ok(());
        }
        let Some(ack) = self.ack_of(Role::Prover, held).await? else {
            return Ok(());
        };
        let lost = Lost {
            trace: held.trace.clone(),
            prover,
            end,
            released_at,
            heard: Some((heard_at, Duration::from_millis(held.running_ms.unwrap_or(0)))),
            ack,
        };
        self.write_end(&key, task, lost).await
    }

    /// Writes the end of an attempt in place of its prover, and only then ends its delivery, so that a crash
    /// in between costs a second run and never the task.
    pub(super) async fn write_end(&self, key: &AttemptKey, task: Task, lost: Lost) -> Result<(), BusError> {
        let ran = lost.heard.map_or(Duration::ZERO, |(_, ran)| ran);
        let result = reports::lost(task, lost.prover.name.clone(), lost.end, ran);
        let Some(failure) = result.failure() else {
            return Ok(());
        };
        let act = match failure.class {
            FailureClass::TimedOut => "timed-out",
            _ => "died",
        };
        let header = &result.header;
        let span = tracing::info_span!(
            "reassign",
            block.number = header.id.stage.block.number,
            task.id = %header.id,
            attempt = header.attempt,
            prover.id = %result.prover,
            outcome = failure.class.as_str(),
            trace_id = lost.trace.id().map(display),
        );
        tracing::warn!(parent: &span, reason = failure.message, "attempt lost, reporting it as failed");
        let spans = told(header, &lost, &failure, now());
        self.publish(
            subject::result_by_watchdog(key),
            &ResultEvent::Attempt(result),
            &lost.trace,
        )
        .await?;
        trace::write(spans);
        lost.ack.done().await;
        self.metrics.acts.with_label_values(&[act]).inc();
        Ok(())
    }

    /// Asks for a second copy of an attempt, unless the attempt is over.
    pub(super) async fn second_copy(
        &self,
        key: &AttemptKey,
        prover: Participant,
        because: Because,
        trace: Option<&TraceContext>,
    ) -> Result<(), BusError> {
        let Some((Ok(task), stored)) = self.task(key).await?.map(|kept| (kept.body, kept.trace)) else {
            return Ok(());
        };
        let (act, cause) = match because {
            Because::Slow => ("hedged", Cause::Slow),
            Because::Silent => {
                tracing::warn!(
                    attempt.key = %key,
                    prover.id = %prover.name,
                    "the prover is silent, a second copy of its attempt starts elsewhere"
                );
                ("copied", Cause::Silence)
            }
        };
        let ready = reports::second_copy(task, prover.name, now());
        let id = ready.stage.task(ready.tasks.first).attempt(ready.attempt);
        let key = AttemptKey::of(&ready.zkvm, &id);
        let trace = trace.unwrap_or(&stored);
        let trace = trace.map(|trace| trace.next_attempt(cause, now()));
        self.publish(subject::stage(&key), &ready, &trace).await?;
        self.metrics.acts.with_label_values(&[act]).inc();
        Ok(())
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

/// Returns the spans of an attempt whose prover cannot write them, by the times of its lease. A silent attempt ends when
/// its prover was suspected: from then on, a copy of it may be on its way.
fn told(header: &TaskHeader, lost: &Lost, failure: &Failure, now: Timestamp) -> Vec<Span> {
    let heard_at = lost.heard.map(|(at, _)| at);
    let begun_at = lost.heard.map(|(at, ran)| at.minus(ran));
    let is_hung = lost.end == End::Hung;
    let suspected_at = heard_at.map_or(now, |at| at.plus(SUSPECT_AFTER));
    let end = if is_hung { now } else { suspected_at.min(now) };
    let told = AttemptTold {
        header,
        prover: &lost.prover.name,
        released_at: lost.released_at,
        begun_at,
        read: Duration::ZERO,
        proved: Duration::MAX,
        heard_at: heard_at.filter(|_| !is_hung),
        end,
        failure: Some(failure),
        events: Vec::new(),
    };
    attempt(&lost.trace, &told)
}
