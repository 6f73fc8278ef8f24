//! The requests of a session to its executor, and the facts in the answers.
//!
//! `P` is the executor's name of a message's place: the means to acknowledge the delivery, or to remove the message.

use crate::{
    decide::{Because, End, Reason},
    reputation::Change,
    unheld::{Fate, Seat},
};
use push0_domain::{
    Participant, PipelineId, Timestamp,
    message::{BlockEnded, Happening, Role, StageReady, Task, TaskResult},
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
    /// Show the counts, and compare the checks without a verdict with the outputs.
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
    /// Find the delivery of an attempt to a process of this role, for [`super::Session::located`].
    Locate(Role, AttemptKey, Errand),
    /// Read an attempt's task, for [`super::Session::task_read`].
    ReadTask(AttemptKey, Writing<P>),
    /// Read the check of an attempt, for [`super::Session::check_read`].
    ReadCheck(AttemptKey),
    /// Read a pipeline's rule for superfluous proofs like this one, for [`super::Session::rest_read`].
    ReadRest(Participant, AttemptId),
    /// Tell a prover to end an attempt.
    Stop(Participant, AttemptId, Reason),
    /// Store the end of a late block, if one of these attempts is in TASKS: a lease may be older than an attempt's end.
    Late(Vec<AttemptKey>, Box<BlockEnded>),
    /// Store the end of an attempt in place of its prover. The task was stored at this time.
    StoreEnd(Box<TaskResult>, Lost, Timestamp),
    /// Store the request for a second copy of an attempt, which has this trace.
    StoreCopy(AttemptKey, Because, Box<StageReady>, TraceContext),
    /// Acknowledge a delivery in place of its prover.
    Acknowledge(P),
    /// Give a delivery to another process. The attempt is named if no lease lists it.
    GiveBack(P, Option<AttemptKey>),
    /// Tell the broker to wait longer for a delivery, in place of its prover.
    Extend(P),
    /// Remove the message of an attempt whose delivery was acknowledged.
    Remove(AttemptKey, P),
}

/// The reason for which a delivery is looked up. A number is the sequence that a lease gives for the message.
#[derive(Clone, Debug)]
pub enum Errand {
    /// No lease lists the delivery.
    Unheld(Fate),
    /// Another process is to have it.
    GiveBack(u64),
    /// Its prover may still be at work.
    Extend(u64),
    /// Its prover cannot report the end.
    Report(Lost),
}

/// The newest message of an attempt, and its delivery.
#[derive(Clone, Debug)]
pub struct Found<P> {
    /// The sequence of the message.
    pub sequence: u64,
    /// The fate of the message so far.
    pub state: Delivery,
    /// Where the message is.
    pub place: P,
}

/// The fate of a message.
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
pub enum Writing<P> {
    /// The end of the attempt, before its delivery ends.
    End(Lost, P),
    /// The request for a second copy by another prover than this one. The trace is that of a lease, if one lists the attempt.
    Copy(Participant, Because, Option<TraceContext>),
}

/// An attempt whose prover cannot report its end.
#[derive(Clone, Debug)]
pub struct Lost {
    /// The prover that had the attempt.
    pub prover: Participant,
    /// How the attempt ended.
    pub end: End,
    /// The sequence of the task's message.
    pub sequence: u64,
    /// When the prover was last heard, and how long the attempt had run then; `None` without a lease of it.
    pub heard: Option<(Timestamp, Duration)>,
    /// The attempt's trace.
    pub trace: TraceContext,
}

/// A task as stored: the sequence of its message, when the broker stored it, and its trace.
pub type Stored = (Task, u64, Timestamp, TraceContext);
