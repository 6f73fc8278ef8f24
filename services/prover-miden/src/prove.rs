//! Proving of a statement.

use std::sync::Arc;

use miden_core_lib::handlers::keccak256::{KECCAK_HASH_BYTES_EVENT_NAME, KeccakPrecompile};
use miden_verifier::math::Felt;
use miden_vm::{
    DefaultHost, ExecutionError, ExecutionOptions, ProvingOptions, advice::AdviceInputs, prove_sync,
};

use crate::{
    program::{ProgramError, program},
    statement::{HeaderError, Statement, check_header, words},
    verify::HASH_FUNCTION,
};

/// Number of 32-bit words read from the advice stack at a time by the program.
const WORDS_PER_BLOCK: usize = 8;

/// Reason for which no proof was made.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The header does not satisfy the statement, so nothing was proved.
    #[error("the header does not satisfy the statement: {0}")]
    Header(#[from] HeaderError),
    /// The program could not be prepared: this build of the crate is at fault, not the input.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The virtual machine or the prover failed on a header that satisfies the statement.
    #[error("Miden VM failed: {0}")]
    Vm(#[source] Box<ExecutionError>),
}

/// Proves that `header_rlp` satisfies the statement. The returned bytes contain the header, and
/// [`verify`](crate::verify()) needs nothing else.
///
/// Blocks the calling thread for the whole proof and works on the rayon pool of the caller.
///
/// # Errors
///
/// [`ProveError::Header`], before any proving, if the header does not satisfy the statement. The other
/// variants are faults of this crate or of the virtual machine.
pub fn prove(statement: &Statement, header_rlp: &[u8]) -> Result<Vec<u8>, ProveError> {
    check_header(statement, header_rlp)?;
    let program = program()?;

    let mut host = DefaultHost::default();
    host.register_handler(KECCAK_HASH_BYTES_EVENT_NAME, Arc::new(KeccakPrecompile))
        .map_err(vm)?;

    let (_, proof) = prove_sync(
        program,
        statement.stack_inputs(),
        advice(header_rlp),
        &mut host,
        ExecutionOptions::default(),
        ProvingOptions::new(HASH_FUNCTION),
    )
    .map_err(vm)?;
    Ok(proof.to_bytes())
}

/// Lays out the private inputs: the length in bytes, then the words padded to whole blocks.
fn advice(header_rlp: &[u8]) -> AdviceInputs {
    // The length fits into 32 bits: `check_header` limits it.
    let mut stack = vec![Felt::from_u32(header_rlp.len() as u32)];
    stack.extend(words(header_rlp));
    let padded = (stack.len() - 1).next_multiple_of(WORDS_PER_BLOCK);
    stack.resize(1 + padded, Felt::from_u32(0));
    AdviceInputs::default().with_stack(stack)
}

fn vm(error: ExecutionError) -> ProveError {
    ProveError::Vm(Box::new(error))
}
