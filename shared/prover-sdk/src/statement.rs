//! Builds the statement that a proof must prove.

use crate::{
    Statement,
    node::{Node, StatementFacts},
};
use push0_bus::BusError;
use push0_domain::{
    BlockRef, StageKey,
    message::{KnownBlock, Obstacle, TaskResult},
    pipeline::{ProofSpec, Stage},
    subject,
};
use std::time::Duration;

/// A statement, and the limit of the work on it.
pub(crate) struct Checkable {
    pub(crate) statement: Statement,
    /// How long the verification of one output may take: the timeout of the stage.
    pub(crate) timeout: Duration,
}

/// The reason why there is no statement.
pub(crate) enum NoStatement {
    /// The attempt is about something else than the ingester and the pipeline say: its proof is false.
    Contradicted(String),
    /// The statement is not known. This says nothing about the proof.
    Unknown(Obstacle, String),
}

impl From<BusError> for NoStatement {
    fn from(error: BusError) -> Self {
        Self::Unknown(Obstacle::Store, error.to_string())
    }
}

/// Builds the statement from the ingester's facts and the operator's pipeline. The prover's claims are only
/// compared with it.
pub(crate) async fn statement(node: &Node, result: &TaskResult) -> Result<Checkable, NoStatement> {
    let stage = &result.header.id.stage;
    let Some(facts) = &node.facts else {
        return Err(NoStatement::Unknown(
            Obstacle::Facts,
            "a prover reads no facts".into(),
        ));
    };
    let block = observed(facts, stage, stage.block).await?;
    let first = match stage.first {
        None => None,
        Some(first) => Some(observed(facts, stage, first).await?),
    };
    let Some(pipeline) = facts.pipelines.revision(&stage.pipeline, block.revision).await? else {
        let missing = format!("pipeline {} has no revision {}", stage.pipeline, block.revision);
        return Err(NoStatement::Unknown(Obstacle::Facts, missing));
    };
    let Some(proof) = pipeline.proof(&stage.proof_type) else {
        return Err(NoStatement::Contradicted(format!(
            "pipeline {} wants no proof of type {}",
            stage.pipeline, stage.proof_type
        )));
    };
    let timeout = defined(proof, result)?.timeout;
    let statement = Statement {
        block,
        first,
        program_id: proof.program_id.clone(),
        header: Some(result.header.clone()),
    };
    let (claimed, parent) = (result.header.context.parent_hash, statement.parent_hash());
    if claimed != parent {
        return Err(NoStatement::Contradicted(format!(
            "has parent {claimed}, but {parent} was observed"
        )));
    }
    Ok(Checkable { statement, timeout })
}

/// Returns the definition of the attempt's stage, if the attempt is as that stage has them.
fn defined<'a>(proof: &'a ProofSpec, result: &TaskResult) -> Result<&'a Stage, NoStatement> {
    let (name, kind) = (&result.header.id.stage.stage, result.header.kind);
    match proof.stage(name) {
        // Only a split has many outputs to verify.
        Some((_, stage)) if stage.kind == kind => Ok(stage),
        Some((_, stage)) => Err(NoStatement::Contradicted(format!(
            "says that stage {name} is a {kind:?}, but its pipeline defines a {:?}",
            stage.kind
        ))),
        None => Err(NoStatement::Contradicted(format!(
            "is about stage {name}, which its pipeline does not define"
        ))),
    }
}

/// Returns the ingester's facts about a block.
async fn observed(
    facts: &StatementFacts,
    stage: &StageKey,
    block: BlockRef,
) -> Result<KnownBlock, NoStatement> {
    let key = subject::facts::known_block(&stage.pipeline, &block);
    let Some(known) = facts.known.find(&key).await?.and_then(|fact| fact.value) else {
        let missing = format!("no facts about block {block}: they expired, or the block was never observed");
        return Err(NoStatement::Unknown(Obstacle::Facts, missing));
    };
    if known.block != block {
        let (claimed, observed) = (block.hash, known.block.hash);
        return Err(NoStatement::Contradicted(format!(
            "is about block {claimed}, but {observed} was observed"
        )));
    }
    Ok(known)
}
