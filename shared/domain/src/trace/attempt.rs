//! Spans of attempts and checks, which the process that ends them writes.

use super::{
    context::{Cause, Trace, TraceContext},
    span::{Event, Kind, Link, Span, SpanId},
    tree::{Branch, leaf, leaf_id, messaging},
};
use crate::{
    ProverId, Timestamp,
    message::{Failure, FailureClass, TaskHeader},
};
use std::time::Duration;

/// How long after the end of a task its other attempts are told to stop: the watchdog hears of it within a tick. A stopped
/// attempt is said to end this much earlier, so that it does not stick out of its task.
const STOP_LAG: Duration = Duration::from_millis(100);

/// The name of the span in which the adapter proves.
const PROVE: &str = "prove";

/// The end of an attempt, as the process saw it that writes the spans.
#[derive(Clone, Debug)]
pub struct AttemptTold<'a> {
    /// The attempt.
    pub header: &'a TaskHeader,
    /// The prover that had it.
    pub prover: &'a ProverId,
    /// When the broker stored the task.
    pub released_at: Timestamp,
    /// When a slot was free for it; `None` if that is not known.
    pub begun_at: Option<Timestamp>,
    /// How long the inputs were read.
    pub read: Duration,
    /// How long the attempt ran.
    pub proved: Duration,
    /// When the prover was heard for the last time, if it did not report the end itself.
    pub heard_at: Option<Timestamp>,
    /// When the attempt ended.
    pub end: Timestamp,
    /// Why it failed.
    pub failure: Option<&'a Failure>,
    /// The events meanwhile.
    pub events: Vec<Event>,
}

/// Returns the context for programs that an attempt starts: their spans are parts of the proving.
pub fn under_prove(context: &TraceContext, header: &TaskHeader) -> TraceContext {
    let Some(trace) = context.trace() else {
        return context.clone();
    };
    let branch = Branch {
        trace: &trace,
        stage: &header.id.stage,
    };
    let attempt = branch.attempt(header.id.index, header.attempt);
    trace.context_under(leaf_id(&trace, attempt, PROVE))
}

/// Lays leaves side by side between the start and the end of their parent.
struct Row<'a> {
    trace: &'a Trace,
    parent: SpanId,
    at: Timestamp,
    end: Timestamp,
    spans: Vec<Span>,
}

impl Row<'_> {
    fn until(&mut self, to: Timestamp, name: &'static str) -> Option<&mut Span> {
        let to = to.clamp(self.at, self.end.max(self.at));
        if to == self.at {
            return None;
        }
        let from = std::mem::replace(&mut self.at, to);
        self.spans.push(leaf(self.trace, self.parent, name, (from, to)));
        self.spans.last_mut()
    }
}

/// Returns the spans of an attempt: the attempt and, side by side, its waits and its work.
pub fn attempt(context: &TraceContext, told: &AttemptTold<'_>) -> Vec<Span> {
    let Some(trace) = context.trace() else {
        return Vec::new();
    };
    let (header, start) = (told.header, trace.times.since);
    let branch = Branch {
        trace: &trace,
        stage: &header.id.stage,
    };
    let is_stopped = told.failure.is_some_and(|f| f.class == FailureClass::Stopped);
    let end = if is_stopped {
        told.end.minus(STOP_LAG)
    } else {
        told.end
    };
    let id = branch.attempt(header.id.index, header.attempt);
    let kind = if header.hedge_of.is_some() {
        "copy"
    } else {
        "attempt"
    };
    let name = format!("{kind} {}", header.id.stage.stage);
    let span = branch
        .span((id, branch.task(header.id.index)), name, (start, end))
        .kind(Kind::Consumer)
        .with("task.id", header.id.to_string())
        .with("attempt", header.attempt)
        .with("prover.id", told.prover.as_str())
        .with("zkvm", header.zkvm.as_str())
        .with("outcome", told.failure.map_or("completed", |f| f.class.as_str()));
    let mut span = messaging(span, "PUSH0_TASKS", "process");
    span.links.extend(replaced(&branch, header));
    if let Some(first) = header.hedge_of {
        span = span.with("attempt.copy_of", first);
    }
    span.events.extend(told.events.iter().cloned());
    if let Some(failure) = told.failure {
        span = match is_stopped {
            true => span.with("stopped", failure.message.as_str()),
            false => span.failed(failure.class.as_str(), &failure.message, end),
        };
    }
    let mut row = Row {
        trace: &trace,
        parent: id,
        at: span.start,
        end: span.end,
        spans: vec![span],
    };
    row.until(told.released_at, "queue wait");
    lay_work(&mut row, told);
    row.spans
}

