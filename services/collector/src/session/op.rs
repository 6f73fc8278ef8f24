//! The operations of a session, and the shell's answers.

use crate::{
    decide::{Opening, Told},
    intake::Handle,
};
use push0_domain::{
    BlockKey, ProofType,
    message::{DeadLetter, TaskResult},
    subject::{AttemptKey, Kind},
    trace::TraceContext,
};
use std::collections::{BTreeMap, BTreeSet};

/// An operation for the shell to carry out.
#[derive(Debug)]
pub enum Op {
    /// Acknowledge these results.
    Ack(Vec<Handle>),
    /// Begin to store a stage or attempt in STAGES. The answer goes to [`Session::opened`](super::Session::opened).
    Open(Box<Opening>, Token),
    /// Store a dead letter, and wait until it is stored: the record behind it names the letter.
    Bury(Box<DeadLetter>, TraceContext),
    /// Begin to append [`Session::batch`](super::Session::batch) to PROOFS. The answer goes to [`Session::recorded`](super::Session::recorded) or
    /// [`Session::overtaken`](super::Session::overtaken).
    Append,
    /// Begin to read a result again. The answer goes to [`Session::recalled`](super::Session::recalled).
    Read(Handle),
    /// Read the facts about the blocks of this number, and pass them to [`Session::known`](super::Session::known).
    Look(u64),
    /// Begin to look for the work of these ranges, unless a look is under way. The finds go to
    /// [`Session::ranges_looked`](super::Session::ranges_looked); a later look makes up for one that fails.
    LookForRanges(BTreeSet<BlockKey>),
    /// Show how many finished proofs old blocks without a record have.
    Show(BTreeMap<ProofType, u64>),
    /// End the session, because its view of the stored state is stale.
    StartOver(Stale),
}

/// The sign of another collector at work, by which a session finds its view stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// The log holds a record unknown to this session.
    Log,
    /// An unacknowledged result is gone from the stream.
    Result(Handle),
}

/// The name of a publish to STAGES in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// A result, as delivered or as read again.
#[derive(Debug)]
pub struct Report {
    /// The end of the attempt.
    pub result: TaskResult,
    /// The metadata of its message.
    pub told: Told,
    /// The trace of its message.
    pub trace: TraceContext,
}

/// The finds of a look at the streams.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The attempts of the pipeline in STAGES and TASKS, and those in CHECKS with a seal.
    pub attempts: Vec<(Kind, AttemptKey)>,
    /// The newest message of RESULTS, read after the others.
    pub results_to: u64,
}
