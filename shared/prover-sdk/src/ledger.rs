//! Deliveries held by this process: written by the attempts, read by the heartbeat thread.

use crate::{
    Ahead, Progress, ProverConfig,
    pace::{Pace, Phase},
};
use push0_bus::Ack;
use push0_domain::{
    message::{Held, ProverState, TaskHeader},
    task::AttemptId,
    trace::TraceContext,
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Deliveries held by this process, and whether the process takes more.
pub(crate) struct Ledger {
    config: ProverConfig,
    book: Mutex<Book>,
    /// Wakes the heartbeat thread when this process stops or resumes taking work.
    pub(crate) turned: Notify,
    /// Wakes the loop that takes work.
    pub(crate) freed: Notify,
}

struct Book {
    state: ProverState,
    quarantined_until: Option<Instant>,
    pace: Pace,
    next: u64,
    entries: BTreeMap<u64, Entry>,
}

struct Entry {
    header: TaskHeader,
    sequence: u64,
    ack: Ack,
    started: Option<Instant>,
    proved: bool,
    progress: Progress,
    stop: CancellationToken,
    /// Why the watchdog asked for the end of the attempt.
    stopped_for: Option<String>,
    trace: TraceContext,
}

/// Handle to one entry, for its attempt to report through. Dropping the handle removes the entry.
pub(crate) struct Place {
    ledger: std::sync::Arc<Ledger>,
    id: u64,
}

/// The part of a lease that changes over time.
pub(crate) struct Snapshot {
    pub(crate) state: ProverState,
    pub(crate) ahead: u32,
    pub(crate) held: Vec<Held>,
    /// The acknowledgements of the deliveries in `held`.
    pub(crate) acks: Vec<Ack>,
}

/// The part of a lease whose change triggers an extra heartbeat.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    state: ProverState,
    ahead: u32,
    /// The entries by id: whether each has begun, and whether it ends soon.
    held: Vec<(u64, bool, bool)>,
}