/// Lays the spans after the release.
fn lay_work(row: &mut Row<'_>, told: &AttemptTold<'_>) {
    let end = row.end;
    let taken = told.begun_at.or(told.heard_at).unwrap_or(end);
    if let Some(delivery) = row.until(taken, "delivery") {
        *delivery = messaging(delivery.clone().kind(Kind::Consumer), "PUSH0_TASKS", "receive");
    }
    match told.heard_at {
        // The time after a prover's last heartbeat is unknown.
        Some(heard_at) => {
            row.until(heard_at, PROVE);
            row.until(end, "silence");
        }
        None => {
            let read = row.at.plus(told.read);
            row.until(read, "transfer in");
            let proved = row.at.plus(told.proved);
            row.until(proved, PROVE);
            row.until(end, "transfer out");
        }
    }
}

/// Returns the link from a further attempt to the one that it follows or races.
fn replaced(branch: &Branch<'_>, header: &TaskHeader) -> Option<Link> {
    let is_first = branch.trace.times.cause == Cause::Ready || header.attempt < 2;
    let before = header.hedge_of.or((!is_first).then(|| header.attempt - 1))?;
    Some(Link {
        trace: branch.trace.id,
        span: branch.attempt(header.id.index, before),
        why: match branch.trace.times.cause {
            Cause::Slow => "hedge",
            Cause::Silence => "suspicion",
            Cause::Failure | Cause::Ready => "retry",
        },
    })
}

/// The verification of a completed attempt.
#[derive(Clone, Debug)]
pub struct CheckTold<'a> {
    /// The attempt.
    pub header: &'a TaskHeader,
    /// Its prover.
    pub prover: &'a ProverId,
    /// The verifier.
    pub verifier: &'a ProverId,
    /// How often the check was delivered.
    pub deliveries: u32,
    /// When the verifier began.
    pub begun_at: Timestamp,
    /// When the verdict was told.
    pub end: Timestamp,
    /// Why the proof does not count, and the word for it.
    pub refused: Option<(&'static str, &'a str)>,
    /// The events meanwhile.
    pub events: Vec<Event>,
}

/// Returns the spans of a check: the wait for a verifier and the verification.
pub fn check(context: &TraceContext, told: &CheckTold<'_>) -> Vec<Span> {
    let Some(trace) = context.trace() else {
        return Vec::new();
    };
    let (header, index) = (told.header, told.header.id.index);
    let branch = Branch {
        trace: &trace,
        stage: &header.id.stage,
    };
    let attempt = branch.attempt(index, header.attempt);
    let id = trace.id.span("check", &attempt.to_string());
    let times = (trace.times.since, told.end);
    let span = branch
        .span(
            (id, branch.task(index)),
            format!("check {}", header.id.stage.stage),
            times,
        )
        .kind(Kind::Consumer)
        .with("task.id", header.id.to_string())
        .with("attempt", header.attempt)
        .with("prover.id", told.prover.as_str())
        .with("verifier.id", told.verifier.as_str())
        .with("zkvm", header.zkvm.as_str())
        .with("deliveries", told.deliveries);
    let mut span = messaging(span, "PUSH0_CHECKS", "process");
    span.links.push(Link {
        trace: trace.id,
        span: attempt,
        why: "checks",
    });
    span.events.extend(told.events.iter().cloned());
    if let Some((kind, reason)) = told.refused {
        span = span.failed(kind, reason, told.end);
    }
    let mut row = Row {
        trace: &trace,
        parent: id,
        at: span.start,
        end: span.end,
        spans: vec![span],
    };
    row.until(told.begun_at, "check wait");
    row.until(told.end, "verify");
    row.spans
}
