//! Provers and verifiers: who is heard, who is suspected, and what each did last.

use crate::view::{self, millis};
use push0_domain::{
    ProverId, Timestamp,
    message::{FailureClass, Happening, Lease, ProverState, Role},
    subject::AttemptKey,
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// How many attempts of a prover are remembered after their end.
const RECENT_MAX: usize = 50;
/// How many durations the median is taken of.
const DURATIONS_MAX: usize = 64;
/// After this silence a prover is shown as gone.
const GONE_AFTER: Duration = Duration::from_secs(15);
/// After this silence a prover is shown no more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// A prover by id, and whether it verifies: a prover and a verifier may have one name.
pub(crate) type Key = (ProverId, bool);

/// The provers and verifiers that were heard lately.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    members: BTreeMap<Key, Member>,
}

#[derive(Debug)]
struct Member {
    lease: Lease,
    heard_at: Timestamp,
    is_suspected: bool,
    is_gone: bool,
    quarantined_until: Option<Timestamp>,
    done: u64,
    failed: u64,
    recent: VecDeque<view::PastAttempt>,
    durations: VecDeque<u64>,
}

/// An attempt that ended.
pub(crate) struct Ended<'a> {
    pub(crate) key: &'a AttemptKey,
    pub(crate) started_at: Timestamp,
    pub(crate) ended_at: Timestamp,
    pub(crate) outcome: &'static str,
}

/// Returns how an attempt with a failure of this class ended, in one word.
pub(crate) fn outcome_of(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Died => "died",
        FailureClass::Stopped => "stopped",
        _ => "failed",
    }
}

impl Fleet {
    /// Handles a heartbeat. Returns whether there is news for people.
    pub(crate) fn heard(&mut self, lease: Lease, now: Timestamp) -> bool {
        let key = (lease.prover.clone(), lease.role == Role::Verifier);
        let Some(member) = self.members.get_mut(&key) else {
            self.members.insert(key, Member::new(lease, now));
            return true;
        };
        let is_news = member.is_suspected || member.is_gone || differs(&member.lease, &lease);
        (member.is_suspected, member.is_gone) = (false, false);
        member.heard_at = now;
        member.lease = lease;
        is_news
    }

    /// Handles the end of an attempt. Returns whether the prover is known.
    pub(crate) fn ended(&mut self, key: Key, ended: &Ended<'_>) -> bool {
        let Some(member) = self.members.get_mut(&key) else {
            return false;
        };
        match ended.outcome {
            "done" => member.done += 1,
            "stopped" => {}
            _ => member.failed += 1,
        }
        if ended.outcome == "done" {
            push(
                &mut member.durations,
                millis(ended.ended_at).saturating_sub(millis(ended.started_at)),
                DURATIONS_MAX,
            );
        }
        let past = view::PastAttempt {
            pipeline: ended.key.pipeline.to_string(),
            block: ended.key.block.number,
            stage: ended.key.stage.to_string(),
            started_at: millis(ended.started_at),
            ended_at: millis(ended.ended_at),
            outcome: ended.outcome,
        };
        push(&mut member.recent, past, RECENT_MAX);
        true
    }

    /// Handles an event about a prover. Returns the provers with news.
    pub(crate) fn happened(&mut self, what: Happening, now: Timestamp) -> Vec<Key> {
        let verifies = |role: Role| role == Role::Verifier;
        let mut change = |key: Key, apply: &dyn Fn(&mut Member)| {
            let Some(member) = self.members.get_mut(&key) else {
                return Vec::new();
            };
            apply(member);
            vec![key]
        };
        match what {
            Happening::ProverSuspected { prover, role, .. } => {
                change((prover, verifies(role)), &|member| member.is_suspected = true)
            }
            Happening::ProverBack { prover, role, .. } => {
                change((prover, verifies(role)), &|member| member.is_suspected = false)
            }
            Happening::ProverLost { prover, role, .. } => change((prover, verifies(role)), &|member| {
                // A lease of a newer process of the name may have come before the event.
                member.is_gone = now.since(member.heard_at) > Duration::from_secs(1);
                if member.is_gone {
                    member.lease.held.clear();
                }
            }),
            Happening::QuarantineBegun { prover, until, .. } => {
                change((prover, false), &|member| member.quarantined_until = Some(until))
            }
            Happening::QuarantineEnded { prover, .. } => {
                change((prover, false), &|member| member.quarantined_until = None)
            }
            _ => Vec::new(),
        }
    }

