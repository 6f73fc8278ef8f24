//! Bodies of unacknowledged messages, kept as far as there is room.
//!
//! Decisions do not need bodies; new messages do. A missing body is read again from RESULTS, where the
//! message stays until it is acknowledged. So memory does not grow with the blocks waiting behind one that
//! hangs. The blocks whose turn comes last make room first.

use crate::intake::Handle;
use push0_domain::{
    Payloads, ProverId, Timestamp,
    message::{AttemptRecord, BlockFacts, Failure, Outcome, TaskHeader, TaskResult},
    path::Leg,
    signature::Signed,
    trace::TraceContext,
};
use std::collections::{BTreeMap, BTreeSet};

/// Approximate size of a signature with its key and the word of a fleet, in bytes.
const SIGNED_LEN: usize = 320;
/// Approximate size of a leg's names outside of it, in bytes.
const LEG_NAMES_LEN: usize = 48;
/// How many messages are read again at once.
const WANTED_MAX: usize = 1024;
/// Most bytes of messages read ahead.
const AHEAD_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The part of a result needed to build further messages.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Completed(Box<Completed>),
    Failed(Box<Failing>),
}

/// A completed attempt.
#[derive(Clone, Debug)]
pub(crate) struct Completed {
    pub(crate) outputs: Payloads,
    pub(crate) prover: ProverId,
    pub(crate) verifier: Option<ProverId>,
    pub(crate) prove_us: u64,
    pub(crate) transfer_us: u64,
    pub(crate) verify_us: u64,
    /// The critical path that ends with this attempt.
    pub(crate) legs: Vec<Leg>,
    pub(crate) attempt: u32,
    pub(crate) facts: BlockFacts,
    pub(crate) signed: Option<Signed>,
    pub(crate) trace: TraceContext,
}

/// A failed attempt.
#[derive(Clone, Debug)]
pub(crate) struct Failing {
    pub(crate) header: TaskHeader,
    pub(crate) inputs: Option<Payloads>,
    pub(crate) record: AttemptRecord,
    pub(crate) trace: TraceContext,
}

impl Body {
    /// Extracts the body of a result with this verdict.
    pub(crate) fn of(
        result: TaskResult,
        verdict: Result<(), Failure>,
        stored_at: Timestamp,
        trace: &TraceContext,
    ) -> Self {
        let trace = trace.clone();
        match verdict {
            Ok(()) => Self::completed(result, stored_at, trace),
            Err(failure) => Self::failed(result, failure, stored_at, trace),
        }
    }

    fn completed(result: TaskResult, stored_at: Timestamp, trace: TraceContext) -> Self {
        let legs = result.legs(stored_at);
        let outputs = match result.outcome {
            Outcome::Completed { outputs } => outputs,
            Outcome::Failed(_) => Payloads::List(Vec::new()),
        };
        let verdict = result.verdict;
        let task = &result.header.id;
        let signed = result.signature.map(|signature| Signed {
            stage: task.stage.stage.clone(),
            index: task.index,
            signature,
        });
        Self::Completed(Box::new(Completed {
            outputs,
            prover: result.prover,
            verify_us: verdict.as_ref().map_or(0, |v| v.verify_us),
            verifier: verdict.map(|v| v.verifier),
            prove_us: result.prove_us,
            transfer_us: result.transfer_us,
            legs,
            attempt: result.header.attempt,
            facts: result.header.context.facts,
            signed,
            trace,
        }))
    }

    fn failed(result: TaskResult, failure: Failure, stored_at: Timestamp, trace: TraceContext) -> Self {
        let record = AttemptRecord {
            attempt: result.header.attempt,
            prover: result.prover,
            ended_at: stored_at,
            prove_us: result.prove_us,
            failure,
        };
        Self::Failed(Box::new(Failing {
            header: result.header,
            inputs: result.inputs,
            record,
            trace,
        }))
    }

    /// Returns the approximate size in memory, in bytes.
    fn size(&self) -> usize {
        let payloads = |payloads: &Payloads| payloads.inline_len() + 48;
        let map_entry = 160;
        map_entry
            + match self {
                Self::Completed(body) => {
                    let legs = legs_len(&body.legs);
                    size_of::<Completed>() + 256 + SIGNED_LEN + legs + payloads(&body.outputs)
                }
                Self::Failed(body) => {
                    let inputs = body.inputs.as_ref().map_or(0, payloads);
                    let legs = legs_len(&body.header.path.legs);
                    size_of::<Failing>() + 576 + legs + inputs + body.record.failure.message.len()
                }
            }
    }
}

fn legs_len(legs: &[Leg]) -> usize {
    legs.len() * (size_of::<Leg>() + LEG_NAMES_LEN)
}

/// The bodies in memory, and the messages being read.
#[derive(Debug)]
pub(crate) struct Bodies {
    room: usize,
    all: BTreeMap<Handle, Here>,
    bytes: usize,
    /// Bodies that may be dropped to make room, by the number of their block.
    loose: BTreeSet<(u64, Handle)>,
    /// Bytes of the other bodies, which must stay.
    pinned_bytes: usize,
    /// Messages being read, and those still to be requested.
    wanted: BTreeSet<Handle>,
    asking: Vec<Handle>,
    /// Estimate of the largest message being read, from the latest reads.
    large: usize,
}

