//! A simulation of push0: the decisions of all its services, driven through faults by a seed.
//!
//! The dispatcher, the collectors and the watchdog are the real ones. Around them stands a model of
//! their shells, which carries out effects in the same order and may crash between any two; of
//! provers and verifiers that fail, lie, hang, freeze and die; of a chain that reorganises; and of
//! the few properties of the broker's streams on which the decisions rest. It never claims to be
//! NATS: what concerns NATS is tested on a real server.
//!
//! One thread, one source of chance: a seed is a run, and a failure prints the seed that repeats it.

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

/// What a run that kept all promises did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events.
    pub steps: u64,
    /// Records of proved blocks.
    pub proved: u64,
    /// Records of dead blocks.
    pub dead: u64,
    /// Records of abandoned blocks.
    pub abandoned: u64,
    /// Records of several blocks among all these.
    pub ranges: u64,
    /// How often the output went back after a reorg.
    pub rollbacks: u64,
    /// Records of dead blocks that were proved after all.
    pub amended: u64,
}

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Broken {
    /// What repeats it.
    pub seed: u64,
    /// Which promise, and how.
    pub what: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.what)
    }
}

impl std::error::Error for Broken {}

/// Runs a seed.
pub fn run(seed: u64) -> Result<Summary, Broken> {
    let mut world = World::new(seed, false);
    let ended = world.run();
    ended.map_err(|what| Broken { seed, what })?;
    Ok(summary(&world))
}

/// Runs a seed and writes down all that happens.
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
        }
    }
}
