//! Verification of a proof, without assembling a program or loading the core library.

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

/// Largest accepted proof in bytes: 4 MiB.
pub const MAX_PROOF_BYTES: usize = 4 << 20;

/// Hash function of every proof, fixed so that a prover cannot choose a weaker one.
pub(crate) const HASH_FUNCTION: HashFunction = HashFunction::Blake3_256;

/// Reason for which a proof is refused.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The proof is larger than [`MAX_PROOF_BYTES`].
    #[error("a proof of {0} bytes is over the limit of {MAX_PROOF_BYTES} bytes")]
    TooLarge(usize),
    /// The pinned program is not the only one known to this crate.
    #[error("program {0} is not the header link program of this build")]
    UnknownProgram(String),
    /// The bytes are not a proof, or not in the canonical encoding of one.
    #[error("the proof is malformed: {0}")]
    Malformed(String),
    /// The proof uses another hash function than Blake3.
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
/// Several proofs of the same statement are valid, so a proof's bytes cannot serve as its identifier:
/// name a proof by its statement and program.
///
/// # Errors
///
/// [`VerifyError`] for any input except a valid proof of exactly this statement. No input causes a panic,
/// unless the binary is built with `panic = "abort"` and the verifier library has a fault.
pub fn verify(statement: &Statement, proof: &[u8], program_id: &[u8; 32]) -> Result<(), VerifyError> {
    if proof.len() > MAX_PROOF_BYTES {
        return Err(VerifyError::TooLarge(proof.len()));
    }
    // Any other program may leave the public inputs unchecked, so its proofs mean nothing here.
    if *program_id != PROGRAM_ID {
        return Err(VerifyError::UnknownProgram(hex(program_id)));
    }
    let program = Word::try_from(*program_id).map_err(|_| VerifyError::UnknownProgram(hex(program_id)))?;

    // The libraries below contain assertions on data of the proof.
    catch_unwind(AssertUnwindSafe(|| verify_proof(statement, proof, program)))
        .unwrap_or(Err(VerifyError::Panicked))
}

fn verify_proof(statement: &Statement, bytes: &[u8], program: Word) -> Result<(), VerifyError> {
    let proof =
        ExecutionProof::from_bytes(bytes).map_err(|error| VerifyError::Malformed(error.to_string()))?;
    // The decoder ignores bytes after the proof; comparing the re-encoded proof finds them.
    if proof.to_bytes() != bytes {
        return Err(VerifyError::Malformed("not in its canonical encoding".to_owned()));
    }
    if proof.hash_fn() != HASH_FUNCTION {
        return Err(VerifyError::HashFunction(proof.hash_fn()));
    }
    // The transcript binds the STARK to the requests. Checking the requests first limits the work
    // caused by a false proof.
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
