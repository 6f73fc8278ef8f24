//! Carries out operations.

use super::{Active, place::Place};
use crate::{
    decide::{Because, End},
    session::op::{Errand, Lost, Op, Stored},
    silence::SUSPECT_AFTER,
};
use push0_bus::{BusError, Kept, Message, PublishError, Stream, now};
use push0_domain::{
    Timestamp,
    message::{
        BlockEnded, Control, Failure, Happening, ResultEvent, Role, StageReady, Task, TaskHeader, TaskResult,
    },
    subject::{self, AttemptKey},
    trace::{AttemptTold, Cause, Span, TraceContext, attempt},
};
use push0_runtime::trace;
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long a report is retried before the watchdog starts over from stored state.
const PATIENCE: Duration = Duration::from_secs(10);

impl Active<'_> {
    /// Carries out an operation. The session gets the messages read.
    pub(super) async fn perform(&mut self, op: Op<Place>) -> Result<(), BusError> {
        let mut act = None;
        match op {
            Op::Tidy => self.tidy().await?,
            Op::ReadOutput(pipeline, next) => self.read_output(&pipeline, next).await?,
            Op::LookForLost => self.look_for_lost_blocks().await?,
            Op::Look(role) => self.look(role).await?,
            Op::Ask(seat) => self.asking.about(self.bus, seat),
            Op::Locate(role, key, errand) => {
                let is_unheld = matches!(errand, Errand::Unheld(_));
                let found = self.locate(role, &key, is_unheld).await?;
                self.session.located(role, key, errand, found);
            }
            Op::ReadTask(key, writing) => {
                let stored = self.task(&key).await?.and_then(stored);
                self.session.task_read(key, writing, stored, now());
            }
            Op::ReadCheck(key) => {
                let check = self.check(&key).await?;
                self.session.check_read(key, check, now());
            }
            Op::ReadRest(prover, attempt) => {
                let current = self.pipelines.current_of(&attempt.task.stage.pipeline).await?;
                let rest = current.map(|pipeline| pipeline.rest);
                self.session.rest_read(prover, attempt, rest);
            }
            Op::Announce(happening) => self.announce(happening),
            Op::Quarantine(prover, left, reason) => self.order_rest(&prover, left, reason).await?,
            Op::Acknowledge(place) => place.ack.done().await,
            Op::Extend(place) => place.ack.progress().await,
            Op::SaveQuarantine(change) => act = Some(self.save_quarantine(&change).await?),
            Op::StoreEnd(result, lost, released_at) => {
                act = Some(self.store_end(*result, &lost, released_at).await?);
            }
            Op::StoreCopy(key, because, ready, trace) => {
                act = Some(self.store_copy(&key, because, &ready, &trace).await?);
            }
            Op::Late(attempts, ended) => act = self.store_late(&attempts, *ended).await?,
            Op::Stop(prover, attempt, reason) => {
                let reason = reason.as_str().into();
                let stop = Control::Stop { attempt, reason };
                self.publish(subject::control(&prover), &stop, &TraceContext::default())
                    .await?;
                act = Some("stopped");
            }
            Op::GiveBack(place, unheld) => {
                if let Some(key) = unheld {
                    self.tell_given_away(&key, place.stream);
                }
                place.ack.give_back(Duration::ZERO).await;
                act = Some("given-back");
            }
            Op::Remove(key, place) => {
                let (stream, subject) = (place.stream, &place.subject);
                tracing::info!(attempt.key = %key, stream = stream.name(), "removing an acknowledged message");
                self.bus.purge_up_to(stream, subject, place.sequence).await?;
                act = Some("removed");
            }
        }
        if let Some(act) = act {
            self.metrics.acts.with_label_values(&[act]).inc();
        }
        Ok(())
    }

    /// Logs that a delivery never arrived, or how many did not since the last line about the zkVM.
    fn tell_given_away(&mut self, key: &AttemptKey, stream: Stream) {
        let role = match stream {
            Stream::Checks => Role::Verifier,
            _ => Role::Prover,
        };
        match self.given_away.count(&key.zkvm, role, Instant::now()) {
            Some(1) => {
                tracing::info!(attempt.key = %key, "delivered but in no lease, giving it to another process");
            }
            Some(count) => tracing::info!(
                zkvm = %key.zkvm,
                stream = stream.name(),
                count,
                attempt.key = %key,
                "delivered but in no lease, given to other processes again and again: a process of this zkVM may be frozen, \
                 which `push0 provers` shows as silent. Restart or end it. The newest attempt is named"
            ),
            None => {}
        }
    }

    /// Tells observers and the log of a change of a process.
    fn announce(&self, happening: Happening) {
        match &happening {
            Happening::ProverSuspected { prover, held, .. } => {
                tracing::warn!(prover.id = %prover, held, "suspected: no heartbeat, its attempts get second copies");
            }
            Happening::ProverBack {
                prover, silent_ms, ..
            } => {
                tracing::info!(prover.id = %prover, silent_ms, "back: heard again, its attempts go on");
            }
            Happening::ProverLost { prover, held, .. } => {
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
            // Count before the announcement, since its readers may look at the metric at once.
            Happening::QuarantineBegun { .. } | Happening::QuarantineEnded { .. } => self.count_resting(),
            _ => {}
        }
        self.bus.announce(None, happening);
    }

    /// Returns the task stored in TASKS. `None` if it was acknowledged or purged.
    async fn task(&self, key: &AttemptKey) -> Result<Option<Kept<Task>>, BusError> {
        self.bus.last::<Task>(Stream::Tasks, &subject::task(key)).await
    }

    async fn store_late(
        &self,
        attempts: &[AttemptKey],
        ended: BlockEnded,
    ) -> Result<Option<&'static str>, BusError> {
        for key in attempts {
            if self.task(key).await?.is_some() {
                let subject = subject::ended(&ended.pipeline);
                self.publish(subject, &ResultEvent::Ended(ended), &TraceContext::default())
                    .await?;
                return Ok(Some("late"));
            }
        }
        Ok(None)
    }

    /// Stores the end of an attempt in place of its prover.
    async fn store_end(
        &self,
        result: TaskResult,
        lost: &Lost,
        released_at: Timestamp,
    ) -> Result<&'static str, BusError> {
        let (header, failure) = (&result.header, result.failure());
        let failure = failure.as_ref();
        let span = tracing::info_span!(
            "reassign",
            block.number = header.id.stage.block.number,
            task.id = %header.id,
            attempt = header.attempt,
            prover.id = %result.prover,
            outcome = failure.map(|failure| failure.class.as_str()),
            trace_id = lost.trace.id().map(display),
        );
        let reason = failure.map(|failure| failure.message.as_str());
        tracing::warn!(parent: &span, reason, "attempt lost, reporting it as failed");
        let spans = told(header, lost, failure, released_at, now());
        let subject = subject::result_by_watchdog(&header.key());
        self.publish(subject, &ResultEvent::Attempt(result), &lost.trace)
            .await?;
        trace::write(spans);
        Ok(match lost.end {
            End::Hung => "timed-out",
            End::Silent(_) | End::Gone | End::Restarted => "died",
        })
    }

    /// Asks for a second copy of an attempt.
    async fn store_copy(
        &self,
        key: &AttemptKey,
        because: Because,
        ready: &StageReady,
        trace: &TraceContext,
    ) -> Result<&'static str, BusError> {
        let (act, cause) = match because {
            Because::Slow => ("hedged", Cause::Slow),
            Because::Silent => {
                tracing::warn!(
                    attempt.key = %key,
                    prover.id = ready.avoid.first().map(display),
                    "the prover is silent, a second copy of its attempt starts elsewhere"
                );
                ("copied", Cause::Silence)
            }
            Because::Doubted => {
                tracing::error!(
                    attempt.key = %key,
                    prover.id = ready.avoid.first().map(display),
                    "verifiers fail on this proof and judge others: the task is proved once more elsewhere, the first valid \
                     proof counts. Look at the verifiers' logs: this prover is faulty or hostile, or the verifiers are"
                );
                ("doubted", Cause::Slow)
            }
        };
        let id = ready.stage.task(ready.tasks.first).attempt(ready.attempt);
        let key = AttemptKey::of(&ready.zkvm, &id);
        let trace = trace.map(|trace| trace.next_attempt(cause, now()));
        self.publish(subject::stage(&key), ready, &trace).await?;
        Ok(act)
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

/// Returns a task, if it can be read.
fn stored(kept: Kept<Task>) -> Option<Stored> {
    Some((kept.body.ok()?, kept.sequence, kept.stored_at, kept.trace))
}

/// Returns the spans of an attempt whose prover cannot write them, by the times of its lease. A silent attempt ends when
/// its prover was suspected: from then on, a copy of it may be on its way.
fn told(
    header: &TaskHeader,
    lost: &Lost,
    failure: Option<&Failure>,
    released_at: Timestamp,
    now: Timestamp,
) -> Vec<Span> {
    let heard_at = lost.heard.map(|(at, _)| at);
    let begun_at = lost.heard.map(|(at, ran)| at.minus(ran));
    let is_hung = lost.end == End::Hung;
    let suspected_at = heard_at.map_or(now, |at| at.plus(SUSPECT_AFTER));
    let end = if is_hung { now } else { suspected_at.min(now) };
    let told = AttemptTold {
        header,
        prover: &lost.prover.name,
        released_at,
        begun_at,
        read: Duration::ZERO,
        proved: Duration::MAX,
        heard_at: heard_at.filter(|_| !is_hung),
        end,
        failure,
        events: Vec::new(),
    };
    attempt(&lost.trace, &told)
}
