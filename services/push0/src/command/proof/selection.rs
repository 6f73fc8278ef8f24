//! Selection of an emitted proof on the command line.

use crate::block_arg::BlockArg;
use crate::context::Context;
use crate::failure::Failure;
use crate::options::Of;
use crate::record::Record;
use crate::records;
use clap::Args;
use push0_bus::Bus;
use push0_domain::message::Proof;
use push0_domain::{BlockRef, PipelineId, ProofType};

/// Selection of one proof.
#[derive(Args, Debug)]
pub(crate) struct Which {
    #[command(flatten)]
    of: Of,
    /// Number of the block, or 0x and the beginning of its hash.
    #[arg(value_name = "BLOCK")]
    block: BlockArg,
    /// Type of the proof. May be omitted if the block has only one proof.
    #[arg(long = "type", value_name = "T")]
    proof_type: Option<ProofType>,
}

/// An emitted proof, its record and its pipeline.
pub(super) struct Emitted {
    pub(super) pipeline: PipelineId,
    pub(super) record: Record,
    pub(super) proof: Proof,
}

impl Which {
    /// Finds the selected proof among the records of its block.
    pub(super) async fn find(&self, context: &Context, bus: &Bus) -> Result<Emitted, Failure> {
        let pipeline = context.pipeline(bus, &self.of).await?;
        let number = self.block.number(bus, &pipeline).await?;
        let Some(record) = records::of_number(bus, &pipeline, number).await? else {
            return Err(Failure::failed(format!(
                "{pipeline} has no record of block {number}: `push0 block {number}` shows its progress"
            )));
        };
        if let Some(next) = records::replaced_from(bus, &pipeline, number).await? {
            return Err(Failure::failed(format!(
                "{pipeline}: block {number} was replaced: the output goes on at block {next}, and this record does not count \
                 any more"
            )));
        }
        let is_other = |block: &BlockRef| block.number == number && !self.block.may_be(&block.hash);
        if let Some(other) = record.emission.blocks().find(is_other) {
            return Err(Failure::failed(format!(
                "{pipeline}: this block was replaced: block {number} of the output is {}",
                other.hash
            )));
        }
        let proof = self
            .choose(
                number,
                record.proofs(),
                &push0_operate::outcome(&record.emission.outcome),
            )?
            .clone();
        Ok(Emitted {
            pipeline,
            record,
            proof,
        })
    }

    fn choose<'a>(&self, number: u64, proofs: &'a [Proof], outcome: &str) -> Result<&'a Proof, Failure> {
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
