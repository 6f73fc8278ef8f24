//! Lets the messages in that are to be believed: those whose subject names their sender and their content.
//!
//! The broker fixes the subjects of each participant by its permissions. The gateway may not read the keys of the seals, so
//! a report may be about an attempt that was never released; such a report changes known blocks only.

use push0_domain::{
    message::{BlockEnded, Emission, Lease, ObservedBlock, TaskResult},
    report::{admit_lease_unsealed, admit_unsealed},
    subject::{self, AttemptKey, Kind},
};

/// Returns whether the ingester of its pipeline announced a block.
pub(crate) fn admits_block(subject: &str, observed: &ObservedBlock) -> bool {
    subject == subject::block(&observed.pipeline)
}

/// Returns a heartbeat without the deliveries that its sender cannot have; `None` if the sender speaks for another, or
/// tells of more than it can hold.
pub(crate) fn lease(subject: &str, mut lease: Lease) -> Option<Lease> {
    admit_lease_unsealed(subject, &mut lease).ok()?;
    Some(lease)
}

/// Returns the attempt that a report is about; `None` if its sender may not report this.
pub(crate) fn report(subject: &str, kind: Kind, result: &TaskResult) -> Option<AttemptKey> {
    let report = admit_unsealed(subject, kind, result).ok()?;
    Some(report.attempt)
}

/// Returns whether a service ended blocks of its pipeline.
pub(crate) fn admits_end(subject: &str, ended: &BlockEnded) -> bool {
    subject == subject::ended(&ended.pipeline)
}

/// Returns whether the collector of its pipeline wrote a record.
pub(crate) fn admits_record(subject: &str, record: &Emission) -> bool {
    subject == subject::proof(&record.pipeline, record.last.number)
}