#[derive(Debug)]
struct Here {
    number: u64,
    is_pinned: bool,
    size: usize,
    body: Body,
}

impl Bodies {
    /// Creates an empty cache with room for this many bytes.
    pub(crate) fn new(room: usize) -> Self {
        Self {
            room,
            all: BTreeMap::new(),
            bytes: 0,
            loose: BTreeSet::new(),
            pinned_bytes: 0,
            wanted: BTreeSet::new(),
            asking: Vec::new(),
            large: push0_domain::payload::INLINE_MAX,
        }
    }

    /// Adds the body of a new message about a block with this number.
    pub(crate) fn put(&mut self, handle: Handle, number: u64, body: Body) {
        self.insert(handle, number, body, false);
    }

    /// Adds the body of a message read again. Returns whether a step waits for it.
    pub(crate) fn read(&mut self, handle: Handle, number: u64, body: Body) -> bool {
        let is_wanted = self.wanted.remove(&handle);
        if is_wanted {
            self.large = body.size().max(self.large - self.large / 16);
            self.insert(handle, number, body, true);
        }
        is_wanted
    }

    fn insert(&mut self, handle: Handle, number: u64, body: Body, is_pinned: bool) {
        self.forget(handle);
        let size = body.size();
        self.bytes += size;
        if is_pinned {
            self.pinned_bytes += size;
        } else {
            self.loose.insert((number, handle));
        }
        let here = Here {
            number,
            is_pinned,
            size,
            body,
        };
        self.all.insert(handle, here);
    }

    /// Returns the body of a message, if it is in memory.
    pub(crate) fn get(&self, handle: Handle) -> Option<&Body> {
        self.all.get(&handle).map(|here| &here.body)
    }

    /// Returns the body of a message about a completed attempt.
    pub(crate) fn completed(&self, handle: Handle) -> Option<&Completed> {
        match self.get(handle)? {
            Body::Completed(body) => Some(body),
            Body::Failed(_) => None,
        }
    }

    /// Returns the body of a message about a failed attempt.
    pub(crate) fn failed(&self, handle: Handle) -> Option<&Failing> {
        match self.get(handle)? {
            Body::Failed(body) => Some(body),
            Body::Completed(_) => None,
        }
    }

    /// Forgets a message no longer needed.
    pub(crate) fn forget(&mut self, handle: Handle) {
        self.wanted.remove(&handle);
        if let Some(here) = self.all.remove(&handle) {
            self.bytes -= here.size;
            if here.is_pinned {
                self.pinned_bytes -= here.size;
            } else {
                self.loose.remove(&(here.number, handle));
            }
        }
    }

    /// Returns whether all these bodies are in memory. If not, they are requested, and stay until they are
    /// forgotten. While too many messages are being read, the request is put off.
    pub(crate) fn have(&mut self, handles: &[Handle]) -> bool {
        let missing = |handle: &&Handle| !self.all.contains_key(handle);
        let missing: Vec<Handle> = handles.iter().filter(missing).copied().collect();
        if missing.is_empty() {
            return true;
        }
        let is_full = !self.wanted.is_empty() && self.wanted.len() + missing.len() > WANTED_MAX;
        let is_asked = missing.iter().any(|handle| self.wanted.contains(handle));
        if !is_full || is_asked {
            handles.iter().for_each(|handle| self.pin(*handle));
            for handle in missing {
                if self.wanted.insert(handle) {
                    self.asking.push(handle);
                }
            }
        }
        false
    }

    fn pin(&mut self, handle: Handle) {
        if let Some(here) = self.all.get_mut(&handle).filter(|here| !here.is_pinned) {
            here.is_pinned = true;
            self.pinned_bytes += here.size;
            self.loose.remove(&(here.number, handle));
        }
    }

    /// Returns whether more messages can be read ahead.
    pub(crate) fn has_room_ahead(&self) -> bool {
        let coming = self.wanted.len() * self.large;
        self.wanted.len() < WANTED_MAX && self.pinned_bytes + coming < AHEAD_BYTES_MAX.min(self.room)
    }

    /// Returns whether a message is being read.
    pub(crate) fn is_wanted(&self, handle: Handle) -> bool {
        self.wanted.contains(&handle)
    }

    /// Returns whether no message is being read.
    pub(crate) fn is_quiet(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Takes the messages to request from the stream.
    pub(crate) fn take_asking(&mut self) -> Vec<Handle> {
        let mut asking = std::mem::take(&mut self.asking);
        asking.retain(|handle| self.wanted.contains(handle));
        asking
    }

    /// Makes room. Bodies of the next block to emit stay.
    pub(crate) fn shrink(&mut self, next: u64) {
        while self.bytes > self.room {
            let Some((_, handle)) = self.loose.last().filter(|(number, _)| *number > next) else {
                break;
            };
            self.forget(*handle);
        }
    }
}
