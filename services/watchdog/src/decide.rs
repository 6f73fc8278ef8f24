//! The watchdog's decisions.
//!
//! | observation | action of the watchdog |
//! |---|---|
//! | a prover silent for three beats, or back under a new incarnation | each attempt it ran is reported as died, each attempt not begun goes to another prover |
//! | the same of a verifier | its checks go to another verifier |
//! | an attempt over its timeout | stopped, and reported as timed out |
//! | an attempt slower than its hedge threshold | a hedge is requested |
//! | an attempt at a task of which another copy was accepted | stopped |
//! | an attempt whose block was emitted or cancelled, or can no longer meet its deadline | stopped |
//! | an attempt in a stream and in no lease | see [`crate::unheld`] |
//!
//! A completed attempt is ignored even if an older heartbeat still lists it.
//!
//! Each decision is repeated as long as heartbeats show no effect: orders and reports may be lost, and doing
//! any of this twice is harmless.

mod superseded;

pub use crate::silence::{DEAD_AFTER, End, HEARTBEAT};

use crate::unheld::{LATE_AFTER, Looks, Unheld};
use push0_domain::{
    Announcement, BlockRef, PipelineId, ProverId, Timestamp, ZkvmId,
    message::{BlockEnded, EndReason, Happening, Held, Lease, ProverState, Role},
    output::Output,
    subject::AttemptKey,
    task::{AttemptId, TaskId},
    wanted::Claims,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

/// How long an adapter may take to end an attempt at its timeout by itself, before the attempt
/// counts as hung.
pub const TIMEOUT_GRACE: Duration = HEARTBEAT.saturating_mul(2);
/// How long a live prover may take to reach a broker that came back.
const RECONNECT_MAX: Duration = Duration::from_secs(1);
/// How long after an attempt's end a heartbeat may still list the attempt: it was sent before.
const TOLD_AFTER: Duration = HEARTBEAT;
/// How often a stop order is repeated while it is not obeyed.
const REPEAT_AFTER: Duration = Duration::from_secs(1);

/// An action for the shell to carry out.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write the failure of an attempt whose prover cannot, and end its delivery.
    Report {
        /// The prover holding the attempt.
        prover: ProverId,
        /// The attempt as last listed.
        held: Box<Held>,
        /// How the attempt ended.
        end: End,
    },
    /// Give a delivery to another process.
    GiveBack(Box<Held>),
    /// Ask for a second copy of an attempt.
    Hedge {
        /// The prover to avoid, because it is slow.
        prover: ProverId,
        /// The attempt to hedge.
        held: Box<Held>,
    },
    /// Tell a prover to end an attempt.
    Stop {
        /// The prover to tell.
        prover: ProverId,
        /// The attempt to end.
        attempt: AttemptId,
        /// Why the attempt is stopped.
        reason: Reason,
    },
    /// Report a late block, past or unable to meet its deadline, if one of these attempts is still in TASKS.
    /// The shell checks TASKS, because a lease may be older than an attempt's end.
    Late(Vec<AttemptKey>, Box<BlockEnded>),
    /// Publish an event for observers.
    Announce(Happening),
}

/// Why an attempt is no longer wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The attempt ran over its timeout.
    TimedOut,
    /// Another copy of the task was accepted.
    Won,
    /// The block was emitted.
    Emitted,
    /// The block was cancelled or replaced.
    Ended,
    /// The deadline passed or is out of reach.
    Late,
}

impl Reason {
    /// Returns the reason in words, for the prover's log and trace.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TimedOut => "over its timeout",
            Self::Won => "another copy was accepted",
            Self::Emitted => "its block was emitted",
            Self::Ended => "its block is no longer wanted",
            Self::Late => "its block cannot be ready by its deadline",
        }
    }
}

/// A block out of time: pipeline, block, its announcement, and deadline.
type Late = (PipelineId, BlockRef, Announcement, Option<Timestamp>);

#[derive(Debug)]
struct Prover {
    lease: Lease,
    heard_at: Timestamp,
}

