//! The load test's scenarios, one file each.

mod backlog;
mod baseline;
mod brokers;
mod burst;
mod chaos;
mod exec;
mod fanout;
mod floor;
mod gantt;
mod gateway;
mod hole;
mod hostile;
mod incidents;
mod ingest;
mod memory;
mod multistep;
mod overhead;
mod priority;
mod ready;
mod realtime;
mod recovery;
mod scaling;
mod shipped;
mod soak;
mod stands;
mod throughput;
mod timeline;
mod tracing;

use crate::record::Context;
pub(crate) use brokers::Fault;

/// Scenarios of the load test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// All scenarios, one after another.
    All,
    /// Latency and throughput of bare JetStream over the same hops.
    Floor,
    /// Overhead of orchestration for a block, against the floor.
    Overhead,
    /// Time until a prover starts a ready task, against a bare hop.
    Ready,
    /// Empty blocks a second, against the floor.
    Throughput,
    /// Utilisation of many provers.
    Scaling,
    /// Time to drain a queue that is full from the start.
    Burst,
    /// Speed of catching up with an existing chain, and the connections it takes.
    Ingest,
    /// Memory of the services and the broker.
    Memory,
    /// Memory of the services, and takeover by a standby, while a million blocks wait.
    Backlog,
    /// Memory of the collectors, and takeover by a standby, while results wait behind a block that hangs.
    Hole,
    /// Whether a more urgent block ever waits for a less urgent one.
    Priority,
    /// The demonstration's pipeline of steps, joined.
    Multistep,
    /// Cost of a task in a wide block, against a narrow one.
    Fanout,
    /// Share of proofs ready in time, with and without a second copy.
    Realtime,
    /// Time until work resumes after the kill of a prover or a service.
    Recovery,
    /// A picture of a recovery.
    Timeline,
    /// A picture of a block.
    Gantt,
    /// Cost of a task proved by an external program, beyond starting the program.
    Exec,
    /// Whether any resource grows under a steady load.
    Soak,
    /// Memory growth of the shipped deployment.
    Shipped,
    /// The cost of viewers of the live page, and how soon they see a change.
    Gateway,
    /// Overhead and throughput with accounts, as shipped, and on three brokers, beside the quick deployment.
    Stands,
    /// Cost of traces: all of them kept, beside none.
    Tracing,
    /// push0 beside simple queues that could replace it.
    Baseline,
    /// Kills, freezes and restarts of all processes at random; no block may be lost.
    Chaos,
    /// Faults of one of three brokers (frozen, killed, cut off); emission may pause, no block may be lost.
    Brokers,
    /// Outages, stalls and kills one by one under a steady load; each may cost time, and no block.
    Incidents,
    /// A hostile prover beside an honest pipeline, one attack after another.
    Hostile,
    /// A hop of the floor, started by other scenarios.
    #[value(hide = true)]
    Relay,
    /// A worker of a baseline, started by that scenario.
    #[value(hide = true)]
    Worker,
}

impl Scenario {
    /// Returns whether this is a process of another scenario.
    pub(crate) fn is_part(self) -> bool {
        matches!(self, Self::Relay | Self::Worker)
    }

    /// Returns the scenarios that this value stands for.
    pub(crate) fn expand(self) -> Vec<Self> {
        match self {
            Self::All => vec![
                Self::Floor,
                Self::Overhead,
                Self::Ready,
                Self::Throughput,
                Self::Scaling,
                Self::Burst,
                Self::Ingest,
                Self::Memory,
                Self::Backlog,
                Self::Hole,
                Self::Priority,
                Self::Multistep,
                Self::Fanout,
                Self::Realtime,
                Self::Recovery,
                Self::Timeline,
                Self::Gantt,
                Self::Exec,
                Self::Soak,
                Self::Shipped,
                Self::Stands,
                Self::Gateway,
                Self::Tracing,
                Self::Baseline,
                Self::Chaos,
                Self::Incidents,
                Self::Brokers,
                Self::Hostile,
            ],
            one => vec![one],
        }
    }

    /// Runs the scenario and publishes its results.
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::All | Self::Relay | Self::Worker => Ok(()),
            Self::Floor => floor::run(context).await,
            Self::Overhead => overhead::run(context).await,
            Self::Ready => ready::run(context).await,
            Self::Throughput => throughput::run(context).await,
            Self::Scaling => scaling::run(context).await,
            Self::Burst => burst::run(context).await,
            Self::Ingest => ingest::run(context).await,
            Self::Memory => memory::run(context).await,
            Self::Backlog => backlog::run(context).await,
            Self::Hole => hole::run(context).await,
            Self::Hostile => hostile::run(context).await,
            Self::Priority => priority::run(context).await,
            Self::Multistep => multistep::run(context).await,
            Self::Fanout => fanout::run(context).await,
            Self::Realtime => realtime::run(context).await,
            Self::Recovery => recovery::run(context).await,
            Self::Timeline => timeline::run(context).await,
            Self::Gantt => gantt::run(context).await,
            Self::Exec => exec::run(context).await,
            Self::Soak => soak::run(context).await,
            Self::Shipped => shipped::run(context).await,
            Self::Stands => stands::run(context).await,
            Self::Gateway => gateway::run(context).await,
            Self::Tracing => tracing::run(context).await,
            Self::Baseline => baseline::run(context).await,
            Self::Chaos => chaos::run(context).await,
            Self::Brokers => brokers::run(context).await,
            Self::Incidents => incidents::run(context).await,
        }
    }
}
