//! The context as text: `traceparent`, and push0's entry in `tracestate`.
//!
//! ```text
//! push0=OBSERVED-PROOF-STAGE-TASK-SINCE-CAUSE[-pPARENT][-rRETRIES]
//! ```
//!
//! OBSERVED is an instant in microseconds, and the next four are those after it; all are hexadecimal.

use super::{
    context::{Cause, Times, Trace, TraceContext},
    span::{SpanId, TraceId},
};
use crate::Timestamp;
use std::fmt::Write;

const ENTRY: &str = "push0=";
/// Longest list of other vendors' entries that is passed on, as W3C Trace Context asks for at least.
const OTHERS_MAX: usize = 512;

pub(super) fn traceparent(trace: TraceId, span: SpanId, is_sampled: bool) -> String {
    format!("00-{trace}-{span}-{:02x}", u8::from(is_sampled))
}

pub(super) fn encode(trace: &Trace) -> TraceContext {
    let times = &trace.times;
    let after = |at: Timestamp| at.0.saturating_sub(times.observed_at.0);
    let mut state = format!(
        "{ENTRY}{:x}-{:x}-{:x}-{:x}-{:x}-{}",
        times.observed_at.0,
        after(times.proof_from),
        after(times.stage_from),
        after(times.task_from),
        after(times.since),
        letter(times.cause),
    );
    if let Some(parent) = trace.parent {
        let _ = write!(state, "-p{parent}");
    }
    if let Some(retries) = trace.retries {
        let _ = write!(state, "-r{retries}");
    }
    if !trace.others.is_empty() {
        let _ = write!(state, ",{}", trace.others);
    }
    TraceContext {
        traceparent: Some(traceparent(trace.id, trace.root, trace.is_sampled)),
        tracestate: Some(state),
    }
}

/// Reads a context. Returns whether push0 began the spans of the block in it. Text that is not valid is no context: a
/// trace is never a reason to refuse a message.
pub(super) fn decode(context: &TraceContext) -> Option<(Trace, bool)> {
    let mut parts = context.traceparent.as_deref()?.split('-');
    let (version, id, root, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_known = version.len() == 2 && version != "ff" && (version != "00" || parts.next().is_none());
    let (id, root) = (TraceId(bytes(id)?), SpanId(bytes(root)?));
    if !is_known || id.0 == [0; 16] || root.0 == [0; 8] {
        return None;
    }
    let state = context.tracestate.as_deref().unwrap_or_default();
    let (ours, others): (Vec<&str>, Vec<&str>) = state
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .partition(|entry| entry.starts_with(ENTRY));
    let mut trace = Trace {
        id,
        root,
        is_sampled: bytes::<1>(flags)?[0] & 1 == 1,
        times: Times::default(),
        parent: None,
        retries: None,
        others: Some(others.join(","))
            .filter(|others| others.len() <= OTHERS_MAX)
            .unwrap_or_default(),
    };
    let is_ours = ours
        .first()
        .is_some_and(|entry| read(entry, &mut trace).is_some());
    Some((trace, is_ours))
}

fn read(entry: &str, trace: &mut Trace) -> Option<()> {
    let mut parts = entry.strip_prefix(ENTRY)?.split('-');
    let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
    let observed = number()?;
    let mut after = || Some(Timestamp(observed.saturating_add(number()?)));
    let (proof_from, stage_from, task_from, since) = (after()?, after()?, after()?, after()?);
    trace.times = Times {
        observed_at: Timestamp(observed),
        proof_from,
        stage_from,
        task_from,
        since,
        cause: cause(parts.next()?)?,
    };
    for part in parts {
        let id = part.get(1..).and_then(bytes).map(SpanId);
        match part.as_bytes().first()? {
            b'p' => trace.parent = Some(id?),
            b'r' => trace.retries = Some(id?),
            _ => return None,
        }
    }
    Some(())
}

fn bytes<const LEN: usize>(text: &str) -> Option<[u8; LEN]> {
    let mut bytes = [0; LEN];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

fn letter(cause: Cause) -> char {
    match cause {
        Cause::Ready => 'n',
        Cause::Failure => 'f',
        Cause::Slow => 's',
        Cause::Silence => 'q',
    }
}

fn cause(letter: &str) -> Option<Cause> {
    let all = [Cause::Ready, Cause::Failure, Cause::Slow, Cause::Silence];
    let mut all = all.into_iter();
    all.find(|cause| letter.chars().eq([self::letter(*cause)]))
}
