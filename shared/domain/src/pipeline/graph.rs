//! Order of the stages of a proof, and the number of tasks in each stage.

use super::{ProofSpec, Stage, Verify};
use crate::{StageName, ZkvmId, message::StageKind};
use std::time::Duration;

/// The step after a finished stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextStage<'a> {
    /// The next stage of the same block.
    Stage(&'a Stage),
    /// The next stage combines the block with the blocks around it.
    Range(&'a Stage),
    /// No further stage: the output is the proof.
    Proof,
}

impl ProofSpec {
    /// Returns the first stage, which reads the block's witness. A checked pipeline has at least one stage
    /// in every proof, so there is always a first one.
    pub fn first(&self) -> Option<&Stage> {
        self.stages.first()
    }

    /// Returns the stage of this name and its position, from 0.
    pub fn stage(&self, name: &StageName) -> Option<(usize, &Stage)> {
        self.stages.iter().enumerate().find(|(_, s)| s.name == *name)
    }

    /// Returns the step after the stage of this name; `None` if there is no such stage.
    pub fn next(&self, name: &StageName) -> Option<NextStage<'_>> {
        let (position, _) = self.stage(name)?;
        Some(match self.stages.get(position + 1) {
            None => NextStage::Proof,
            Some(stage) if stage.kind == StageKind::Range => NextStage::Range(stage),
            Some(stage) => NextStage::Stage(stage),
        })
    }

    /// Returns the range stage, if there is one.
    pub fn range(&self) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.kind == StageKind::Range)
    }

    /// Returns how many stages follow the stage of this name; 0 if there is no such stage.
    pub fn stages_left(&self, name: &StageName) -> u32 {
        let follow = self
            .stage(name)
            .map_or(0, |(position, _)| self.stages.len() - 1 - position);
        u32::try_from(follow).unwrap_or(u32::MAX)
    }

    /// Returns the minimum duration of all stages after the stage of this name, one after another; zero if
    /// there is no such stage.
    pub fn fastest_after(&self, name: &StageName) -> Duration {
        let after = self.stage(name).map_or(self.stages.len(), |(at, _)| at + 1);
        // A stored definition may hold any durations, whose sum would panic.
        let fastest = self.stages.iter().skip(after).map(|stage| stage.fastest);
        fastest.fold(Duration::ZERO, Duration::saturating_add)
    }

    /// Returns whether a verifier must check the outputs of the stage of this name.
    pub fn is_checked(&self, name: &StageName) -> bool {
        match self.verify {
            Verify::Off => false,
            Verify::EveryStage => true,
            Verify::Final => self.stages_left(name) == 0,
        }
    }
}

impl Stage {
    /// Returns the zkVMs whose provers may take the stage's tasks: its own and, if set, `more_memory`.
    pub fn zkvms(&self) -> impl Iterator<Item = &ZkvmId> {
        std::iter::once(&self.zkvm).chain(&self.more_memory)
    }

    /// Returns how many tasks the stage has for this number of inputs, all levels of a tree included.
    pub fn task_count(&self, inputs: u32) -> u32 {
        match (self.kind, self.arity) {
            (StageKind::Map, _) => inputs,
            (StageKind::Join | StageKind::Range, Some(arity)) => tree_levels(inputs, arity).iter().sum(),
            (StageKind::Split | StageKind::Range | StageKind::Join, _) => 1,
        }
    }
}

/// Returns the number of tasks on each level of a tree of `arity` over `inputs` leaves, the root last.
///
/// A tree over one input still has one task: the root always runs. An arity below 2 counts as 2.
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
