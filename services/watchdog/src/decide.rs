//! The watchdog's decisions.
//!
//! | observation | action of the watchdog |
//! |---|---|
//! | a prover silent for three beats | suspected: a second copy of each attempt that it runs is asked for, each attempt not begun goes to another prover |
//! | a verifier silent for three beats | its checks go to another verifier |
//! | a suspected prover is heard | its attempts go on |
//! | a suspected prover silent for long, or without a connection for two seconds | dead: each attempt it ran is reported as died |
//! | a newer process of the name, and the older one is silent or without a connection | the older one is dead |
//! | two processes of one name, both heard | said once; both go on |
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

mod copies;
mod fleet;
mod superseded;

pub use crate::silence::{CONDEMN_AFTER, End, GONE_FOR, HEARTBEAT, SUSPECT_AFTER};

use crate::{
    process::Process,
    unheld::{Looks, Seat},
    won::Won,
};
use push0_domain::{
    Announcement, BlockRef, Participant, PipelineId, Timestamp,
    message::{BlockEnded, EndReason, Happening, Held, OVERDUE, Role},
    output::Output,
    subject::AttemptKey,
    task::{AttemptId, TaskId},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

/// How long an adapter may take to end an attempt at its timeout by itself, before the attempt
/// counts as hung.
pub const TIMEOUT_GRACE: Duration = HEARTBEAT.saturating_mul(2);
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
        prover: Participant,
        /// The attempt as last listed.
        held: Box<Held>,
        /// How the attempt ended.
        end: End,
        /// When the prover was last heard.
        heard_at: Timestamp,
    },
    /// Give a delivery of this participant to another process.
    GiveBack(Participant, Role, Box<Held>),
    /// Ask for a second copy of an attempt.
    Hedge {
        /// The prover to avoid.
        prover: Participant,
        /// The attempt to hedge.
        held: Box<Held>,
        /// Why a second copy is wanted.
        because: Because,
    },
    /// Tell the broker to wait longer for a delivery, in place of its prover.
    Extend(Participant, Box<Held>),
    /// Tell a prover to end an attempt.
    Stop {
        /// The prover to tell.
        prover: Participant,
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

impl Effect {
    /// Returns the effect's participant, if there is one.
    pub(crate) fn about(&self) -> Option<Participant> {
        match self {
            Self::Report { prover, .. }
            | Self::GiveBack(prover, ..)
            | Self::Hedge { prover, .. }
            | Self::Extend(prover, _)
            | Self::Stop { prover, .. } => Some(prover.clone()),
            Self::Late(..) | Self::Announce(_) => None,
        }
    }
}

/// Why a second copy of an attempt is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// The attempt is slower than its hedge threshold.
    Slow,
    /// The prover fell silent.
    Silent,
    /// Verifiers fail on its proof, and on no others.
    Doubted,
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
            Self::TimedOut => OVERDUE,
            Self::Won => "another copy was accepted",
            Self::Emitted => "its block was emitted",
            Self::Ended => "its block is no longer wanted",
            Self::Late => "its block cannot be ready by its deadline",
        }
    }
}

/// A block out of time: pipeline, block, its announcement, and deadline.
type Late = (PipelineId, BlockRef, Announcement, Option<Timestamp>);

/// The watchdog's state: the newest heartbeat of every prover and verifier, and recent ends.
#[derive(Debug)]
pub struct Watchdog {
    condemn_after: Duration,
    /// The processes heard lately. Two of them may have the same name.
    processes: BTreeMap<Seat, Process>,
    /// Names of which two living processes were heard.
    twins: BTreeSet<Participant>,
    /// Attempts for which a hedge was requested.
    hedged: HashSet<AttemptId>,
    /// How many copies of a task were asked for because of silent provers, and when the last one.
    copied: BTreeMap<AttemptKey, (usize, Timestamp)>,
    /// Completed attempts possibly still listed by heartbeats, by completion time.
    over: HashMap<(Participant, AttemptId), Timestamp>,
    /// When each attempt was last ordered to stop.
    ordered: HashMap<(Participant, AttemptId), Timestamp>,
    /// Attempts already reported as making their block late.
    late: BTreeSet<AttemptKey>,
    /// The output of each pipeline, and when it was last heard or read.
    outputs: HashMap<PipelineId, (Output, Timestamp)>,
    /// The accepted attempt of tasks with further copies running or in flight, and when it was accepted.
    won: HashMap<TaskId, Won>,
    /// The latest ends of blocks, whose attempts may still be in flight to a prover.
    ends: VecDeque<(BlockEnded, Timestamp)>,
    looks: Looks,
    swept_at: Timestamp,
    ticked_at: Timestamp,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self::new(CONDEMN_AFTER)
    }
}

impl Watchdog {
    /// Creates a watchdog that has heard no prover. A prover counts as dead after a silence of `condemn_after`.
    pub fn new(condemn_after: Duration) -> Self {
        Self {
            condemn_after: condemn_after.max(SUSPECT_AFTER),
            processes: BTreeMap::new(),
            twins: BTreeSet::new(),
            hedged: HashSet::new(),
            copied: BTreeMap::new(),
            over: HashMap::new(),
            ordered: HashMap::new(),
            late: BTreeSet::new(),
            outputs: HashMap::new(),
            won: HashMap::new(),
            ends: VecDeque::new(),
            looks: Looks::default(),
            swept_at: Timestamp::default(),
            ticked_at: Timestamp::default(),
        }
    }

    /// Handles a completed attempt, which needs no stop any more. Its delivery stays with the prover until a
    /// heartbeat no longer lists the attempt.
    pub fn over(&mut self, prover: &Participant, attempt: AttemptId, now: Timestamp) {
        self.over.insert((prover.clone(), attempt), now);
    }

