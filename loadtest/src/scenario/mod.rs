//! The scenarios, one file each.

mod backlog;
mod baseline;
mod brokers;
mod burst;
mod chaos;
mod exec;
mod fanout;
mod floor;
mod gantt;
mod hole;
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
mod throughput;
mod timeline;

use crate::record::Context;
pub(crate) use brokers::Fault;

/// What can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// All of them, one after another.
    All,
    /// What bare JetStream takes for the same hops.
    Floor,
    /// What orchestration adds to a block, against the floor.
    Overhead,
    /// How soon a prover starts what is ready, against a bare hop.
    Ready,
    /// How many empty blocks a second, against the floor.
    Throughput,
    /// How busy many provers are kept.
    Scaling,
    /// How quickly a queue that was there at once is worked off.
    Burst,
    /// How fast a chain that is there already is caught up with, over how many connections.
    Ingest,
    /// What the services take.
    Memory,
    /// What the services take, and how soon a standby serves, while a million blocks wait.
    Backlog,
    /// What results take that wait behind a block that hangs, and how soon a standby has taken over.
    Hole,
    /// Whether a more urgent block ever waits for a less urgent one.
    Priority,
    /// The demonstration's pipeline of steps, joined.
    Multistep,
    /// What a task costs in a wide block, against a narrow one.
    Fanout,
    /// How many proofs are ready in time, with and without a second copy.
    Realtime,
    /// How long until a killed prover's work, or a killed service, goes on.
    Recovery,
    /// A picture of a recovery.
    Timeline,
    /// A picture of a block.
    Gantt,
    /// What a task costs whose prover is a program, beyond starting the program.
    Exec,
    /// Whether anything grows under a steady load.
    Soak,
    /// Whether what ships stays small, and what it costs beside the quick deployment.
    Shipped,
    /// push0 beside queues that one would write in its place.
    Baseline,
    /// Everything is killed, frozen and restarted at random; nothing may be lost.
    Chaos,
    /// One of three brokers is frozen, killed, or cut off; emission may pause, and nothing may be lost.
    Brokers,
    /// A hop of the floor: started by the other scenarios.
    #[value(hide = true)]
    Relay,
    /// A worker of a baseline: started by it.
    #[value(hide = true)]
    Worker,
}

impl Scenario {
    /// Whether it is a process of another scenario.
    pub(crate) fn is_part(self) -> bool {
        matches!(self, Self::Relay | Self::Worker)
    }

    /// The scenarios that this one stands for.
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
                Self::Baseline,
                Self::Chaos,
                Self::Brokers,
            ],
            one => vec![one],
        }
    }

    /// Runs it.
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
            Self::Baseline => baseline::run(context).await,
            Self::Chaos => chaos::run(context).await,
            Self::Brokers => brokers::run(context).await,
        }
    }
}
