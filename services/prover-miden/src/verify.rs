//! Checking a proof. Nothing here assembles a program or loads the core library.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use miden_core_lib::handlers::keccak256::{KECCAK_HASH_BYTES_EVENT_NAME, KeccakPrecompile};
use miden_verifier::{
    ExecutionProof, HashFunction, Kernel, PrecompileVerifierRegistry, ProgramInfo, StackOutputs,
    VerificationError, Word, verify_with_precompiles,
};

use crate::{
    program::{PROGRAM_ID, hex},
    statement::{MAX_HEADER_BYTES, Statement},
};

/// Largest proof in bytes that is looked at: 4 MiB.
pub const MAX_PROOF_BYTES: usize = 4 << 20;

/// The hash function of every proof. Fixed, so that a prover cannot choose a weaker one.
pub(crate) const HASH_FUNCTION: HashFunction = HashFunction::Blake3_256;

/// The proof does not show the statement.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The proof is larger than [`MAX_PROOF_BYTES`].
    #[error("a proof of {0} bytes is over the limit of {MAX_PROOF_BYTES} bytes")]
    TooLarge(usize),
    /// The pinned program is not the one that this crate can give a meaning to.
    #[error("program {0} is not the header link program of this build")]
    UnknownProgram(String),
    /// The bytes are not a proof, or not one in its only valid encoding.
    #[error("the proof is malformed: {0}")]
    Malformed(String),
    /// The proof was made with another hash function than this crate uses.
    #[error("the proof uses hash function {0:?}, not Blake3")]
    HashFunction(HashFunction),
    /// The proof does not carry exactly one Keccak-256 request over a header.
    #[error("the proof must carry one Keccak-256 request of at most {MAX_HEADER_BYTES} bytes")]
    Requests,
    /// The proof is well formed but does not hold for this statement and program.
    #[error("the proof does not hold for the statement: {0}")]
    Invalid(#[source] Box<VerificationError>),
    /// The verifier library panicked on the proof, which counts as a refusal.
    #[error("the verifier panicked on the proof")]
    Panicked,
}

/// Verifies a proof made by [`prove`](crate::prove()) against the statement and the pinned program.
///
/// A proof has no unique encoding, so its bytes are no identifier: name a proof by its statement
/// and program.
///
/// # Errors
///
/// [`VerifyError`] for every input that is not a valid proof of this very statement. No input makes
/// it panic, unless the binary is built with `panic = "abort"` and the verifier library has a fault.
pub fn verify(statement: &Statement, proof: &[u8], program_id: &[u8; 32]) -> Result<(), VerifyError> {
    if proof.len() > MAX_PROOF_BYTES {
        return Err(VerifyError::TooLarge(proof.len()));
    }
    // Any other program may leave the public inputs unchecked, so its proofs mean nothing here.
    if *program_id != PROGRAM_ID {
        return Err(VerifyError::UnknownProgram(hex(program_id)));
    }
    let program = Word::try_from(*program_id).map_err(|_| VerifyError::UnknownProgram(hex(program_id)))?;

    // The libraries below assert in places on data that comes from the proof.
    catch_unwind(AssertUnwindSafe(|| verify_proof(statement, proof, program)))
        .unwrap_or(Err(VerifyError::Panicked))
}

fn verify_proof(statement: &Statement, bytes: &[u8], program: Word) -> Result<(), VerifyError> {
    let proof =
        ExecutionProof::from_bytes(bytes).map_err(|error| VerifyError::Malformed(error.to_string()))?;
    // The decoder ignores what follows the proof; the round trip does not.
    if proof.to_bytes() != bytes {
        return Err(VerifyError::Malformed("not in its canonical encoding".to_owned()));
    }
    if proof.hash_fn() != HASH_FUNCTION {
        return Err(VerifyError::HashFunction(proof.hash_fn()));
    }
    // The STARK is bound to the requests through the transcript. Checking them first bounds the
    // work that a false proof can ask for.
    let keccak = KECCAK_HASH_BYTES_EVENT_NAME;
    match proof.precompile_requests() {
        [request]
            if request.event_id() == keccak.to_event_id() && request.calldata().len() <= MAX_HEADER_BYTES => {
        }
        _ => return Err(VerifyError::Requests),
    }

    let registry = PrecompileVerifierRegistry::new().with_verifier(&keccak, Arc::new(KeccakPrecompile));
    verify_with_precompiles(
        ProgramInfo::new(program, Kernel::default()),
        statement.stack_inputs(),
        StackOutputs::default(),
        proof,
        &registry,
    )
    .map(|_| ())
    .map_err(|error| VerifyError::Invalid(Box::new(error)))
}
