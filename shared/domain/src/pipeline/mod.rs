//! Pipelines: which blocks are proved, how, and in which order. Each pipeline is defined by one TOML file.

mod check;
mod definition;
mod file;
mod graph;
mod position;

pub use check::{InvalidPipeline, Issue};
pub use definition::{
    DEPTH_MAX, EthereumSource, HashRule, PROOF_TYPES_MAX, Pipeline, Policy, ProofSpec, RANGE_MAX, Rest,
    STAGES_MAX, Source, Stage, Start, URLS_MAX, Verify, Witness,
};
pub use graph::{NextStage, tree_levels};
pub use position::{Position, Reset};
