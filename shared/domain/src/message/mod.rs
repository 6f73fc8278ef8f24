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
mod statement;
mod work;

pub use block::{
    BlockContext, BlockEnded, BlockEvent, BlockFacts, Cancel, EndReason, KnownBlock, ObservedBlock,
};
pub use event::{Event, Happening, HeldQueue, Obstacle, Opened};
pub use lease::{Control, Held, Lease, OVERDUE, Origin, Presence, ProverState, Role, SLOTS_MAX};
pub use proof::{AttemptRecord, Dead, DeadLetter, Emission, EmissionOutcome, Proof, Standing};
pub use result::{Failure, FailureClass, Outcome, ResultEvent, TEXT_LEN_MAX, TaskResult, Verdict, clip};
pub use statement::statement;
pub use work::{StageKind, StageReady, Task, TaskHeader, TaskRange};
