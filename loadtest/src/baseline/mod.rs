//! Simple queues as an alternative to push0, to show the benefit of its design.
//!
//! These queues hand blocks to workers and have no other feature: no order of the output, no stages, no
//! verification, no budget of attempts. The workers take as long as the mock prover, by the same timer. The
//! work of a dead worker comes back when its lease ends, after five seconds.

mod fifo;
mod table;
mod worker;

use crate::stand::{self, Arrivals, Done, Stand};
use fifo::Fifo;
use push0_harness::{Process, ProcessBuilder};
use std::ops::Range;
use table::Table;
use worker::PATIENCE;
pub(crate) use worker::Worker;

/// Kind of queue to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// push0 itself, for comparison.
    Push0,
    /// A JetStream work queue, first in, first out.
    Fifo,
    /// A PostgreSQL table, `FOR UPDATE SKIP LOCKED`, polled every 100 ms.
    PostgresPoll,
    /// A PostgreSQL table as above, with LISTEN and NOTIFY.
    PostgresNotify,
}

impl Kind {
    /// All kinds, in the order of measurement.
    pub(crate) const ALL: [Self; 4] = [Self::Push0, Self::Fifo, Self::PostgresPoll, Self::PostgresNotify];

    /// Returns the name used in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Push0 => "push0",
            Self::Fifo => "fifo",
            Self::PostgresPoll => "postgres_poll",
            Self::PostgresNotify => "postgres_notify",
        }
    }
}

/// A running queue and its workers.
pub(crate) struct Queue {
    kind: Kind,
    // Declared before the servers, so that workers end first.
    workers: Vec<Process>,
    service: Service,
    next: u64,
}

enum Service {
    Push0(Box<Stand>),
    Fifo(Fifo),
    Table(Table),
}

impl Queue {
    /// Starts a queue; fails if required software is not installed.
    pub(crate) async fn start(kind: Kind, workers: &[Worker]) -> anyhow::Result<Self> {
        let service = match kind {
            Kind::Push0 => Service::Push0(Box::new(push0(workers).await?)),
            Kind::Fifo => Service::Fifo(Fifo::start().await?),
            Kind::PostgresPoll => Service::Table(Table::start(false).await?),
            Kind::PostgresNotify => Service::Table(Table::start(true).await?),
        };
        let mut queue = Self {
            kind,
            workers: Vec::new(),
            service,
            next: 1,
        };
        if kind != Kind::Push0 {
            workers.iter().for_each(|worker| queue.add(worker));
        }
        let slots: u32 = workers.iter().map(|worker| worker.slots).sum();
        if slots > 0 {
            // All slots get work three times over, so every worker has worked before the measurement.
            let numbers = queue.known(u64::from(slots) * 3).await?;
            queue.run(numbers, Arrivals::AtOnce).await?;
        }
        Ok(queue)
    }

    /// Starts another worker.
    pub(crate) fn add(&mut self, worker: &Worker) {
        let url = match &mut self.service {
            Service::Push0(stand) => {
                stand.deployment.start_service(prover(worker));
                return;
            }
            Service::Fifo(fifo) => fifo.url(),
            Service::Table(table) => table.url(),
        };
        let process = Process::program("push0-loadtest")
            .label(&worker.id)
            .arg("worker")
            .arg(format!("--queue={}", self.kind.name().replace('_', "-")))
            .arg(format!("--url={url}"))
            .arg(format!("--id={}", worker.id))
            .arg(format!("--slots={}", worker.slots))
            .arg(format!("--time-us={}", worker.time.as_micros()));
        self.workers.push(process.start());
    }

    /// Kills a worker with SIGKILL.
    pub(crate) fn kill(&self, id: &str) {
        if let Service::Push0(stand) = &self.service {
            return stand.deployment.service(id).kill();
        }
        if let Some(worker) = self.workers.iter().find(|worker| worker.label() == id) {
            worker.kill();
        }
    }

    /// Returns the numbers of the next `count` blocks; push0 also stores their facts.
    pub(crate) async fn known(&mut self, count: u64) -> anyhow::Result<Range<u64>> {
        if let Service::Push0(stand) = &mut self.service {
            return stand.known(count).await;
        }
        self.next += count;
        Ok(self.next - count..self.next)
    }

    /// Publishes blocks as scheduled.
    pub(crate) async fn publish(&self, numbers: &[u64], arrivals: Arrivals) -> anyhow::Result<()> {
        match &self.service {
            Service::Push0(stand) => stand.publish(numbers, arrivals).await,
            Service::Fifo(fifo) => fifo.publish(numbers, arrivals).await,
            Service::Table(table) => table.publish(numbers, arrivals).await,
        }
    }

    /// Returns the milestones of these blocks, as soon as all of them are done.
    pub(crate) async fn done(&self, numbers: Range<u64>) -> anyhow::Result<Vec<Done>> {
        match &self.service {
            Service::Push0(stand) => {
                let records = stand.emitted(numbers, PATIENCE).await?;
                records.iter().map(Done::of).collect()
            }
            Service::Fifo(fifo) => fifo.done(numbers).await,
            Service::Table(table) => table.done(numbers).await,
        }
    }

    /// Publishes these blocks and waits until they are done.
    pub(crate) async fn run(&self, numbers: Range<u64>, arrivals: Arrivals) -> anyhow::Result<Vec<Done>> {
        let listed: Vec<u64> = numbers.clone().collect();
        self.publish(&listed, arrivals).await?;
        self.done(numbers).await
    }
}

async fn push0(workers: &[Worker]) -> anyhow::Result<Stand> {
    let builder = workers.iter().fold(stand::services(), |builder, worker| {
        builder.service(prover(worker))
    });
    Stand::start(builder, &stand::single(false)).await
}

fn prover(worker: &Worker) -> ProcessBuilder {
    stand::prover(&worker.id, worker.slots, worker.time).env("PUSH0_MOCK__STAMP", true)
}

/// Runs a worker's process; returns only with an error.
pub(crate) async fn work(kind: Kind, url: &str, worker: Worker) -> anyhow::Result<()> {
    match kind {
        Kind::Push0 => anyhow::bail!("push0 has provers"),
        Kind::Fifo => fifo::work(url, worker).await,
        Kind::PostgresPoll => table::work(url, worker, false).await,
        Kind::PostgresNotify => table::work(url, worker, true).await,
    }
}
