//! What unacknowledged messages say, as far as there is room.
//!
//! Decisions do not need it; messages that are made of it do. What is not here is read again from
//! RESULTS, where it lies until it is acknowledged. So memory does not grow with what waits behind a
//! block that hangs. The blocks whose turn comes last make room first.

use crate::{judge, state::Handle};
use push0_domain::{
    Payloads, ProverId, Timestamp,
    message::{AttemptRecord, BlockFacts, Failure, Outcome, TaskHeader, TaskResult},
    pipeline::ProofSpec,
    trace::TraceContext,
};
use std::collections::{BTreeMap, BTreeSet};

/// How many messages are read again at once.
const WANTED_MAX: usize = 1024;
/// What messages that are read ahead may take.
const AHEAD_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What a message says of an attempt, as far as something is made of it.
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
    pub(crate) verify_us: u64,
    pub(crate) busy_us: u64,
    pub(crate) attempt: u32,
    pub(crate) facts: BlockFacts,
    pub(crate) trace: TraceContext,
}

/// A failed one.
#[derive(Clone, Debug)]
pub(crate) struct Failing {
    pub(crate) header: TaskHeader,
    pub(crate) inputs: Option<Payloads>,
    pub(crate) record: AttemptRecord,
    pub(crate) trace: TraceContext,
}

impl Body {
    /// What a result says, once it is judged.
    pub(crate) fn of(
        result: TaskResult,
        spec: &ProofSpec,
        verified: bool,
        stored_at: Timestamp,
        trace: &TraceContext,
    ) -> Self {
        let trace = trace.clone();
        match judge::verdict(&result, spec, verified) {
            Ok(()) => Self::completed(result, trace),
            Err(failure) => Self::failed(result, failure, stored_at, trace),
        }
    }

    fn completed(result: TaskResult, trace: TraceContext) -> Self {
        let outputs = match result.outcome {
            Outcome::Completed { outputs } => outputs,
            Outcome::Failed(_) => Payloads::List(Vec::new()),
        };
        let verdict = result.verdict;
        Self::Completed(Box::new(Completed {
            outputs,
            prover: result.prover,
            verify_us: verdict.as_ref().map_or(0, |v| v.verify_us),
            verifier: verdict.map(|v| v.verifier),
            prove_us: result.prove_us,
            busy_us: result.header.busy_us,
            attempt: result.header.attempt,
            facts: result.header.context.facts,
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

    /// What it takes, roughly.
    fn size(&self) -> usize {
        let payloads = |payloads: &Payloads| payloads.inline_len() + 48;
        let map_entry = 160;
        map_entry
            + match self {
                Self::Completed(body) => size_of::<Completed>() + 192 + payloads(&body.outputs),
                Self::Failed(body) => {
                    let inputs = body.inputs.as_ref().map_or(0, payloads);
                    size_of::<Failing>() + 512 + inputs + body.record.failure.message.len()
                }
            }
    }
}

/// The messages that are here, and those that are being read.
#[derive(Debug)]
pub(crate) struct Bodies {
    room: usize,
    all: BTreeMap<Handle, Here>,
    bytes: usize,
    /// Those that may make room, by the number of their block.
    loose: BTreeSet<(u64, Handle)>,
    /// What those that may not take.
    pinned_bytes: usize,
    /// Being read, and still to be asked for.
    wanted: BTreeSet<Handle>,
    asking: Vec<Handle>,
    /// What one that is read takes, at most, as far as the last ones tell.
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
    /// None yet, and room for so many bytes.
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

    /// What a message said that just came, about a block of this number.
    pub(crate) fn put(&mut self, handle: Handle, number: u64, body: Body) {
        self.insert(handle, number, body, false);
    }

    /// What a message says that was read again. Returns whether anything waits for it.
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

    /// What a message says, if it is here.
    pub(crate) fn get(&self, handle: Handle) -> Option<&Body> {
        self.all.get(&handle).map(|here| &here.body)
    }

    /// What the message about a completed attempt says.
    pub(crate) fn completed(&self, handle: Handle) -> Option<&Completed> {
        match self.get(handle)? {
            Body::Completed(body) => Some(body),
            Body::Failed(_) => None,
        }
    }

    /// What the message about a failed attempt says.
    pub(crate) fn failed(&self, handle: Handle) -> Option<&Failing> {
        match self.get(handle)? {
            Body::Failed(body) => Some(body),
            Body::Completed(_) => None,
        }
    }

    /// A message is not needed any more.
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

    /// Whether all of these are here. Otherwise they are asked for and stay until they are forgotten,
    /// unless so much is being read that this has to wait.
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

    /// Whether more can be read ahead.
    pub(crate) fn has_room_ahead(&self) -> bool {
        let coming = self.wanted.len() * self.large;
        self.wanted.len() < WANTED_MAX && self.pinned_bytes + coming < AHEAD_BYTES_MAX.min(self.room)
    }

    /// Whether a message is being read.
    pub(crate) fn is_wanted(&self, handle: Handle) -> bool {
        self.wanted.contains(&handle)
    }

    /// Whether nothing is being read.
    pub(crate) fn is_quiet(&self) -> bool {
        self.wanted.is_empty()
    }

    /// What is to be read.
    pub(crate) fn take_asking(&mut self) -> Vec<Handle> {
        let mut asking = std::mem::take(&mut self.asking);
        asking.retain(|handle| self.wanted.contains(handle));
        asking
    }

    /// Makes room. What the block that is next consists of stays.
    pub(crate) fn shrink(&mut self, next: u64) {
        while self.bytes > self.room {
            let Some((_, handle)) = self.loose.last().filter(|(number, _)| *number > next) else {
                break;
            };
            self.forget(*handle);
        }
    }
}
