//! `push0 proof …`: commands about proofs.

mod get;
mod selection;
mod signer;
mod verify;

use crate::context::Context;
use crate::failure::Failure;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum ProofCommand {
    /// Fetch the bytes of an emitted proof and check them against their hash.
    Get(get::GetArgs),
    /// Tell who signed an emitted proof, by the book of keys.
    Signer(signer::SignerArgs),
    /// Verify an emitted proof in a separate process, against the facts stored by the ingester.
    Verify(verify::VerifyArgs),
}

pub(crate) async fn run(context: &Context, command: &ProofCommand) -> Result<(), Failure> {
    let bus = context.bus().await?;
    match command {
        ProofCommand::Get(args) => get::run(context, &bus, args).await,
        ProofCommand::Signer(args) => signer::run(context, &bus, args).await,
        ProofCommand::Verify(args) => verify::run(context, &bus, args).await,
    }
}
