//! `push0 events`: the events of the last hour, such as lost provers, held queues and dead letters.

use crate::context::Context;
use crate::failure::Failure;
use crate::{output, times};
use clap::Args;
use push0_bus::{Kept, Stream, now};
use push0_domain::ZkvmId;
use push0_domain::message::{Event, Happening, HeldQueue, Opened};
use serde_json::json;
use std::time::Duration;

/// Poll interval of `--follow`.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// How many events are read at once.
const SCAN_MAX: usize = 1_000;
/// All subjects of the stream.
const ALL: &str = ">";

#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    /// Number of newest events to show.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    last: u32,
    /// Keep running and print events as they happen.
    #[arg(long)]
    follow: bool,
}

pub(crate) async fn run(context: &Context, args: &EventsArgs) -> Result<(), Failure> {
    let bus = context.bus().await?;
    let newest = bus.newest(Stream::Events).await?;
    let mut next = newest.saturating_sub(u64::from(args.last)).saturating_add(1);
    let mut is_first = true;
    loop {
        let found = match bus.scan::<Event>(Stream::Events, ALL, next, SCAN_MAX).await {
            Ok(found) => found,
            // The broker may restart meanwhile.
            Err(_) if args.follow && !is_first => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        if found.is_empty() && is_first && !args.follow && !context.json {
            return output::line("nothing happened in the last hour that is worth an event");
        }
        is_first = false;
        for kept in &found {
            print(context, kept)?;
        }
        next = found.last().map_or(next, |last| last.sequence + 1);
        if found.len() == SCAN_MAX {
            continue;
        }
        if !args.follow {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}

fn print(context: &Context, kept: &Kept<Event>) -> Result<(), Failure> {
    let Ok(event) = &kept.body else {
        return Ok(());
    };
    if context.json {
        let (at, what, kind) = (event.at, &event.what, event.what.kind());
        return output::json(&json!({ "sequence": kept.sequence, "at": at, "kind": kind, "what": what }));
    }
    let at = times::local(event.at, now());
    output::line(&format!(
        "{at}  {}",
        push0_domain::plain::one_line(&sentence(&event.what))
    ))
}

/// Returns an event as a sentence.
fn sentence(what: &Happening) -> String {
    match what {
        Happening::ProverLost {
            prover, zkvm, held, ..
        } => {
            let held = deliveries(*held);
            format!("{prover} of zkVM {zkvm} died or was restarted, with {held}")
        }
        Happening::ProverFound { prover, zkvm, .. } => format!("{prover} of zkVM {zkvm} is heard"),
        Happening::ProverSuspected {
            prover, zkvm, held, ..
        } => format!("{prover} of zkVM {zkvm} fell silent, with {}", at_risk(*held)),
        Happening::ProverBack {
            prover, silent_ms, ..
        } => {
            format!("{prover} is heard again after {silent_ms} ms, and its attempts go on")
        }
        Happening::NameTakenTwice { prover, origins } => {
            let places: Vec<String> = origins.iter().map(ToString::to_string).collect();
            format!(
                "two processes are called {prover} ({}): give one another PUSH0_PROVER__ID",
                places.join(", ")
            )
        }
        Happening::QuarantineBegun { prover, reason, .. } => {
            format!("{prover} is quarantined and gets no work for a while: {reason}")
        }
        Happening::QuarantineEnded { prover, reason } => {
            format!("the quarantine of {prover} ended: {reason}")
        }
        Happening::QueueHeld { zkvm, held: queue } => held(zkvm, queue),
        Happening::QueueOpened { zkvm, why } => opened(zkvm, *why),
        Happening::CheckUnverified {
            prover,
            verifier,
            deliveries,
            reason,
            ..
        } => format!(
            "{verifier} reached no verdict on a proof of {prover} in {deliveries} deliveries: {reason}"
        ),
        Happening::CheckPaused {
            prover,
            verifier,
            deliveries,
            ..
        } => format!(
            "{verifier} lets a proof of {prover} wait, which was delivered {deliveries} times without a verdict"
        ),
        Happening::ParticipantFlooding {
            prover,
            stream,
            removed,
            ..
        } => format!(
            "{prover} flooded {stream}, and {removed} of its messages were removed: docs/runbooks/participant-flooding.md"
        ),
        Happening::DeadLetter { id, reason } => {
            format!("dead letter {id}: {reason} (`push0 dead show {id}`)")
        }
    }
}

fn held(zkvm: &ZkvmId, queue: &HeldQueue) -> String {
    let HeldQueue { failures, error, .. } = queue;
    match &queue.task {
        None => format!(
            "the queue of zkVM {zkvm} is held after {failures} failures without a success: one task at a time is tried. Last \
             error: {error}"
        ),
        Some(task) => format!(
            "the queue of zkVM {zkvm} is held for one task: {} alone failed {failures} times, and other tasks go on. Last \
             error: {error}",
            task.task_in_words()
        ),
    }
}

fn opened(zkvm: &ZkvmId, why: Opened) -> String {
    let why = match why {
        Opened::Succeeded => "an attempt succeeded",
        Opened::Outlived => "an attempt runs for much longer than those that failed",
        Opened::NoWork => "no work is left for it, and no attempt succeeded",
    };
    format!("the queue of zkVM {zkvm} is open again: {why}")
}

fn at_risk(held: u32) -> String {
    let deliveries = deliveries(held);
    match held {
        0 => deliveries,
        _ => format!("{deliveries}: second copies of its attempts start elsewhere"),
    }
}

fn deliveries(count: u32) -> String {
    match count {
        0 => "no deliveries".to_owned(),
        1 => "1 delivery".to_owned(),
        _ => format!("{count} deliveries"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_sentence() {
        let lost = Happening::ProverLost {
            prover: "miden-1".parse().unwrap(),
            zkvm: "miden".parse().unwrap(),
            role: push0_domain::message::Role::Prover,
            held: 2,
        };
        assert_eq!(
            sentence(&lost),
            "miden-1 of zkVM miden died or was restarted, with 2 deliveries"
        );
        let idle = Happening::ProverSuspected {
            prover: "miden-1".parse().unwrap(),
            zkvm: "miden".parse().unwrap(),
            role: push0_domain::message::Role::Prover,
            held: 0,
        };
        assert_eq!(
            sentence(&idle),
            "miden-1 of zkVM miden fell silent, with no deliveries"
        );
        let opened = Happening::QueueOpened {
            zkvm: "miden".parse().unwrap(),
            why: Opened::NoWork,
        };
        assert!(sentence(&opened).ends_with("no work is left for it, and no attempt succeeded"));
    }
}
