//! `push0 proof …`: commands about proofs.

mod get;
mod verify;

use crate::cli::Of;
use crate::context::Context;
use crate::failure::Failure;
use crate::records::{self, Record};
use clap::{Args, Subcommand};
use push0_bus::Bus;
use push0_domain::message::Proof;
use push0_domain::{PipelineId, ProofType};

#[derive(Debug, Subcommand)]
pub(crate) enum ProofCommand {
    /// Fetch the bytes of an emitted proof and check them against their hash.
    Get(get::GetArgs),
    /// Verify an emitted proof in a separate process, against the facts stored by the ingester.
    Verify(verify::VerifyArgs),
}

/// Selection of one proof.
#[derive(Args, Debug)]
pub(crate) struct Which {
    #[command(flatten)]
    of: Of,
    /// Number of the block.
    #[arg(value_name = "N")]
    number: u64,
    /// Type of the proof. May be omitted if the block has only one proof.
    #[arg(long = "type", value_name = "T")]
    proof_type: Option<ProofType>,
}

/// An emitted proof, its record and its pipeline.
struct Emitted {
    pipeline: PipelineId,
    record: Record,
    proof: Proof,
}

impl Which {
    async fn find(&self, context: &Context, bus: &Bus) -> Result<Emitted, Failure> {
        let pipeline = context.pipeline(bus, &self.of).await?;
        let number = self.number;
        let Some(record) = records::of_number(bus, &pipeline, number).await? else {
            return Err(Failure::failed(format!(
                "{pipeline} has no record of block {number}: `push0 block {number}` shows its progress"
            )));
        };
        let proof = self
            .choose(record.proofs(), &records::outcome(&record.emission.outcome))?
            .clone();
        Ok(Emitted {
            pipeline,
            record,
            proof,
        })
    }

    fn choose<'a>(&self, proofs: &'a [Proof], outcome: &str) -> Result<&'a Proof, Failure> {
        let number = self.number;
        let types = || {
            proofs
                .iter()
                .map(|p| p.proof_type.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        };
        match (&self.proof_type, proofs) {
            (_, []) => Err(Failure::failed(format!(
                "block {number} has no proof: it is {outcome}"
            ))),
            (None, [only]) => Ok(only),
            (None, _) => Err(Failure::usage(format!(
                "which proof? name it with --type; there are: {}",
                types()
            ))),
            (Some(wanted), _) => proofs
                .iter()
                .find(|proof| proof.proof_type == *wanted)
                .ok_or_else(|| {
                    Failure::failed(format!(
                        "block {number} has no proof of type `{wanted}`; there are: {}",
                        types()
                    ))
                }),
        }
    }
}

pub(crate) async fn run(context: &Context, command: &ProofCommand) -> Result<(), Failure> {
    let bus = context.bus().await?;
    match command {
        ProofCommand::Get(args) => get::run(context, &bus, args).await,
        ProofCommand::Verify(args) => verify::run(context, &bus, args).await,
    }
}
