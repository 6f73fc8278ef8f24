//! The ends of attempts whose provers do not report, and the silence after which a prover counts as dead.

use std::time::Duration;

/// The interval between a prover's heartbeats.
pub const HEARTBEAT: Duration = Duration::from_millis(250);
/// Silence after which a prover counts as dead. Three beats: one may be lost and one late, and with the hop
/// to the next prover a task still starts elsewhere within a second.
pub const DEAD_AFTER: Duration = HEARTBEAT.saturating_mul(3);
const _: () = assert!(DEAD_AFTER.as_millis() < 1000, "P5: reassigned within a second");

/// How an attempt ended whose prover did not report the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The prover fell silent for this long.
    Silent(Duration),
    /// The prover came back as another process.
    Restarted,
    /// The attempt ran over its timeout.
    Hung,
}
