//! The scenarios, one file each.

mod burst;
mod chaos;
mod overhead;
mod scaling;
mod throughput;

use crate::record::Context;

/// What can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// All of them, one after another.
    All,
    /// What orchestration adds to a block, against the floor.
    Overhead,
    /// How many empty blocks a second, against the floor.
    Throughput,
    /// How busy many provers are kept.
    Scaling,
    /// How quickly a queue that was there at once is worked off.
    Burst,
    /// Everything is killed, frozen and restarted at random; nothing may be lost.
    Chaos,
    /// A hop of the floor: started by the other scenarios.
    #[value(hide = true)]
    Relay,
}

impl Scenario {
    /// The scenarios that this one stands for.
    pub(crate) fn expand(self) -> Vec<Self> {
        match self {
            Self::All => vec![
                Self::Overhead,
                Self::Throughput,
                Self::Scaling,
                Self::Burst,
                Self::Chaos,
            ],
            one => vec![one],
        }
    }

    /// Runs it.
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::All | Self::Relay => Ok(()),
            Self::Overhead => overhead::run(context).await,
            Self::Throughput => throughput::run(context).await,
            Self::Scaling => scaling::run(context).await,
            Self::Burst => burst::run(context).await,
            Self::Chaos => chaos::run(context).await,
        }
    }
}
