//! How long a prover may be silent, and the ends of attempts whose provers do not report.

use std::time::Duration;

/// The interval between a prover's heartbeats.
pub const HEARTBEAT: Duration = Duration::from_millis(250);
/// Silence after which a prover is suspected, and second copies of its attempts start elsewhere. Three beats:
/// one may be lost and one late, and with the hop to the next prover a copy still starts within a second.
pub const SUSPECT_AFTER: Duration = HEARTBEAT.saturating_mul(3);
const _: () = assert!(
    SUSPECT_AFTER.as_millis() < 1000,
    "P5: started elsewhere within a second"
);
/// Silence after which a suspected prover counts as dead, unless configured otherwise. A machine that swaps, a
/// paused virtual machine and a network that reroutes are back within seconds.
pub const CONDEMN_AFTER: Duration = Duration::from_secs(10);
/// Limits of that setting. A prover is suspected before it is condemned.
pub(crate) const CONDEMN_AFTER_MIN: Duration = Duration::from_secs(1);
pub(crate) const CONDEMN_AFTER_MAX: Duration = Duration::from_secs(3600);
/// How long the broker must know no connection of a suspected prover before the prover counts as dead. After an
/// outage of a broker, a live prover takes a moment to be connected again.
pub const GONE_FOR: Duration = Duration::from_secs(2);
const _: () = assert!(
    SUSPECT_AFTER.as_millis() + GONE_FOR.as_millis() < 5000,
    "a killed prover is known to be dead before its deliveries come back by the broker's ack wait"
);
/// How often a delivery of a suspected prover is extended in its place, well within the broker's ack wait of 5 s.
/// Otherwise the broker would deliver the attempt again, and the prover's work would be done twice.
pub(crate) const EXTEND_EVERY: Duration = Duration::from_secs(1);

/// How an attempt ended whose prover did not report the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The prover fell silent for this long.
    Silent(Duration),
    /// The prover fell silent, and its connection to the broker ended.
    Gone,
    /// The prover came back as another process.
    Restarted,
    /// The attempt ran over its timeout.
    Hung,
}
