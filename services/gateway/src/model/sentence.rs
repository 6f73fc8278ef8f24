//! Sentences about a block, for people.

use super::{
    attempt::{Attempt, Place, State},
    block::{Block, BlockId, Recorded},
};
use push0_domain::{
    Timestamp, ZkvmId,
    message::{EndReason, HeldQueue},
};
use std::{collections::BTreeMap, time::Duration};

/// Returns why a block got no proof; `None` if it got one, or may get one.
pub(super) fn reason(block: &Block) -> Option<String> {
    if !block.stands() {
        return Some(end(&EndReason::Reorged));
    }
    match block.recorded().map(|record| &record.outcome) {
        Some(Recorded::Proved(_)) => None,
        Some(Recorded::Dead(reason)) => Some(reason.clone()),
        Some(Recorded::Abandoned(reason)) => Some(end(reason)),
        None => block.ended().map(|(reason, _)| end(reason)),
    }
}

fn end(reason: &EndReason) -> String {
    match reason {
        EndReason::Cancelled { note } => format!("An operator cancelled the block: {note}"),
        EndReason::Reorged => "The chain replaced the block.".into(),
        EndReason::DeadlinePassed => "The deadline passed before the block was proved.".into(),
        EndReason::OutOfReach => "The block could not meet its deadline any more.".into(),
        EndReason::Refused { reason, .. } => format!("The block was refused: {reason}"),
    }
}

/// Returns what a block waits for, in one sentence.
pub(super) fn waits_for(
    id: &BlockId,
    block: &Block,
    next: Option<u64>,
    holds: &BTreeMap<ZkvmId, HeldQueue>,
    now: Timestamp,
) -> String {
    if let Some(reason) = reason(block) {
        return reason;
    }
    if let Some(record) = block.recorded() {
        return format!(
            "Block {} was proved {} after its announcement.",
            id.number,
            span(record.stored_at.since(block.at()))
        );
    }
    let of = |state: State| block.attempts().find(move |(_, attempt)| attempt.state == state);
    if let Some((place, attempt)) = of(State::Running) {
        let on = attempt
            .prover
            .as_ref()
            .map_or("a prover".into(), ToString::to_string);
        let ran = attempt.started_at.map_or(Duration::ZERO, |at| now.since(at));
        return format!("{} runs on {on} for {}.", attempt_of(place), span(ran));
    }
    if let Some((place, attempt)) = of(State::Checking) {
        return format!(
            "{} is completed and waits for a verifier of zkVM {}.",
            attempt_of(place),
            attempt.zkvm
        );
    }
    if let Some((place, attempt)) = of(State::Released) {
        let hold = holds.get(&attempt.zkvm);
        return match hold.filter(|hold| hold.concerns(&id.pipeline, &block.numbers(id))) {
            Some(hold) if hold.task.is_some() => format!(
                "{} waits: {} attempts at this task failed, while no other attempt of zkVM {} succeeded or failed.",
                attempt_of(place),
                hold.failures,
                attempt.zkvm
            ),
            Some(hold) => format!(
                "{} waits: the queue of zkVM {} is held, because {} attempts failed without a success.",
                attempt_of(place),
                attempt.zkvm,
                hold.failures
            ),
            None => format!(
                "{} waits for a free prover of zkVM {}.",
                attempt_of(place),
                attempt.zkvm
            ),
        };
    }
    let is_done = block.attempts().any(|(_, attempt)| attempt.state == State::Done);
    match (is_done, block.range(), next) {
        (true, Some((first, last)), _) => {
            format!("The block is proved and is a part of the range {first} to {last}.")
        }
        (true, None, Some(next)) if next < id.number => {
            format!("The block is ready and waits for block {next}, since records follow the chain's order.")
        }
        (true, None, _) => "The next stage is about to be released.".into(),
        (false, _, _) => unreleased(block),
    }
}

/// Says that a block waits for the release of a task, and how its newest attempt failed, if one did.
fn unreleased(block: &Block) -> String {
    let failed = block
        .attempts()
        .filter_map(|(place, attempt)| Some((place, attempt.ended_at, attempt.failure.as_ref()?)));
    match failed.max_by_key(|(_, ended_at, _)| *ended_at) {
        Some((place, _, failure)) => format!(
            "{} failed ({}), and the next one follows after a pause: {}",
            attempt_of(place),
            failure.class.as_str(),
            first_line(&failure.message)
        ),
        None => "The block waits for its first task to be released.".into(),
    }
}

fn attempt_of(place: &Place) -> String {
    let task = if place.index == 0 {
        String::new()
    } else {
        format!(" (task {})", place.index)
    };
    format!(
        "Attempt {} of stage {}.{}{task}",
        place.number, place.proof, place.stage
    )
}

/// Returns the story of a block: sentences in the order of time.
pub(super) fn story(id: &BlockId, block: &Block) -> Vec<String> {
    let start = block.at();
    let mut events: Vec<(Timestamp, String)> = vec![(start, format!("Block {} was announced.", id.number))];
    for (place, attempt) in block.attempts() {
        events.extend(attempt_events(place, attempt));
    }
    if let Some((reason, at)) = block.ended() {
        events.push((*at, end(reason)));
    }
    if let Some(record) = block.recorded() {
        let text = match &record.outcome {
            Recorded::Proved(proofs) => {
                let of = if record.first == record.last {
                    String::new()
                } else {
                    format!(" of blocks {} to {}", record.first, record.last)
                };
                let count = proofs.len();
                format!(
                    "The record{of} was stored with {count} proof{}.",
                    if count == 1 { "" } else { "s" }
                )
            }
            _ => format!(
                "The record was stored without a proof. {}",
                reason(block).unwrap_or_default()
            ),
        };
        events.push((record.stored_at, text));
    }
    events.sort_by_key(|(at, _)| *at);
    let told = events
        .into_iter()
        .map(|(at, text)| format!("+{} {text}", span(at.since(start))));
    told.collect()
}

fn attempt_events(place: &Place, attempt: &Attempt) -> Vec<(Timestamp, String)> {
    let name = attempt_of(place);
    let by = attempt
        .prover
        .as_ref()
        .map_or("a prover".into(), ToString::to_string);
    let mut events = Vec::new();
    if let Some(at) = attempt.released_at {
        let copy = attempt
            .hedge_of
            .map_or(String::new(), |of| format!(" as a second copy of attempt {of}"));
        events.push((at, format!("{name} was released{copy}.")));
    }
    if let Some(at) = attempt.started_at {
        events.push((at, format!("{name} began on {by}.")));
    }
    if let Some(at) = attempt.proved_at.filter(|_| attempt.verifier.is_some()) {
        events.push((at, format!("{name} was completed by {by}.")));
    }
    if let Some(at) = attempt.ended_at {
        let text = match (&attempt.failure, &attempt.verifier) {
            (Some(failure), _) => format!(
                "{name} failed on {by} ({}): {}",
                failure.class.as_str(),
                first_line(&failure.message)
            ),
            (None, Some(verifier)) => format!("{name} was verified by {verifier}."),
            (None, None) => format!("{name} was completed by {by}."),
        };
        events.push((at, text));
    }
    events
}

fn first_line(text: &str) -> &str {
    text.lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("no message")
}

/// Returns a duration in the largest fitting unit.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match time.as_secs() {
        0 => format!("{:.0} ms", seconds * 1000.0),
        1..120 => format!("{seconds:.1} s"),
        120..7200 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}
