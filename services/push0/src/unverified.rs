//! Finished proofs that no verifier could give a verdict on.

use crate::failure::Failure;
use crate::table;
use push0_bus::{Bus, Stream, now};
use push0_domain::message::{Event, Happening};
use push0_domain::subject::{self, Kind, Report};
use serde::de::IgnoredAny;

/// Returns a sentence about the newest such proof of each pipeline, if it still waits.
pub(crate) async fn sentences(bus: &Bus) -> Result<Vec<String>, Failure> {
    let mut sentences = Vec::new();
    let kinds = subject::notices("check-unverified");
    for (subject, _) in bus.subjects(Stream::Events, &kinds).await? {
        let Some(kept) = bus.last::<Event>(Stream::Events, &subject).await? else {
            continue;
        };
        let Ok(Event { at, what }) = kept.body else {
            continue;
        };
        let Happening::CheckUnverified {
            check,
            verifier,
            deliveries,
            reason,
            ..
        } = what
        else {
            continue;
        };
        let Ok(key) = Report::parse(&check, Kind::Check).map(|report| report.attempt) else {
            continue;
        };
        if subject::sender_of_notice(&subject).is_none_or(|sender| sender.zkvm != key.zkvm) {
            continue;
        }
        let waiting = bus.last::<IgnoredAny>(Stream::Checks, &check).await?;
        if waiting.is_some() {
            sentences.push(format!(
                "no verdict on the proof {key} in {deliveries} deliveries, last by {verifier} {} ago: {reason}. \
                 It waits in PUSH0_CHECKS and is tried again",
                table::span(now().since(at))
            ));
        }
    }
    Ok(sentences)
}
