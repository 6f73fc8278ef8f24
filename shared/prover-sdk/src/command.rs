//! Commands of an adapter that need no broker.

use crate::{
    Statement, Verify,
    cli::{Command, VerifyFile},
};
use push0_domain::{
    Announcement, BlockRef, Timestamp,
    message::{BlockFacts, KnownBlock, Role},
    verdict,
};
use push0_runtime::{BoxError, HasRuntimeConfig, RunArgs, config, exit};
use serde::de::DeserializeOwned;
use std::process::ExitCode;

/// Exit code: verification gave no verdict.
const UNTOLD: u8 = 2;

pub(crate) fn run<A, C>(
    name: &str,
    args: &RunArgs,
    command: Command,
    make: impl FnOnce(&C, Role) -> Result<A, BoxError>,
) -> ExitCode
where
    A: Verify,
    C: DeserializeOwned + HasRuntimeConfig,
{
    let end = |code: u8, why: &str| {
        eprintln!("push0-{name}: {why}");
        ExitCode::from(code)
    };
    let loaded = config::load_from(args.config.as_deref(), std::env::vars_os(), C::validate);
    let verifier = loaded
        .map_err(BoxError::from)
        .and_then(|config| make(&config, Role::Verifier));
    let verifier = match verifier {
        Ok(verifier) => verifier,
        Err(error) => return end(exit::CONFIG, &exit::chain(error.as_ref())),
    };
    match command {
        Command::ProgramId => match verifier.program_id() {
            Some(id) => {
                println!("{id}");
                ExitCode::SUCCESS
            }
            None => end(exit::CONFIG, "this adapter has no program of its own"),
        },
        Command::VerifyFile(file) => match verify(&verifier, file) {
            Ok(None) => {
                println!("{}", verdict::VALID);
                ExitCode::SUCCESS
            }
            Ok(Some(reason)) => {
                println!("{}", verdict::invalid_line(&reason));
                ExitCode::from(verdict::INVALID_CODE)
            }
            Err(error) => end(UNTOLD, &exit::chain(error.as_ref())),
        },
    }
}

fn verify<V: Verify>(verifier: &V, file: VerifyFile) -> Result<Option<String>, BoxError> {
    let proof = std::fs::read(&file.proof).map_err(|e| format!("{}: {e}", file.proof.display()))?;
    // Only the parent of a range's first block is part of the statement, so the last block gets
    // the same value.
    let known = |number, hash| KnownBlock {
        block: BlockRef { number, hash },
        parent_hash: file.parent_hash,
        revision: 0,
        observed_at: Timestamp::default(),
        announced_after: Announcement::default(),
        input: None,
        facts: BlockFacts::default(),
    };
    let first = file.first_number.zip(file.first_hash);
    let statement = Statement {
        block: known(file.block_number, file.block_hash),
        first: first.map(|(number, hash)| known(number, hash)),
        program_id: file.program_id,
        header: None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    Ok(runtime.block_on(verifier.verify(statement, proof))?)
}
