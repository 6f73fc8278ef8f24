//! The graph of a proof: what follows a stage, and how many tasks it has.

use super::{ProofSpec, Stage, Verify};
use crate::{StageName, ZkvmId, message::StageKind};
use std::time::Duration;

/// What a finished stage leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextStage<'a> {
    /// This stage.
    Stage(&'a Stage),
    /// This stage, together with the blocks round it.
    Range(&'a Stage),
    /// Nothing: its output is the proof.
    Proof,
}

impl ProofSpec {
    /// The stage that reads the block.
    ///
    /// A checked pipeline has at least one stage in every proof.
    pub fn first(&self) -> Option<&Stage> {
        self.stages.first()
    }

    /// The stage of this name and its position.
    pub fn stage(&self, name: &StageName) -> Option<(usize, &Stage)> {
        self.stages.iter().enumerate().find(|(_, s)| s.name == *name)
    }

    /// What follows the stage of this name; none if there is no such stage.
    pub fn next(&self, name: &StageName) -> Option<NextStage<'_>> {
        let (position, _) = self.stage(name)?;
        Some(match self.stages.get(position + 1) {
            None => NextStage::Proof,
            Some(stage) if stage.kind == StageKind::Range => NextStage::Range(stage),
            Some(stage) => NextStage::Stage(stage),
        })
    }

    /// The stage that puts consecutive blocks together, if there is one.
    pub fn range(&self) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.kind == StageKind::Range)
    }

    /// How many stages follow the one of this name.
    pub fn stages_left(&self, name: &StageName) -> u32 {
        let follow = self
            .stage(name)
            .map_or(0, |(position, _)| self.stages.len() - 1 - position);
        u32::try_from(follow).unwrap_or(u32::MAX)
    }

    /// What the stages after the one of this name take at least, one after another.
    pub fn fastest_after(&self, name: &StageName) -> Duration {
        let after = self.stage(name).map_or(self.stages.len(), |(at, _)| at + 1);
        self.stages.iter().skip(after).map(|stage| stage.fastest).sum()
    }

    /// Whether a verifier must see the outputs of this stage.
    pub fn is_checked(&self, name: &StageName) -> bool {
        match self.verify {
            Verify::Off => false,
            Verify::EveryStage => true,
            Verify::Final => self.stages_left(name) == 0,
        }
    }
}

impl Stage {
    /// The proof systems whose provers may take its tasks.
    pub fn zkvms(&self) -> impl Iterator<Item = &ZkvmId> {
        std::iter::once(&self.zkvm).chain(&self.more_memory)
    }

    /// How many tasks it has for this many inputs, all levels of a tree counted.
    pub fn task_count(&self, inputs: u32) -> u32 {
        match (self.kind, self.arity) {
            (StageKind::Map, _) => inputs,
            (StageKind::Join | StageKind::Range, Some(arity)) => tree_levels(inputs, arity).iter().sum(),
            (StageKind::Split | StageKind::Range | StageKind::Join, _) => 1,
        }
    }
}

/// The number of tasks on each level of a tree of `arity` over `inputs` leaves, the root last.
///
/// A tree over one input still has one task: the root always runs.
pub fn tree_levels(inputs: u32, arity: u32) -> Vec<u32> {
    let arity = arity.max(2);
    let mut levels = Vec::new();
    let mut width = inputs;
    loop {
        width = width.div_ceil(arity).max(1);
        levels.push(width);
        if width == 1 {
            return levels;
        }
    }
}
