//! Outcomes of blocks in words.

use push0_domain::message::{EmissionOutcome, EndReason};

/// Returns the outcome of a block in one or two words.
pub fn outcome(outcome: &EmissionOutcome) -> String {
    match outcome {
        EmissionOutcome::Proved(_) => "proved".into(),
        EmissionOutcome::Dead { .. } => "dead".into(),
        EmissionOutcome::Abandoned(EndReason::Cancelled { .. }) => "cancelled".into(),
        EmissionOutcome::Abandoned(EndReason::Reorged) => "reorged".into(),
        EmissionOutcome::Abandoned(EndReason::DeadlinePassed | EndReason::OutOfReach) => "too late".into(),
        EmissionOutcome::Abandoned(EndReason::Refused { .. }) => "dead".into(),
    }
}
