//! Bodies of all messages. docs/protocol.md shows each with an example.
//!
//! Every body is encoded as bincode between push0's own services and as JSON for adapters in other
//! languages (see [`crate::codec`]). Fields are therefore plain, enums are externally tagged, and every
//! field that JSON may omit has a default.

mod block;
mod event;
mod lease;
mod proof;
mod result;
mod work;

pub use block::{
    BlockContext, BlockEnded, BlockEvent, BlockFacts, Cancel, EndReason, KnownBlock, ObservedBlock,
};
pub use event::{Event, Happening};
pub use lease::{Control, Held, Lease, ProverState, Role};
pub use proof::{AttemptRecord, Dead, DeadLetter, Emission, EmissionOutcome, Proof, Standing};
pub use result::{Failure, FailureClass, Outcome, ResultEvent, TaskResult, Verdict};
pub use work::{StageKind, StageReady, Task, TaskHeader, TaskRange};

/// Maximum length of the text of a failure or a reason, in bytes.
pub const TEXT_LEN_MAX: usize = 4096;

/// Cuts a text to [`TEXT_LEN_MAX`] bytes and keeps its end, because the last lines of an error say most.
pub fn clip(text: &str) -> String {
    let excess = text.len().saturating_sub(TEXT_LEN_MAX);
    let start = (excess..=text.len())
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(text.len());
    text[start..].to_owned()
}
