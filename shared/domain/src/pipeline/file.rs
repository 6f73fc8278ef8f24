//! The format of pipeline files, as serde reads it; [`super::check`] turns the file into a pipeline.

use super::{HashRule, Rest, Verify, Witness};
use crate::message::StageKind;
use serde::Deserialize;
use toml::Spanned;

/// The content of a pipeline file. Values remember their position, so an error can name the line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PipelineFile {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) policy: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) deadline: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) weight: Option<Spanned<u32>>,
    pub(super) source: Spanned<SourceTable>,
    #[serde(default)]
    pub(super) quorum: Option<QuorumTable>,
    #[serde(default)]
    pub(super) proof: Vec<Spanned<ProofTable>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QuorumTable {
    pub(super) valid: Spanned<u32>,
    #[serde(default)]
    pub(super) rest: Rest,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum SourceTable {
    Ethereum(EthereumTable),
    File { path: String },
    Http {},
    External {},
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EthereumTable {
    pub(super) rpc_url: Urls,
    #[serde(default)]
    pub(super) start: Option<StartValue>,
    #[serde(default)]
    pub(super) confirmations: u64,
    #[serde(default)]
    pub(super) poll: Option<String>,
    #[serde(default)]
    pub(super) witness: Option<Witness>,
    #[serde(default)]
    pub(super) hash: HashRule,
    #[serde(default)]
    pub(super) depth: Option<u32>,
    #[serde(default)]
    pub(super) stale_after: Option<String>,
    #[serde(default)]
    pub(super) timeout: Option<String>,
    #[serde(default)]
    pub(super) answer_max_mib: Option<u32>,
}

/// Value of `source.rpc_url`: a URL, or several in the order in which they are tried.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Urls {
    One(String),
    Several(Vec<String>),
}

/// Value of `source.start`: `"latest"` or a block number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum StartValue {
    Number(u64),
    Word(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProofTable {
    #[serde(rename = "type")]
    pub(super) proof_type: Spanned<String>,
    pub(super) zkvm: Spanned<String>,
    #[serde(default)]
    pub(super) program_id: Option<String>,
    #[serde(default)]
    pub(super) verify: Verify,
    #[serde(default)]
    pub(super) stage: Vec<Spanned<StageTable>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StageTable {
    pub(super) name: Spanned<String>,
    pub(super) kind: StageKind,
    #[serde(default)]
    pub(super) from: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) zkvm: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) arity: Option<Spanned<u32>>,
    #[serde(default)]
    pub(super) every: Option<Spanned<u32>>,
    #[serde(default)]
    pub(super) close_after: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) split_on_failure: Option<bool>,
    pub(super) timeout: Spanned<String>,
    #[serde(default)]
    pub(super) attempts: Option<Spanned<u32>>,
    #[serde(default)]
    pub(super) deaths: Option<Spanned<u32>>,
    #[serde(default)]
    pub(super) retry: Option<RetryTable>,
    #[serde(default)]
    pub(super) hedge_after: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) fastest: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) more_memory: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryTable {
    #[serde(default)]
    pub(super) first: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) longest: Option<Spanned<String>>,
}
