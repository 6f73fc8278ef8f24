//! The operations of a session, and the messages it takes in.

use crate::{
    decide::{Release, SourceId, Turn},
    task::Traced,
};
use push0_domain::{
    Announcement, BlockRef, PipelineId, Timestamp, ZkvmId,
    message::{BlockEnded, Cancel, Task},
    pipeline::Pipeline,
    subject::AttemptKey,
    trace::TraceContext,
};
use std::{
    collections::{BTreeMap, HashSet},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

/// A message of BLOCKS or STAGES, delivered in its turn or read straight from the stream.
#[derive(Clone, Debug)]
pub struct Received<T> {
    /// The decoded body.
    pub body: T,
    /// The trace context from the message's headers.
    pub trace: TraceContext,
    /// The message's subject.
    pub subject: String,
    /// The message's sequence in the stream.
    pub sequence: u64,
    /// The time at which the broker stored the message.
    pub stored_at: Timestamp,
    /// Whether a predecessor may have seen the message, and may have released its work.
    pub is_replay: bool,
}

/// The release behind a publish in flight: source message and task index.
pub type Token = (SourceId, u32);

/// The attempts in TASKS, by zkVM.
pub type Attempts = BTreeMap<ZkvmId, HashSet<AttemptKey>>;

/// A release with the body of its message and the definition named by the body; `None` if they are gone.
pub type Found = (Release, Option<(Traced, Arc<Pipeline>)>);

/// A step for the executor. Steps are carried out in order, and a session is told nothing new before the last one ended.
#[derive(Clone, Debug)]
pub enum Op {
    /// Acknowledge a message.
    Acknowledge(SourceId),
    /// Save how many tasks of a long stage were released, and wait for the answer.
    SaveCursor(SourceId, u32),
    /// Delete the saved cursor of a message.
    DropCursor(SourceId),
    /// Publish a task without waiting; [`super::Session::stored`] takes the answer.
    Publish(Box<Outgoing>),
    /// List the attempts in TASKS for [`super::Session::list`].
    ListTasks,
    /// Read an attempt from TASKS, ask [`super::Session::purge`], and remove the attempt if the answer is yes.
    Purge(AttemptKey, Box<BlockEnded>),
    /// Tell the collector about blocks ending without a proof, and wait for the answer.
    End(BlockEnded),
    /// Store a dead letter about a message, and wait; [`super::Session::refused`] takes the answer.
    Refuse(Box<Refusal>),
    /// Store, announce and log the new state of a zkVM's queue: held, or open again.
    Hold(ZkvmId, Turn),
    /// Observe how long a completed attempt waited for its prover.
    Observe(PipelineId, Duration),
}

/// A task to publish.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The release, whose source and index are the [`Token`].
    pub release: Release,
    /// The sealed task.
    pub task: Task,
    /// The trace context of the source message.
    pub traced: Traced,
}

/// A message without a possible action.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The message.
    pub source: SourceId,
    /// The subject of the message.
    pub subject: String,
    /// The reason for the dead letter.
    pub reason: String,
    /// The blocks to end with the refusal, if their pipeline is defined.
    pub blocks: Option<Blocks>,
}

/// Blocks of a pipeline, and their announcement.
pub type Blocks = (PipelineId, RangeInclusive<BlockRef>, Announcement);

impl Op {
    pub(super) fn refuse(
        source: SourceId,
        subject: String,
        reason: String,
        blocks: Option<Blocks>,
    ) -> Vec<Self> {
        let refusal = Refusal {
            source,
            subject,
            reason,
            blocks,
        };
        vec![Self::Refuse(Box::new(refusal))]
    }
}

pub(super) fn never_defined(pipeline: &PipelineId, revision: u32) -> String {
    format!("pipeline `{pipeline}` has no revision {revision} and never had one")
}

/// A cancellation waiting for its application.
#[derive(Debug)]
pub(super) struct Cancelling {
    pub(super) sequence: u64,
    pub(super) cancel: Cancel,
    pub(super) is_early: bool,
}

/// A search for late blocks, which is due.
#[derive(Clone, Copy, Debug)]
pub struct LateSearch {
    /// The sequence of the parked block. The search begins behind it.
    pub parked: u64,
    /// The number the pipeline emits next.
    pub front: u64,
    /// How many blocks ahead of the front are wanted.
    pub ahead: u64,
}
