//! Provers and verifiers: who is heard, who is suspected, and what each did last.
//!
//! A lease may come under any name where the broker has no accounts, and from any number of replicas of a fleet where it
//! has. So members are bounded in number, and share what is remembered of all.

use super::text::cut;
use crate::view::{self, millis};
use push0_domain::{
    Participant, Timestamp, ZkvmId,
    message::{FailureClass, Happening, Held, Lease, ProverState, Role},
    subject::AttemptKey,
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// How many provers and verifiers are remembered. One that is new has no place until another one is gone.
pub(super) const MEMBERS_MAX: usize = 2_048;
/// How many attempts of a prover are remembered after their end, and of all provers together.
const RECENT: Share = Share {
    each: 4..=50,
    all: 8_192,
};
/// How many deliveries of a prover are shown, and of all provers together.
const HELD: Share = Share {
    each: 4..=256,
    all: 8_192,
};
/// How many durations the median is taken of.
const DURATIONS_MAX: usize = 64;
/// Longest name of a machine that is shown, in bytes.
const HOST_MAX: usize = 128;
/// After this silence a prover is shown as gone.
const GONE_AFTER: Duration = Duration::from_secs(15);
/// After this silence a prover is shown no more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// How often a full fleet is searched for somebody who is gone.
const SEARCH_EVERY: Duration = Duration::from_secs(1);

/// A bound for all members together, of which each has an equal part within limits.
struct Share {
    each: std::ops::RangeInclusive<usize>,
    all: usize,
}

impl Share {
    fn of(&self, members: usize) -> usize {
        (self.all / members.max(1)).clamp(*self.each.start(), *self.each.end())
    }
}

/// A participant, and whether it verifies: a prover and a verifier may have one name.
pub(crate) type Key = (Participant, bool);

/// The provers and verifiers that were heard lately.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    members: BTreeMap<Key, Member>,
    /// Members that made room for others.
    ousted: Vec<Key>,
    searched_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Member {
    slots: u32,
    state: ProverState,
    incarnation: u64,
    host: Option<String>,
    held: Vec<view::HeldAttempt>,
    /// How many attempts run, those among `held` and others.
    running: usize,
    heard_at: Timestamp,
    is_suspected: bool,
    is_gone: bool,
    quarantined_until: Option<Timestamp>,
    done: u64,
    failed: u64,
    recent: VecDeque<view::PastAttempt>,
    durations: VecDeque<u64>,
}

/// A prover or verifier that is heard, for the queue of its zkVM.
pub(crate) struct Heard<'a> {
    pub(crate) zkvm: &'a ZkvmId,
    pub(crate) verifies: bool,
    pub(crate) slots: u32,
    pub(crate) running: usize,
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
    pub(crate) fn heard(&mut self, lease: &Lease, now: Timestamp) -> bool {
        let key = (lease.sender(), lease.role == Role::Verifier);
        if !self.members.contains_key(&key) && !self.has_room(now) {
            return false;
        }
        let held_max = HELD.of(self.members.len() + 1);
        match self.members.get_mut(&key) {
            Some(member) => member.heard(lease, held_max, now),
            None => {
                self.members.insert(key, Member::new(lease, held_max, now));
                true
            }
        }
    }

    /// Returns whether a member was heard.
    pub(crate) fn knows(&self, key: &Key) -> bool {
        self.members.contains_key(key)
    }

    /// Returns whether there is room for a new member. One that is gone for long makes room.
    fn has_room(&mut self, now: Timestamp) -> bool {
        if self.members.len() < MEMBERS_MAX {
            return true;
        }
        if self.searched_at.is_some_and(|at| now.since(at) < SEARCH_EVERY) {
            return false;
        }
        let gone = self
            .members
            .iter()
            .filter(|(_, member)| member.is_silent(GONE_AFTER, now));
        let longest = gone
            .min_by_key(|(_, member)| member.heard_at)
            .map(|(key, _)| key.clone());
        match longest {
            Some(key) => {
                self.members.remove(&key);
                self.ousted.push(key);
                true
            }
            None => {
                self.searched_at = Some(now);
                false
            }
        }
    }

    /// Handles the end of an attempt. Returns whether the prover is known.
    pub(crate) fn ended(&mut self, key: &Key, ended: &Ended<'_>) -> bool {
        let recent_max = RECENT.of(self.members.len());
        let Some(member) = self.members.get_mut(key) else {
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
        push(&mut member.recent, past, recent_max);
        true
    }

    /// Handles an event about a prover. Returns the provers with news.
    pub(crate) fn happened(&mut self, what: Happening, now: Timestamp) -> Vec<Key> {
        let of = |zkvm, name, role| (Participant { zkvm, name }, role == Role::Verifier);
        match what {
            Happening::ProverSuspected {
                prover, zkvm, role, ..
            } => self.change(of(zkvm, prover, role), |member| member.is_suspected = true),
            Happening::ProverBack {
                prover, zkvm, role, ..
            } => self.change(of(zkvm, prover, role), |member| member.is_suspected = false),
            Happening::ProverLost {
                prover, zkvm, role, ..
            } => self.change(of(zkvm, prover, role), |member| {
                // A lease of a newer process of the name may have come before the event.
                member.is_gone = member.is_silent(Duration::from_secs(1), now);
                if member.is_gone {
                    member.held.clear();
                    member.running = 0;
                }
            }),
            Happening::QuarantineBegun { prover, until, .. } => self.quarantine(prover.as_str(), Some(until)),
            Happening::QuarantineEnded { prover, .. } => self.quarantine(prover.as_str(), None),
            _ => Vec::new(),
        }
    }

    fn change(&mut self, key: Key, change: impl FnOnce(&mut Member)) -> Vec<Key> {
        match self.members.get_mut(&key) {
            Some(member) => {
                change(member);
                vec![key]
            }
            None => Vec::new(),
        }
    }

    /// Sets the quarantine of the provers of a name: the event names no zkVM.
    fn quarantine(&mut self, name: &str, until: Option<Timestamp>) -> Vec<Key> {
        let of_name = |(participant, verifies): &Key| participant.name.as_str() == name && !verifies;
        let found = self.members.iter_mut().filter(|(key, _)| of_name(key));
        found
            .map(|(key, member)| {
                member.quarantined_until = until;
                key.clone()
            })
            .collect()
    }

    /// Forgets provers that were silent for long. Returns them, and marks silent ones as gone.
    pub(crate) fn forget(&mut self, now: Timestamp) -> Vec<Key> {
        let (held_max, recent_max) = (HELD.of(self.members.len()), RECENT.of(self.members.len()));
        for member in self.members.values_mut() {
            // The fleet may have grown since the member was heard.
            member.held.truncate(held_max);
            member.held.shrink_to(held_max);
            let excess = member.recent.len().saturating_sub(recent_max);
            member.recent.drain(..excess);
            member.recent.shrink_to(recent_max);
            if member.is_silent(GONE_AFTER, now) {
                member.is_gone = true;
            }
        }
        let over = self
            .members
            .iter()
            .filter(|(_, member)| member.is_silent(FORGOTTEN_AFTER, now));
        let over: Vec<Key> = over.map(|(key, _)| key.clone()).collect();
        over.iter().for_each(|key| drop(self.members.remove(key)));
        let mut gone = std::mem::take(&mut self.ousted);
        gone.extend(over);
        gone.retain(|key| !self.members.contains_key(key));
        gone
    }

    pub(crate) fn view(&self, key: &Key) -> Option<view::Prover> {
        self.members.get(key).map(|member| member.view(key))
    }

    pub(crate) fn views(&self) -> Vec<view::Prover> {
        self.members
            .iter()
            .map(|(key, member)| member.view(key))
            .collect()
    }

    /// Returns those that are heard.
    pub(crate) fn all_heard(&self) -> impl Iterator<Item = Heard<'_>> {
        let heard = self.members.iter().filter(|(_, member)| !member.is_gone);
        heard.map(|((participant, verifies), member)| Heard {
            zkvm: &participant.zkvm,
            verifies: *verifies,
            slots: member.slots,
            running: member.running,
        })
    }

    /// Returns when a prover or verifier of a zkVM was heard last.
    pub(crate) fn heard_at(&self, zkvm: &ZkvmId, verifies: bool) -> Option<Timestamp> {
        let all = self.members.iter();
        let of_zkvm = all.filter(|((participant, role), _)| participant.zkvm == *zkvm && *role == verifies);
        of_zkvm.map(|(_, member)| member.heard_at).max()
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
    while queue.len() >= max {
        queue.pop_front();
    }
    queue.push_back(value);
}

/// Returns whether what is held differs in more than the passing of time.
fn differs(before: &[view::HeldAttempt], after: &[view::HeldAttempt]) -> bool {
    let told = |held: &view::HeldAttempt| (held.running_ms.is_some(), held.progress);
    let is_same = |(a, b): (&view::HeldAttempt, &view::HeldAttempt)| a.key == b.key && told(a) == told(b);
    before.len() != after.len() || !before.iter().zip(after).all(is_same)
}

impl Member {
    fn new(lease: &Lease, held_max: usize, now: Timestamp) -> Self {
        Self {
            slots: lease.slots,
            state: lease.state,
            incarnation: lease.incarnation,
            host: host_of(lease),
            held: views_of(lease, held_max),
            running: count_running(lease),
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

    /// Takes over a heartbeat. Returns whether there is news for people.
    fn heard(&mut self, lease: &Lease, held_max: usize, now: Timestamp) -> bool {
        let held = views_of(lease, held_max);
        let before = (self.state, self.slots, self.incarnation, self.running);
        let after = (lease.state, lease.slots, lease.incarnation, count_running(lease));
        let is_news = self.is_suspected || self.is_gone || before != after || differs(&self.held, &held);
        (self.is_suspected, self.is_gone) = (false, false);
        (self.state, self.slots, self.incarnation, self.running) = after;
        (self.heard_at, self.host, self.held) = (now, host_of(lease), held);
        is_news
    }

    fn is_silent(&self, time: Duration, now: Timestamp) -> bool {
        now.since(self.heard_at) > time
    }

    fn view(&self, (participant, verifies): &Key) -> view::Prover {
        let mut durations: Vec<u64> = self.durations.iter().copied().collect();
        durations.sort_unstable();
        let state = match (self.is_gone, self.is_suspected, self.state) {
            (true, _, _) => "gone",
            (_, true, _) => "suspected",
            (_, _, ProverState::Active) => "active",
            (_, _, ProverState::Draining) => "draining",
            (_, _, ProverState::Quarantined) => "quarantined",
        };
        view::Prover {
            id: participant.name.to_string(),
            zkvm: participant.zkvm.to_string(),
            role: role_of(*verifies),
            slots: self.slots,
            state,
            host: self.host.clone(),
            heard_at: millis(self.heard_at),
            quarantined_until: self.quarantined_until.map(millis),
            done: self.done,
            failed: self.failed,
            p50_ms: durations.get(durations.len() / 2).copied(),
            held: self.held.clone(),
            recent: self.recent.iter().cloned().collect(),
        }
    }
}

/// Returns the name of a role.
pub(crate) fn role_of(verifies: bool) -> &'static str {
    if verifies { "verifier" } else { "prover" }
}

fn host_of(lease: &Lease) -> Option<String> {
    lease.origin.as_ref().map(|origin| cut(&origin.host, HOST_MAX))
}

fn count_running(lease: &Lease) -> usize {
    lease.held.iter().filter(|held| held.running_ms.is_some()).count()
}

/// Returns the first deliveries of a lease as clients see them.
fn views_of(lease: &Lease, max: usize) -> Vec<view::HeldAttempt> {
    lease.held.iter().take(max).map(held_view).collect()
}

fn held_view(held: &Held) -> view::HeldAttempt {
    let stage = &held.header.id.stage;
    let permille = held.progress_permille.map(|permille| permille.min(1000));
    view::HeldAttempt {
        key: held.header.attempt_id().to_string(),
        pipeline: stage.pipeline.to_string(),
        block: stage.block.number,
        stage: format!("{}.{}", stage.proof_type, stage.stage),
        running_ms: held.running_ms,
        progress: permille.map(|permille| f64::from(permille) / 1000.0),
    }
}