    /// Handles the passing of time.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        let delay = now.since(self.ticked_at);
        if delay > HEARTBEAT {
            // The watchdog itself was delayed, so the silence seen is its own and not the provers'.
            self.processes
                .values_mut()
                .for_each(|process| process.excuse(delay, now));
        }
        self.ticked_at = now;
        let mut effects = self.judge_silence(now);
        effects.extend(self.copies(now));
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
        let over: Vec<(Participant, Held)> = self
            .running_and_heard(now)
            .filter(|(_, held, ran)| *ran >= Duration::from_millis(held.header.timeout_ms) + TIMEOUT_GRACE)
            .map(|(prover, held, _)| (prover.clone(), held.clone()))
            .collect();
        let ordered: Vec<(Participant, Held, Effect)> = over
            .into_iter()
            .filter_map(|(prover, held)| {
                let stop = self.order(&prover, &held, Reason::TimedOut, now)?;
                Some((prover, held, stop))
            })
            .collect();
        if ordered.is_empty() {
            return Vec::new();
        }
        let elsewhere = self.run_elsewhere(ordered.iter().map(|(prover, held, _)| (prover, held)), now);
        let mut effects = Vec::new();
        for ((prover, held, stop), is_run_elsewhere) in ordered.into_iter().zip(elsewhere) {
            // Report first: an adapter obeying the order would only report the attempt as stopped.
            let report = (!is_run_elsewhere).then(|| Effect::Report {
                prover,
                held: Box::new(held),
                end: End::Hung,
                heard_at: now,
            });
            effects.extend(report.into_iter().chain([stop]));
        }
        effects
    }

    /// Returns for each attempt whether another prover that is heard runs the same one, within its timeout: the broker
    /// delivered it again. Reads the leases once, because a hostile lease may list thousands of attempts.
    fn run_elsewhere<'a>(
        &self,
        attempts: impl Iterator<Item = (&'a Participant, &'a Held)>,
        now: Timestamp,
    ) -> Vec<bool> {
        let mut within: HashMap<(&TaskId, u32), Vec<(&Participant, &Held)>> = HashMap::new();
        for (prover, held, ran) in self.running_and_heard(now) {
            if ran < Duration::from_millis(held.header.timeout_ms) {
                let key = (&held.header.id, held.header.attempt);
                within.entry(key).or_default().push((prover, held));
            }
        }
        let is_run_elsewhere = |(prover, held): (&Participant, &Held)| {
            let same = within.get(&(&held.header.id, held.header.attempt));
            same.is_some_and(|same| {
                same.iter()
                    .any(|(other, h)| *other != prover && h.header == held.header)
            })
        };
        attempts.map(is_run_elsewhere).collect()
    }

    fn slow(&mut self, now: Timestamp) -> Vec<Effect> {
        let slow: Vec<(Participant, Held)> = self
            .running_and_heard(now)
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
                because: Because::Slow,
            })
            .collect()
    }

    fn past_deadline(&mut self, now: Timestamp) -> Vec<Effect> {
        let is_late =
            |held: &Held| !held.header.context.amends && held.header.give_up_at.is_some_and(|at| at <= now);
        let has_lost = |held: &Held| {
            let winner = self.won.get(&held.header.id);
            winner.is_some_and(|winner| winner.beats(&held.header.id, &held.header))
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

    fn held(&self) -> impl Iterator<Item = (&Participant, &Held)> {
        let provers = self
            .processes
            .iter()
            .filter(|(_, p)| p.lease.role == Role::Prover);
        provers.flat_map(|((id, _), p)| p.lease.held.iter().map(move |held| (id, held)))
    }

    fn is_over(&self, prover: &Participant, held: &Held) -> bool {
        // Usually there is nothing to find, so the key is built only if there may be.
        !self.over.is_empty()
            && self
                .over
                .contains_key(&(prover.clone(), held.header.attempt_id()))
    }

    /// Returns the running attempts, with the time they have been running. Those of suspected provers are left
    /// out: whether they still run is not known.
    fn running_and_heard(&self, now: Timestamp) -> impl Iterator<Item = (&Participant, &Held, Duration)> {
        let heard = self
            .processes
            .iter()
            .filter(|(_, p)| p.lease.role == Role::Prover && !p.is_suspected());
        heard
            .flat_map(|((id, _), p)| p.lease.held.iter().map(move |held| (id, held, p.heard_at)))
            .filter(|(id, held, _)| !self.is_over(id, held))
            .filter_map(move |(id, held, heard_at)| {
                Some((
                    id,
                    held,
                    Duration::from_millis(held.running_ms?) + now.since(heard_at),
                ))
            })
    }

    /// Returns an order to stop an attempt, unless one was given within `REPEAT_AFTER`.
    fn order(&mut self, prover: &Participant, held: &Held, reason: Reason, now: Timestamp) -> Option<Effect> {
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
        self.forget_copies(now);
        let held: HashSet<AttemptId> = self.held().map(|(_, held)| held.header.attempt_id()).collect();
        self.hedged.retain(|attempt| held.contains(attempt));
        self.ordered.retain(|(_, attempt), _| held.contains(attempt));
        self.over
            .retain(|(_, attempt), at| now.since(*at) < TOLD_AFTER || held.contains(attempt));
    }

    /// Returns the pipelines with tasks held by provers.
    pub fn pipelines(&self) -> BTreeSet<PipelineId> {
        self.held()
            .map(|(_, held)| held.header.id.stage.pipeline.clone())
            .collect()
    }
}
