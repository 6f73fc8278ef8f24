//! The bodies of every message. docs/protocol.md shows each with an example.
//!
//! All of them encode as bincode between our own services and as JSON for adapters in other
//! languages (see [`crate::codec`]); fields are therefore plain, enums carry their tag outside, and
//! what JSON may leave out has a default.

mod block;
mod event;
mod lease;
mod proof;
mod result;
mod work;

pub use block::{
    BlockContext, BlockEnded, BlockEvent, BlockFacts, Cancel, Claim, Claims, EndReason, KnownBlock,
    ObservedBlock,
};
pub use event::{Event, Happening};
pub use lease::{Control, Held, Lease, ProverState, Role};
pub use proof::{AttemptRecord, Dead, DeadLetter, Emission, EmissionOutcome, Proof, Standing};
pub use result::{Failure, FailureClass, Outcome, ResultEvent, TaskResult, Verdict};
pub use work::{StageKind, StageReady, Task, TaskHeader, TaskRange};

/// The longest text that a failure, a reason or a tail of stderr may have, in bytes.
pub const TEXT_LEN_MAX: usize = 4096;

/// Cuts a text to [`TEXT_LEN_MAX`], keeping its end: the last lines of an error say most.
pub fn clip(text: &str) -> String {
    let excess = text.len().saturating_sub(TEXT_LEN_MAX);
    let start = (excess..=text.len())
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(text.len());
    text[start..].to_owned()
}