impl Ledger {
    pub(crate) fn new(config: ProverConfig) -> Self {
        let book = Book {
            state: ProverState::Active,
            quarantined_until: None,
            pace: Pace::default(),
            next: 0,
            entries: BTreeMap::new(),
        };
        Self {
            config,
            book: Mutex::new(book),
            turned: Notify::new(),
            freed: Notify::new(),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether this process takes work now.
    pub(crate) fn takes_work(&self) -> bool {
        let book = self.book();
        let cools_down = book.quarantined_until.is_some_and(|until| until > Instant::now());
        book.state == ProverState::Active && !cools_down
    }

    /// Returns how many more deliveries this process wants, provided that it takes work.
    pub(crate) fn free(&self) -> usize {
        let (now, book) = (Instant::now(), self.book());
        let ending = book.entries.values().filter(|e| self.ends_soon(&book, e, now));
        let wanted = (self.config.slots + self.ahead(&book, now)) as usize + ending.count();
        // Attempts whose results are being stored hold no slot, but their number is bounded too.
        let unproved = book.entries.values().filter(|e| !e.proved).count();
        let room = (4 * wanted + 64).saturating_sub(book.entries.len());
        wanted.saturating_sub(unproved).min(room)
    }

    /// Returns how many tasks are taken ahead, apart from those for attempts that end soon. No task is
    /// taken behind an overdue attempt, because another prover could run the task sooner.
    fn ahead(&self, book: &Book, now: Instant) -> u32 {
        match self.config.ahead {
            Ahead::Never => 0,
            Ahead::Always => self.config.slots,
            Ahead::Auto if book.pace.is_below(self.config.ahead_below) => {
                let entries = book.entries.values();
                let overdue = entries.filter(|e| self.phase(book, e, now) == Some(Phase::Overdue));
                let overdue = u32::try_from(overdue.count()).unwrap_or(u32::MAX);
                self.config.slots.saturating_sub(overdue)
            }
            Ahead::Auto => 0,
        }
    }

    /// Returns whether a task is taken ahead for the slot of this attempt: attempts are long, but this one
    /// is about to end.
    fn ends_soon(&self, book: &Book, entry: &Entry, now: Instant) -> bool {
        self.config.ahead == Ahead::Auto
            && !book.pace.is_below(self.config.ahead_below)
            && self.phase(book, entry, now) == Some(Phase::EndsSoon)
    }

    fn phase(&self, book: &Book, entry: &Entry, now: Instant) -> Option<Phase> {
        let started = entry.started.filter(|_| !entry.proved)?;
        Some(
            book.pace
                .phase(now.duration_since(started), self.config.ahead_below),
        )
    }

    /// Returns when a task taken ahead has waited too long for its slot and should go to another prover.
    /// Only under `ahead = "auto"`; waits for ever otherwise.
    pub(crate) async fn waited_too_long(&self) {
        if self.config.ahead == Ahead::Auto {
            // Three windows: one in which the running attempt was expected to end, one until the attempt is
            // overdue, and one for the dispatcher to learn this.
            tokio::time::sleep(self.config.ahead_below * 3).await;
        } else {
            std::future::pending().await
        }
    }

    pub(crate) fn take(
        self: &std::sync::Arc<Self>,
        header: &TaskHeader,
        (sequence, ack): (u64, &Ack),
        trace: &TraceContext,
    ) -> (Place, CancellationToken, Progress) {
        let (stop, progress) = (CancellationToken::new(), Progress::default());
        let mut book = self.book();
        let id = book.next;
        book.next += 1;
        let entry = Entry {
            header: header.clone(),
            sequence,
            ack: ack.clone(),
            started: None,
            proved: false,
            progress: progress.clone(),
            stop: stop.clone(),
            stopped_for: None,
            trace: trace.clone(),
        };
        book.entries.insert(id, entry);
        (
            Place {
                ledger: self.clone(),
                id,
            },
            stop,
            progress,
        )
    }

    /// Cancels every entry of this attempt. Returns whether there was one.
    pub(crate) fn stop(&self, attempt: &AttemptId, reason: &str) -> bool {
        let mut book = self.book();
        let entries = book.entries.values_mut();
        let mut found = false;
        for entry in entries.filter(|e| e.header.attempt_id() == *attempt) {
            entry.stopped_for.get_or_insert_with(|| reason.to_owned());
            entry.stop.cancel();
            found = true;
        }
        found
    }

    pub(crate) fn stop_all(&self) {
        self.book().entries.values().for_each(|e| e.stop.cancel());
    }

    pub(crate) fn drain(&self) {
        self.book().state = ProverState::Draining;
        self.turned.notify_one();
        self.freed.notify_one();
    }

    pub(crate) fn quarantine(&self, duration: Duration) {
        self.book().quarantined_until = Some(Instant::now() + duration);
        self.turned.notify_one();
        self.freed.notify_one();
    }

    pub(crate) fn snapshot(&self) -> (Snapshot, Told) {
        let now = Instant::now();
        let book = self.book();
        let held = book.entries.values().map(|e| Held {
            header: e.header.clone(),
            sequence: e.sequence,
            running_ms: e.started.map(|s| millis(now.duration_since(s))),
            ends_soon: self.ends_soon(&book, e, now),
            progress_permille: e.progress.permille(),
            trace: e.trace.clone(),
        });
        let snapshot = Snapshot {
            state: book.state(now),
            ahead: self.ahead(&book, now),
            held: held.collect(),
            acks: book.entries.values().map(|e| e.ack.clone()).collect(),
        };
        (snapshot, self.told_of(&book, now))
    }

    /// Returns the part of a current lease whose change triggers an extra heartbeat.
    pub(crate) fn told(&self) -> Told {
        self.told_of(&self.book(), Instant::now())
    }

    fn told_of(&self, book: &Book, now: Instant) -> Told {
        let entries = book.entries.iter();
        Told {
            state: book.state(now),
            ahead: self.ahead(book, now),
            held: entries
                .map(|(id, e)| (*id, e.started.is_some(), self.ends_soon(book, e, now)))
                .collect(),
        }
    }

    /// Returns the end of the current quarantine; `None` without a quarantine.
    pub(crate) fn quarantined_until(&self) -> Option<Instant> {
        self.book()
            .quarantined_until
            .filter(|until| *until > Instant::now())
    }
}

impl Book {
    fn state(&self, now: Instant) -> ProverState {
        let quarantined = self.quarantined_until.is_some_and(|until| until > now);
        if quarantined && self.state == ProverState::Active {
            return ProverState::Quarantined;
        }
        self.state
    }
}

impl Place {
    /// Returns why the watchdog asked for the end of the attempt, if it did.
    pub(crate) fn stopped_for(&self) -> Option<String> {
        let book = self.ledger.book();
        book.entries.get(&self.id).and_then(|e| e.stopped_for.clone())
    }

    pub(crate) fn started(&self) {
        if let Some(entry) = self.ledger.book().entries.get_mut(&self.id) {
            entry.started = Some(Instant::now());
        }
    }

    /// Marks the attempt as not running any more. Its outputs are still to be stored, which may take long and
    /// must not make the attempt look hung.
    pub(crate) fn ended(&self) {
        let mut book = self.ledger.book();
        if let Some(entry) = book.entries.get_mut(&self.id) {
            // The time for reading inputs does not count, and neither does an attempt stopped
            // before it began.
            let ran = entry.started.take().map(|started| started.elapsed());
            ran.into_iter().for_each(|ran| book.pace.took(ran));
        }
    }

    /// Marks the attempt as ended and frees its slot. The result is still to be stored.
    pub(crate) fn proved(&self) {
        self.ended();
        if let Some(entry) = self.ledger.book().entries.get_mut(&self.id) {
            entry.proved = true;
        }
        self.ledger.freed.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.ledger.book().entries.remove(&self.id);
        self.ledger.freed.notify_one();
    }
}

/// Converts a duration to whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
