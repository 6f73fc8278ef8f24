//! Time until another prover works on the tasks of a killed prover, read from heartbeats.
//!
//! A prover's heartbeat soon shows each new attempt with its running time. So the start of the next attempt
//! is known within some milliseconds, and the time of the kill exactly. Attempts that end before a heartbeat
//! shows them (100 ms) are not counted.

use crate::stats::Times;
use push0_bus::{Bus, Signals};
use push0_domain::{
    TaskId,
    message::{Lease, Role},
    subject::{self, Kind},
};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// A task that does not start again within this time was finished before the kill.
const LONGEST: Duration = Duration::from_secs(30);

pub(crate) struct Monitor {
    signals: tokio::sync::Mutex<Signals>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Running attempts of each prover in its last heartbeat.
    runs: HashMap<String, Vec<(TaskId, u32)>>,
    /// Tasks of killed prover: prover, attempt, and time of the kill.
    orphans: HashMap<TaskId, (String, u32, Instant)>,
    times: Times,
}

impl Monitor {
    pub(crate) async fn listen(bus: &Bus) -> anyhow::Result<Self> {
        let signals = bus.listen([subject::all(Kind::Lease)]).await?;
        Ok(Self {
            signals: tokio::sync::Mutex::new(signals),
            seen: Mutex::default(),
        })
    }

    /// Listens to heartbeats; returns only with an error.
    pub(crate) async fn follow(&self) -> anyhow::Error {
        let mut signals = self.signals.lock().await;
        loop {
            match signals.next().await {
                Ok(signal) => {
                    if let Ok(lease) = signal.body::<Lease>() {
                        self.seen().hear(&lease);
                    }
                }
                Err(error) => return error.into(),
            }
        }
    }

    /// Notes the kill of a prover now, or a freeze for longer than the silence that counts as death.
    pub(crate) fn silenced(&self, prover: &str) {
        let mut seen = self.seen();
        let now = Instant::now();
        for (task, attempt) in seen.runs.remove(prover).unwrap_or_default() {
            seen.orphans.insert(task, (prover.to_owned(), attempt, now));
        }
    }

    /// Returns the waiting times of orphaned tasks that started again.
    pub(crate) fn reassigned(&self) -> Times {
        self.seen().times.clone()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn hear(&mut self, lease: &Lease) {
        if lease.role != Role::Prover {
            return;
        }
        let now = Instant::now();
        let mut runs = Vec::new();
        for held in &lease.held {
            let Some(running) = held.running_ms else { continue };
            let task = &held.header.id;
            runs.push((task.clone(), held.header.attempt));
            let began = now - Duration::from_millis(running);
            let Some((prover, attempt, killed_at)) = self.orphans.get(task) else {
                continue;
            };
            let other = *prover != lease.prover.as_str() || held.header.attempt > *attempt;
            if other && began > *killed_at {
                let waited = began.duration_since(*killed_at);
                if waited < LONGEST {
                    self.times
                        .add(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX));
                }
                self.orphans.remove(task);
            }
        }
        self.runs.insert(lease.prover.to_string(), runs);
    }
}
