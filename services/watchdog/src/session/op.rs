//! What a session asks of its executor, and the facts an executor answers with.
//!
//! `P` is the executor's name of a message's place: what it needs to acknowledge the delivery, or to remove the message.

use crate::{
    decide::{Because, End, Reason},
    reputation::Change,
    unheld::{Seat, Unheld},
};
use push0_domain::{
    Participant, PipelineId, Timestamp,
    message::{BlockEnded, Happening, Held, Role, StageReady, Task, TaskResult},
    subject::AttemptKey,
    task::AttemptId,
    trace::TraceContext,
};
use std::time::Duration;

/// An operation. An executor carries out one after another, and a message is stored when its operation has ended.
#[derive(Clone, Debug)]
pub enum Op<P> {
    /// Store a quarantine under the name of its prover.
    SaveQuarantine(Change),
    /// Order a prover to take no work for so long, for this reason. No time at all ends its rest.
    Quarantine(Participant, Duration, String),
    /// Tell observers.
    Announce(Happening),
    /// Show what is counted, and compare the checks without a verdict with the outputs.
    Tidy,
    /// Read the output of a pipeline for [`super::Session::recall_output`]. With a number, only if that number has a
    /// record.
    ReadOutput(PipelineId, Option<u64>),
    /// Look for lost proofs that the next block of a pipeline waits for.
    LookForLost,
    /// List the attempts in TASKS, or in CHECKS for verifiers, for [`super::Session::looked`].
    Look(Role),
    /// Ask the broker about a silent process, for [`super::Session::presence`].
    Ask(Seat),
    /// Find the delivery of an attempt, for [`super::Session::located`].
    Locate(Errand),
    /// Read an attempt's task, for [`super::Session::task_read`].
    ReadTask(Writing<P>),
    /// Read what a pipeline does with superfluous proofs, for [`super::Session::rest_read`].
    ReadRest(Order),
    /// Tell a prover to end an attempt.
    Stop(Order),
    /// Store the end of a late block, if one of these attempts is in TASKS: a lease may be older than an attempt's end.
    Late(Vec<AttemptKey>, Box<BlockEnded>),
    /// Store the end of an attempt in place of its prover.
    StoreEnd(Box<Lost>),
    /// Store the request for a second copy of an attempt.
    StoreCopy(Box<SecondCopy>),
    /// Acknowledge a delivery in place of its prover.
    Acknowledge(P),
    /// Give a delivery to another process.
    GiveBack {
        /// The delivery.
        place: P,
        /// The attempt, if no lease lists it.
        unheld: Option<AttemptKey>,
    },
    /// Tell the broker to wait longer for a delivery, in place of its prover.
    Extend(P),
    /// Remove the message of an attempt whose delivery was acknowledged.
    Remove(AttemptKey, P),
}

/// The reason for which a delivery is looked up.
#[derive(Clone, Debug)]
pub enum Errand {
    /// No lease lists it.
    Unheld(Unheld),
    /// A lease of this role lists it.
    Listed(Role, Box<Held>, Wish),
}

impl Errand {
    /// Returns the role of the process that takes such deliveries, and the attempt.
    pub fn attempt(&self) -> (Role, AttemptKey) {
        match self {
            Self::Unheld(unheld) => (unheld.role, unheld.key.clone()),
            Self::Listed(role, held, _) => (*role, held.header.key()),
        }
    }
}

/// What is to become of a delivery in a lease.
#[derive(Clone, Debug)]
pub enum Wish {
    /// Another process is to have it.
    GiveBack,
    /// Its prover may still be at work.
    Extend,
    /// Its prover cannot report the end.
    Report {
        /// The prover holding the attempt.
        prover: Participant,
        /// How the attempt ended.
        end: End,
        /// When the prover was last heard.
        heard_at: Timestamp,
    },
}

/// The newest message of an attempt, and its delivery.
#[derive(Clone, Debug)]
pub struct Found<P> {
    /// The sequence of the message.
    pub sequence: u64,
    /// What became of the message so far.
    pub state: Delivery,
    /// Where the message is.
    pub place: P,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The message waits for a process.
    Waits,
    /// A process has the message, as far as the broker knows.
    Delivered,
    /// The delivery was acknowledged, and the message is there by mistake.
    Acknowledged,
}

/// Something to be written about an attempt as soon as its task is read.
#[derive(Clone, Debug)]
pub struct Writing<P> {
    /// The attempt.
    pub key: AttemptKey,
    pub(super) prover: Participant,
    pub(super) what: What<P>,
}

/// What is written about an attempt.
#[derive(Clone, Debug)]
pub(super) enum What<P> {
    /// Its end. `heard` says when its prover was last heard, and how long the attempt had run then.
    End {
        sequence: u64,
        place: P,
        end: End,
        heard: Option<(Timestamp, Duration)>,
        trace: Option<TraceContext>,
    },
    Copy(Because, Option<TraceContext>),
}

/// A task as stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The task.
    pub task: Task,
    /// The sequence of its message.
    pub sequence: u64,
    /// When the broker stored the message.
    pub stored_at: Timestamp,
    /// The trace context of the message.
    pub trace: TraceContext,
}

/// An order to end an attempt.
#[derive(Clone, Debug)]
pub struct Order {
    /// The prover to tell.
    pub prover: Participant,
    /// The attempt to end.
    pub attempt: AttemptId,
    /// Why the attempt is stopped.
    pub reason: Reason,
}

/// The end of an attempt whose prover cannot report it.
#[derive(Clone, Debug)]
pub struct Lost {
    /// The attempt.
    pub key: AttemptKey,
    /// The report.
    pub result: TaskResult,
    /// How the attempt ended.
    pub end: End,
    /// The trace context of the attempt.
    pub trace: TraceContext,
    /// When the broker stored the task.
    pub released_at: Timestamp,
    /// When the prover was last heard, and how long the attempt had run then; `None` without a lease of it.
    pub heard: Option<(Timestamp, Duration)>,
}

/// A request for a second copy of an attempt.
#[derive(Clone, Debug)]
pub struct SecondCopy {
    /// The attempt to copy.
    pub key: AttemptKey,
    /// The prover that has the attempt.
    pub prover: Participant,
    /// Why a second copy is wanted.
    pub because: Because,
    /// The request.
    pub ready: StageReady,
    /// The trace context of the attempt.
    pub trace: TraceContext,
}
