//! Holds the queue of a zkVM whose attempts fail without a success between them.
//!
//! | queue | event | queue |
//! |---|---|---|
//! | open | a success | open, the streak of failures is over |
//! | open | [`FAILURES`] failures in a row, of more than one task | held |
//! | open | [`ALONE`] failures in a row of one task | held, and yet every other task goes on |
//! | held | the next probe is due | held, one task is released |
//! | held | a failure | held, the distance to the next probe doubles |
//! | held for one task | a failure of another task | held, and from now on every task waits |
//! | held | a success, or a probe that outlives every failure of the streak by far | open |
//! | held | [`IDLE`] without work: no stage waits, no attempt is outstanding, no probe awaits its verdict | open |
//!
//! The failures of one task alone hold back nothing: that task waits for its own pause, and others overtake it.
//! The queue is shown as held all the same, because only a person can help if the task is the only one.
//! While a queue is held, failed tasks wait behind tasks not tried yet, so that no poisonous
//! task is the only probe. A death is no failure here, because it says nothing of the prover's surroundings.
//! A completed attempt whose proof is still to be verified is neither: only the verdict tells.

use push0_domain::{
    Timestamp,
    message::{HeldQueue, Opened},
    retry::Retry,
    subject::AttemptKey,
};
use std::time::Duration;

/// How many failures in a row hold a queue.
const FAILURES: u32 = 3;
/// How many failures in a row of a single task are shown as a held queue.
const ALONE: u32 = 5;
/// How many times longer than the longest failure a probe must run to count as a success, and the least time.
/// Proofs may take hours, while an attempt without its dependency fails at once.
const OUTLIVES: u32 = 4;
const OUTLIVES_MIN: Duration = Duration::from_secs(5);
/// How long a held queue stays held without work. Its blocks were cancelled or given up then, so no probe will ever
/// succeed. A failed attempt is followed by the next one within moments, unless its collector starts over.
const IDLE: Duration = Duration::from_secs(60);
/// Longest error kept, in bytes.
const ERROR_MAX: usize = 512;

/// The pauses between the probes of a held queue.
const PROBES: Retry = Retry {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(10),
};

/// A change of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The queue is held from now on, for one task or for several.
    Held(HeldQueue),
    /// The queue is open again, for the second reason. It was held for the first one.
    Opened(HeldQueue, Opened),
}

/// The queue of one zkVM: open, or held.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    streak: Option<Streak>,
    probing: Option<Probing>,
}

/// The failures since the last success.
#[derive(Debug)]
struct Streak {
    held: HeldQueue,
    longest: Duration,
}

/// The probes of a held queue.
#[derive(Debug)]
struct Probing {
    sent: u32,
    next_at: Timestamp,
    out: Option<Probe>,
    /// Since when the zkVM has no work.
    idle_since: Option<Timestamp>,
}

/// A released task of a held queue.
#[derive(Debug)]
struct Probe {
    key: AttemptKey,
    at: Timestamp,
    /// Whether the attempt was completed and only its verdict is awaited.
    is_completed: bool,
}

impl Hold {
    /// Restores a hold that an earlier dispatcher stored.
    pub(crate) fn recall(&mut self, held: HeldQueue, now: Timestamp) {
        self.streak = Some(Streak {
            held,
            longest: Duration::ZERO,
        });
        self.probing = Some(Probing::new(now));
    }

    /// Handles a failed attempt that ran for `ran`, as far as known.
    pub(crate) fn failed(
        &mut self,
        key: &AttemptKey,
        ran: Duration,
        error: &str,
        now: Timestamp,
    ) -> Option<Turn> {
        let streak = self.streak.get_or_insert_with(|| Streak {
            held: HeldQueue {
                since: now,
                failures: 0,
                error: String::new(),
                task: Some(key.clone()),
            },
            longest: Duration::ZERO,
        });
        streak.held.failures = streak.held.failures.saturating_add(1);
        streak.held.error = error.chars().take(ERROR_MAX).collect();
        let is_of_many = streak.held.task.is_none();
        let is_alone = streak
            .held
            .task
            .as_ref()
            .is_some_and(|task| is_same_task(task, key));
        streak.held.task = is_alone.then(|| key.clone());
        streak.longest = streak.longest.max(ran);
        if let Some(probing) = self.probing.as_mut().filter(|_| is_alone || is_of_many) {
            probing.ended(key);
            probing.next_at = now.plus(PROBES.pause(probing.sent, key));
            return None;
        }
        // Either the queue is open, or it is held for another task alone.
        if self.probing.is_none() && streak.held.failures < if is_alone { ALONE } else { FAILURES } {
            return None;
        }
        self.probing = Some(Probing::new(now));
        Some(Turn::Held(streak.held.clone()))
    }