/// The watchdog's state: the newest heartbeat of every prover and verifier, and recent ends.
#[derive(Debug, Default)]
pub struct Watchdog {
    provers: BTreeMap<ProverId, Prover>,
    /// Attempts for which a hedge was requested.
    hedged: HashSet<AttemptId>,
    /// Completed attempts possibly still listed by heartbeats, by completion time.
    over: HashMap<(ProverId, AttemptId), Timestamp>,
    /// When each attempt was last ordered to stop.
    ordered: HashMap<(ProverId, AttemptId), Timestamp>,
    /// Attempts already reported as making their block late.
    late: BTreeSet<AttemptKey>,
    /// The output of each pipeline, and when it was last heard or read.
    outputs: HashMap<PipelineId, (Output, Timestamp)>,
    /// The accepted attempt of tasks with further copies running or in flight, and when it was accepted.
    won: HashMap<TaskId, (u32, Timestamp)>,
    /// The latest ends of blocks, whose attempts may still be in flight to a prover.
    ends: VecDeque<(BlockEnded, Timestamp)>,
    looks: Looks,
    swept_at: Timestamp,
    ticked_at: Timestamp,
}

impl Watchdog {
    /// Handles a heartbeat stored before this watchdog led. Its prover gets extra time to be heard again, as
    /// after an outage of the broker.
    pub fn recall(&mut self, lease: Lease, now: Timestamp) {
        let heard_at = now.plus(RECONNECT_MAX);
        self.provers
            .insert(lease.prover.clone(), Prover { lease, heard_at });
    }

    /// Handles a heartbeat.
    pub fn heard(&mut self, lease: Lease, now: Timestamp) -> Vec<Effect> {
        let (id, role, incarnation) = (lease.prover.clone(), lease.role, lease.incarnation);
        let found = Effect::Announce(Happening::ProverFound {
            prover: id.clone(),
            zkvm: lease.zkvm.clone(),
            role,
        });
        if let Some(before) = self.provers.get(&id).map(|before| &before.lease)
            && before.incarnation == incarnation
        {
            let kept: HashSet<&str> = lease.held.iter().map(|h| h.ack_subject.as_str()).collect();
            let waited = before.held.iter().filter(|h| h.running_ms.is_none());
            for held in waited.filter(|h| !kept.contains(h.ack_subject.as_str())) {
                let key = AttemptKey::of(&held.header.zkvm, &held.header.attempt_id());
                self.looks.handed_back(role, key);
            }
        }
        let before = self.provers.insert(id, Prover { lease, heard_at: now });
        match before {
            None => vec![found],
            Some(before) if before.lease.incarnation != incarnation && before.lease.role == role => {
                let mut effects = self.lost(before.lease, End::Restarted, now);
                effects.push(found);
                effects
            }
            Some(_) => Vec::new(),
        }
    }

    /// Returns the provers able to work on a zkVM: alive and not draining.
    pub fn fleet(&self, zkvm: &ZkvmId) -> BTreeSet<ProverId> {
        let lease = |p: &Prover| {
            let Lease { role, state, .. } = p.lease;
            role == Role::Prover && state != ProverState::Draining && p.lease.zkvm == *zkvm
        };
        let fleet = self.provers.iter().filter(|(_, p)| lease(p));
        fleet.map(|(id, _)| id.clone()).collect()
    }

    /// Returns the zkVMs with at least one prover or verifier.
    pub fn zkvms(&self) -> BTreeSet<ZkvmId> {
        self.provers.values().map(|p| p.lease.zkvm.clone()).collect()
    }

    /// Handles a completed attempt, which needs no stop any more. Its delivery stays with the prover until a
    /// heartbeat no longer lists the attempt.
    pub fn over(&mut self, prover: &ProverId, attempt: AttemptId, now: Timestamp) {
        self.over.insert((prover.clone(), attempt), now);
    }

