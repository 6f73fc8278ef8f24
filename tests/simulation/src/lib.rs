//! A simulation of push0: the decisions of all services, driven through faults by a seed.
//!
//! The sessions of dispatcher, collectors and watchdog are the real ones: they decide, and name the operations in their
//! order. A model surrounds them, with these parts:
//!
//! - executors, which translate operations for the simulated broker and may crash between any two
//! - provers and verifiers that fail, lie, hang, freeze and die
//! - a chain that reorganises
//! - the few properties of the broker's streams on which the decisions rest
//!
//! The model of the broker is no model of NATS: behaviour of NATS is tested on a real server.
//!
//! A run has one thread and one source of chance. A seed determines a run, and a failure prints the seed that
//! repeats the run.

mod broker;
mod chain;
mod chance;
mod collector;
mod dispatcher;
mod plan;
mod process;
mod promises;
mod proofs;
mod prover;
mod watchdog;
mod world;

use world::World;

/// Counts of a run that kept all promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Number of simulated events.
    pub steps: u64,
    /// Records of proved blocks.
    pub proved: u64,
    /// Records of dead blocks.
    pub dead: u64,
    /// Records of abandoned blocks.
    pub abandoned: u64,
    /// Records of several blocks, among those above.
    pub ranges: u64,
    /// Steps back of the output after a reorg.
    pub rollbacks: u64,
    /// Records of dead blocks that were later proved.
    pub amended: u64,
    /// Quarantines that began.
    pub quarantines: u64,
    /// Deliveries in no lease that the watchdog passed on.
    pub passed_on: u64,
}

/// A broken promise and the seed that shows it.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Seed with which to repeat the run.
    pub seed: u64,
    /// The id of the promise and a description of the breach.
    pub what: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.what)
    }
}

impl std::error::Error for Broken {}

/// Runs a seed and returns the counts, or the first broken promise.
pub fn run(seed: u64) -> Result<Summary, Broken> {
    let mut world = World::new(seed, false);
    let ended = world.run();
    ended.map_err(|what| Broken { seed, what })?;
    Ok(summary(&world))
}

/// Runs a seed and returns a log of all its events.
pub fn log(seed: u64) -> String {
    let mut world = World::new(seed, true);
    let ended = world.run();
    world.log(format_args!("{ended:?} {:?}", summary(&world)));
    world.take_log()
}

fn summary(world: &World) -> Summary {
    let [proved, dead, abandoned, _] = world.promises.outcomes;
    Summary {
        steps: world.steps,
        proved,
        dead,
        abandoned,
        ranges: world.promises.ranges,
        rollbacks: world.promises.rollbacks,
        amended: world.promises.amended,
        quarantines: world.watchdog.acts.quarantines,
        passed_on: world.watchdog.acts.passed_on,
    }
}

impl std::ops::Add for Summary {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            steps: self.steps + other.steps,
            proved: self.proved + other.proved,
            dead: self.dead + other.dead,
            abandoned: self.abandoned + other.abandoned,
            ranges: self.ranges + other.ranges,
            rollbacks: self.rollbacks + other.rollbacks,
            amended: self.amended + other.amended,
            quarantines: self.quarantines + other.quarantines,
            passed_on: self.passed_on + other.passed_on,
        }
    }
}