    /// Handles a completed attempt.
    pub(crate) fn succeeded(&mut self) -> Option<Turn> {
        self.open(Opened::Succeeded)
    }

    fn open(&mut self, why: Opened) -> Option<Turn> {
        let streak = self.streak.take()?;
        self.probing.take()?;
        Some(Turn::Opened(streak.held, why))
    }

    /// Handles the end of an attempt without a result.
    pub(crate) fn ended(&mut self, key: &AttemptKey) {
        if let Some(probing) = &mut self.probing {
            probing.ended(key);
        }
    }

    /// Handles a completed attempt whose proof is still to be verified.
    pub(crate) fn completed(&mut self, key: &AttemptKey) {
        let probe = self.probing.as_mut().and_then(|probing| probing.out.as_mut());
        if let Some(probe) = probe.filter(|probe| probe.key == *key) {
            probe.is_completed = true;
        }
    }

    /// Forgets a probe that is no longer outstanding and awaits no verdict: its end was missed.
    pub(crate) fn reconcile(&mut self, is_outstanding: impl Fn(&AttemptKey) -> bool) {
        if let Some(probing) = &mut self.probing {
            let is_missed = |probe: &mut Probe| !probe.is_completed && !is_outstanding(&probe.key);
            probing.out.take_if(is_missed);
        }
    }

    /// Opens the queue if its probe has outlived every failure by far, or if its zkVM has had no work for long.
    pub(crate) fn tick(&mut self, now: Timestamp, has_work: impl FnOnce() -> bool) -> Option<Turn> {
        let longest = self.streak.as_ref()?.longest;
        let probing = self.probing.as_mut()?;
        if let Some(probe) = &probing.out {
            probing.idle_since = None;
            let outlives = longest.saturating_mul(OUTLIVES).max(OUTLIVES_MIN);
            let is_outlived = now.since(probe.at) >= outlives;
            return is_outlived.then(|| self.open(Opened::Outlived)).flatten();
        }
        if has_work() {
            probing.idle_since = None;
            return None;
        }
        let idle_since = *probing.idle_since.get_or_insert(now);
        let is_over = now.since(idle_since) >= IDLE;
        is_over.then(|| self.open(Opened::NoWork)).flatten()
    }

    /// Returns whether the tasks of the queue wait for probes.
    pub(crate) fn is_held(&self) -> bool {
        let is_of_many = |streak: &Streak| streak.held.task.is_none();
        self.probing.is_some() && self.streak.as_ref().is_some_and(is_of_many)
    }

    /// Returns whether a task may be released now.
    pub(crate) fn allows(&self, now: Timestamp) -> bool {
        let Some(probing) = self.probing.as_ref().filter(|_| self.is_held()) else {
            return true;
        };
        probing.out.is_none() && probing.next_at <= now
    }

    /// Handles the release of a task. From a held queue, the task is a probe.
    pub(crate) fn released(&mut self, key: &AttemptKey, now: Timestamp) {
        if let Some(probing) = &mut self.probing {
            probing.sent = probing.sent.saturating_add(1);
            probing.out = Some(Probe {
                key: key.clone(),
                at: now,
                is_completed: false,
            });
        }
    }

    /// Returns why the queue is held, or `None` if it is open.
    pub(crate) fn reason(&self) -> Option<&HeldQueue> {
        self.probing.as_ref()?;
        self.streak.as_ref().map(|streak| &streak.held)
    }
}

impl Probing {
    fn new(now: Timestamp) -> Self {
        Self {
            sent: 0,
            next_at: now.plus(PROBES.first),
            out: None,
            idle_since: None,
        }
    }

    fn ended(&mut self, key: &AttemptKey) {
        self.out.take_if(|probe| probe.key == *key);
    }
}

fn is_same_task(one: &AttemptKey, other: &AttemptKey) -> bool {
    (&one.pipeline, one.block, &one.proof_type, &one.stage, one.index)
        == (
            &other.pipeline,
            other.block,
            &other.proof_type,
            &other.stage,
            other.index,
        )
}
