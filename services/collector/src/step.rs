//! The steps that follow from a decision.

use crate::intake::Handle;
use push0_domain::{
    Timestamp,
    message::{DeadLetter, Emission, StageReady},
    trace::TraceContext,
};

/// An action for the session to see to. The handles of a step are acknowledged when the step is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Acknowledge messages from which nothing follows any more.
    Ack(Vec<Handle>),
    /// Store a ready stage or attempt. The list of inputs may be long.
    Open(Box<Opening>, Vec<Handle>),
    /// Store a dead letter. The failed results stay unacknowledged until the block's record is stored.
    Bury(Box<DeadLetter>, TraceContext),
    /// Emit a record; records keep the order of their steps. The first trace is the record's own; a range
    /// adds those of its other blocks. The time is that of the last result of the record's proofs; `None` without
    /// proofs, and if the record amends another one.
    Emit(Box<Emission>, Vec<TraceContext>, Vec<Handle>, Option<Timestamp>),
    /// Read these messages again, and pass each to [`Collector::recalled`](crate::decide::Collector::recalled).
    Recall(Vec<Handle>),
}

/// A stage or attempt to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The message to store. Its list of inputs may be too long for one message.
    pub ready: StageReady,
    /// The trace the new stage continues.
    pub trace: TraceContext,
}