    /// Forgets provers that were silent for long. Returns them, and marks silent ones as gone.
    pub(crate) fn forget(&mut self, now: Timestamp) -> Vec<Key> {
        let silent = |member: &Member, time: Duration| now.since(member.heard_at) > time;
        for member in self.members.values_mut() {
            if silent(member, GONE_AFTER) {
                member.is_gone = true;
            }
        }
        let over = self
            .members
            .iter()
            .filter(|(_, member)| silent(member, FORGOTTEN_AFTER));
        let over: Vec<Key> = over.map(|(key, _)| key.clone()).collect();
        over.iter().for_each(|key| drop(self.members.remove(key)));
        over
    }

    pub(crate) fn view(&self, key: &Key) -> Option<view::Prover> {
        self.members.get(key).map(Member::view)
    }

    pub(crate) fn views(&self) -> Vec<view::Prover> {
        self.members.values().map(Member::view).collect()
    }

    /// Returns the leases of those that are heard.
    pub(crate) fn leases(&self) -> impl Iterator<Item = &Lease> {
        let heard = self.members.values().filter(|member| !member.is_gone);
        heard.map(|member| &member.lease)
    }

    /// Returns the provers that are suspected, with the time when they were heard last.
    pub(crate) fn suspected(&self) -> impl Iterator<Item = (&Key, Timestamp)> {
        let suspected = self
            .members
            .iter()
            .filter(|(_, member)| member.is_suspected && !member.is_gone);
        suspected.map(|(key, member)| (key, member.heard_at))
    }
}

fn push<T>(queue: &mut VecDeque<T>, value: T, max: usize) {
    if queue.len() >= max {
        queue.pop_front();
    }
    queue.push_back(value);
}

/// Returns whether two leases of a process differ in more than the passing of time.
fn differs(before: &Lease, after: &Lease) -> bool {
    let held = |lease: &Lease| -> Vec<(AttemptKey, bool, Option<u16>)> {
        let all = lease.held.iter();
        all.map(|held| {
            let key = AttemptKey::of(&held.header.zkvm, &held.header.attempt_id());
            (key, held.running_ms.is_some(), held.progress_permille)
        })
        .collect()
    };
    (before.state, before.slots, before.incarnation) != (after.state, after.slots, after.incarnation)
        || held(before) != held(after)
}

impl Member {
    fn new(lease: Lease, now: Timestamp) -> Self {
        Self {
            lease,
            heard_at: now,
            is_suspected: false,
            is_gone: false,
            quarantined_until: None,
            done: 0,
            failed: 0,
            recent: VecDeque::new(),
            durations: VecDeque::new(),
        }
    }

    fn view(&self) -> view::Prover {
        let mut durations: Vec<u64> = self.durations.iter().copied().collect();
        durations.sort_unstable();
        let state = match (self.is_gone, self.is_suspected, self.lease.state) {
            (true, _, _) => "gone",
            (_, true, _) => "suspected",
            (_, _, ProverState::Active) => "active",
            (_, _, ProverState::Draining) => "draining",
            (_, _, ProverState::Quarantined) => "quarantined",
        };
        view::Prover {
            id: self.lease.prover.to_string(),
            zkvm: self.lease.zkvm.to_string(),
            role: match self.lease.role {
                Role::Prover => "prover",
                Role::Verifier => "verifier",
            },
            slots: self.lease.slots,
            state,
            host: self.lease.origin.as_ref().map(|origin| origin.host.clone()),
            heard_at: millis(self.heard_at),
            quarantined_until: self.quarantined_until.map(millis),
            done: self.done,
            failed: self.failed,
            p50_ms: durations.get(durations.len() / 2).copied(),
            held: self.lease.held.iter().map(held_view).collect(),
            recent: self.recent.iter().cloned().collect(),
        }
    }
}

fn held_view(held: &push0_domain::message::Held) -> view::HeldAttempt {
    let stage = &held.header.id.stage;
    view::HeldAttempt {
        key: held.header.attempt_id().to_string(),
        pipeline: stage.pipeline.to_string(),
        block: stage.block.number,
        stage: format!("{}.{}", stage.proof_type, stage.stage),
        running_ms: held.running_ms,
        progress: held
            .progress_permille
            .map(|permille| f64::from(permille) / 1000.0),
    }
}