    /// Handles the passing of time.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        if now.since(self.ticked_at) > HEARTBEAT {
            // The watchdog itself was delayed, so the silence seen is its own and not the provers'.
            self.provers.values_mut().for_each(|prover| prover.heard_at = now);
        }
        self.ticked_at = now;
        let silent: Vec<ProverId> = self
            .provers
            .iter()
            .filter(|(_, p)| now.since(p.heard_at) >= DEAD_AFTER)
            .map(|(id, _)| id.clone())
            .collect();
        for id in silent {
            let Some(prover) = self.provers.remove(&id) else {
                continue;
            };
            let end = End::Silent(now.since(prover.heard_at));
            effects.extend(self.lost(prover.lease, end, now));
        }
        effects.extend(self.overdue(now));
        effects.extend(self.slow(now));
        effects.extend(self.past_deadline(now));
        effects.extend(self.stop_recorded(now));
        // An attempt taken just before an end appears in a lease only afterwards.
        let ended_lately = self
            .ends
            .back()
            .is_some_and(|(_, at)| now.since(*at) < REPEAT_AFTER);
        let sweeps = now.since(self.swept_at) >= REPEAT_AFTER;
        if sweeps || ended_lately {
            effects.extend(self.stop_ended(now));
        }
        if sweeps {
            self.swept_at = now;
            effects.extend(self.stop_losers(now));
        }
        self.forget(now);
        effects
    }

    /// Returns effects for attempts over their timeout: a report, in case the prover hangs, and a stop order.
    fn overdue(&mut self, now: Timestamp) -> Vec<Effect> {
        let over: Vec<(ProverId, Held)> = self
            .running(now)
            .filter(|(_, held, ran)| *ran >= Duration::from_millis(held.header.timeout_ms) + TIMEOUT_GRACE)
            .map(|(prover, held, _)| (prover.clone(), held.clone()))
            .collect();
        let mut effects = Vec::new();
        for (prover, held) in over {
            if let Some(stop) = self.order(&prover, &held, Reason::TimedOut, now) {
                // Report first: an adapter obeying the order would only report the attempt as stopped.
                effects.push(Effect::Report {
                    prover,
                    held: Box::new(held),
                    end: End::Hung,
                });
                effects.push(stop);
            }
        }
        effects
    }

    fn slow(&mut self, now: Timestamp) -> Vec<Effect> {
        let slow: Vec<(ProverId, Held)> = self
            .running(now)
            .filter(|(_, held, ran)| held.header.hedge_after_ms.is_some_and(|after| *ran >= Duration::from_millis(after)))
            // A hedge is not hedged again, because the threshold asks for two copies.
            .filter(|(_, held, _)| held.header.hedge_of.is_none())
            .filter(|(_, held, _)| !self.hedged.contains(&held.header.attempt_id()))
            .map(|(prover, held, _)| (prover.clone(), held.clone()))
            .collect();
        self.hedged
            .extend(slow.iter().map(|(_, held)| held.header.attempt_id()));
        slow.into_iter()
            .map(|(prover, held)| Effect::Hedge {
                prover,
                held: Box::new(held),
            })
            .collect()
    }

    fn past_deadline(&mut self, now: Timestamp) -> Vec<Effect> {
        let is_late =
            |held: &Held| !held.header.context.amends && held.header.give_up_at.is_some_and(|at| at <= now);
        let has_lost = |held: &Held| {
            let winner = self.won.get(&held.header.id);
            winner.is_some_and(|(winner, _)| *winner != held.header.attempt)
        };
        let mut late: BTreeMap<Late, BTreeSet<AttemptKey>> = BTreeMap::new();
        for (prover, held) in self.held() {
            if is_late(held) && !self.is_over(prover, held) && !has_lost(held) {
                let (header, context) = (&held.header, &held.header.context);
                let (stage, deadline_at) = (&header.id.stage, context.deadline_at);
                let block = (
                    stage.pipeline.clone(),
                    stage.block,
                    context.announcement,
                    deadline_at,
                );
                let key = AttemptKey::of(&header.zkvm, &header.attempt_id());
                late.entry(block).or_default().insert(key);
            }
        }
        let mut effects = Vec::new();
        for ((pipeline, block, announcement, deadline_at), attempts) in &late {
            if attempts.iter().any(|attempt| !self.late.contains(attempt)) {
                let reason = EndReason::late(*deadline_at, now);
                let ended = BlockEnded::of_one(pipeline.clone(), *block, *announcement, reason);
                effects.push(Effect::Late(attempts.iter().cloned().collect(), Box::new(ended)));
            }
        }
        self.late = late.into_values().flatten().collect();
        effects.extend(self.stop_where(now, |held| is_late(held).then_some(Reason::Late)));
        effects
    }

    fn held(&self) -> impl Iterator<Item = (&ProverId, &Held)> {
        let provers = self.provers.iter().filter(|(_, p)| p.lease.role == Role::Prover);
        provers.flat_map(|(id, p)| p.lease.held.iter().map(move |held| (id, held)))
    }

    fn is_over(&self, prover: &ProverId, held: &Held) -> bool {
        // Usually there is nothing to find, so the key is built only if there may be.
        !self.over.is_empty()
            && self
                .over
                .contains_key(&(prover.clone(), held.header.attempt_id()))
    }

    /// Returns the running attempts, with the time they have been running.
    fn running(&self, now: Timestamp) -> impl Iterator<Item = (&ProverId, &Held, Duration)> {
        self.held()
            .filter(|(id, held)| !self.is_over(id, held))
            .filter_map(move |(id, held)| {
                let since_beat = now.since(self.provers.get(id)?.heard_at);
                Some((id, held, Duration::from_millis(held.running_ms?) + since_beat))
            })
    }

    /// Returns an order to stop an attempt, unless one was given within `REPEAT_AFTER`.
    fn order(&mut self, prover: &ProverId, held: &Held, reason: Reason, now: Timestamp) -> Option<Effect> {
        let attempt = held.header.attempt_id();
        let key = (prover.clone(), attempt.clone());
        if self
            .ordered
            .get(&key)
            .is_some_and(|at| now.since(*at) < REPEAT_AFTER)
        {
            return None;
        }
        self.ordered.insert(key, now);
        Some(Effect::Stop {
            prover: prover.clone(),
            attempt,
            reason,
        })
    }

    /// Forgets state about attempts in no lease.
    fn forget(&mut self, now: Timestamp) {
        self.forget_superseded(now);
        let held: HashSet<AttemptId> = self.held().map(|(_, held)| held.header.attempt_id()).collect();
        self.hedged.retain(|attempt| held.contains(attempt));
        self.ordered.retain(|(_, attempt), _| held.contains(attempt));
        self.over
            .retain(|(_, attempt), at| now.since(*at) < TOLD_AFTER || held.contains(attempt));
    }

    /// Returns the number of live provers and verifiers.
    pub fn alive(&self) -> usize {
        self.provers.len()
    }

    /// Returns whether TASKS and CHECKS should be compared with the leases now.
    pub fn is_look_due(&mut self, now: Timestamp) -> bool {
        let somebody_is_late = self.late(now).next().is_some();
        self.looks.is_due(somebody_is_late, now)
    }

    /// Compares the attempts in TASKS, or in CHECKS for verifiers, with the leases.
    pub fn look(&mut self, role: Role, present: Vec<AttemptKey>, now: Timestamp) -> Vec<Unheld> {
        let of_role = self.provers.values().filter(|p| p.lease.role == role);
        let held = of_role.flat_map(|p| &p.lease.held);
        let held = held
            .map(|h| AttemptKey::of(&h.header.zkvm, &h.header.attempt_id()))
            .collect();
        let late = self.late(now).filter(|p| p.lease.role == role);
        let late = late.map(|p| p.lease.zkvm.clone()).collect();
        self.looks.look(role, present, &held, &late, now)
    }

    /// Handles a suspect found not delivered yet.
    pub fn waits(&mut self, role: Role, key: &AttemptKey) {
        self.looks.waits(role, key);
    }

    fn late(&self, now: Timestamp) -> impl Iterator<Item = &Prover> {
        let provers = self.provers.values();
        provers.filter(move |p| now.since(p.heard_at) >= LATE_AFTER)
    }

    /// Returns the pipelines with tasks held by provers.
    pub fn pipelines(&self) -> HashSet<PipelineId> {
        self.held()
            .map(|(_, held)| held.header.id.stage.pipeline.clone())
            .collect()
    }

    /// Returns effects for the deliveries of a lost process.
    fn lost(&mut self, lease: Lease, end: End, now: Timestamp) -> Vec<Effect> {
        let Lease {
            prover,
            zkvm,
            role,
            held,
            state,
            slots,
            ..
        } = lease;
        let left = state == ProverState::Draining && held.is_empty();
        if role == Role::Prover {
            self.looks.fell(prover.clone(), zkvm.clone(), end, now);
        }
        let lost = Effect::Announce(Happening::ProverLost {
            prover: prover.clone(),
            zkvm,
            role,
            held: u32::try_from(held.len()).unwrap_or(u32::MAX),
        });
        // While no watchdog led, the broker's ack wait may have given the delivery to another prover.
        let elsewhere = |lost: &Held| {
            self.held().any(|(other, held)| {
                let same = held.header.context.claim() == lost.header.context.claim();
                *other != prover && same && held.header.attempt_id() == lost.header.attempt_id()
            })
        };
        // With a free slot, a waiting attempt begins at once, too late for this lease to show.
        let running = held.iter().filter(|held| held.running_ms.is_some()).count();
        let mut free = (slots as usize).saturating_sub(running);
        let one = |held: Held| {
            let began = held.running_ms.is_some() || free > 0;
            if held.running_ms.is_none() {
                free = free.saturating_sub(1);
            }
            if role == Role::Prover && began {
                let (prover, held) = (prover.clone(), Box::new(held));
                return Effect::Report { prover, held, end };
            }
            // The delivery never ran, so it does not count as an attempt.
            Effect::GiveBack(Box::new(held))
        };
        let told = (!left).then_some(lost);
        let ended: Vec<Effect> = held
            .into_iter()
            .filter(|held| !elsewhere(held))
            .map(one)
            .collect();
        told.into_iter().chain(ended).collect()
    }
}
