//! Attacks on the Miden program itself: the prover skips the checks of the Rust code, lies about the
//! hash, or runs a weaker program.

use crate::headers::{block, shaped, statement_for};
use miden_core_lib::{
    CoreLibrary,
    handlers::keccak256::{KECCAK_HASH_BYTES_EVENT_NAME, KeccakFeltDigest, KeccakPrecompile, KeccakPreimage},
};
use miden_processor::{
    ProcessorState,
    advice::AdviceMutation,
    event::{EventError, EventHandler},
};
use miden_verifier::{ExecutionProof, StackInputs, math::Felt};
use miden_vm::{
    Assembler, DefaultHost, ExecutionOptions, HashFunction, Program, ProvingOptions, advice::AdviceInputs,
    execute_sync, prove_sync,
};
use push0_prover_miden::{Statement, VerifyError, program_id, verify};
use std::sync::Arc;

const SOURCE: &str = include_str!("../../src/header_link.masm");

fn compile(source: &str) -> Program {
    Assembler::default()
        .with_static_library(CoreLibrary::default())
        .and_then(|assembler| assembler.assemble_program(source))
        .unwrap()
}

fn host(handler: Arc<dyn EventHandler>) -> DefaultHost {
    let mut host = DefaultHost::default();
    host.register_handler(KECCAK_HASH_BYTES_EVENT_NAME, handler)
        .unwrap();
    host
}

fn felts(bytes: &[u8]) -> Vec<Felt> {
    KeccakPreimage::new(bytes.to_vec()).as_felts()
}

fn inputs(statement: &Statement) -> StackInputs {
    let felts = felts(&[statement.block_hash, statement.parent_hash].concat());
    StackInputs::new(&felts).unwrap()
}

/// Returns the private inputs for a claimed length, padded so that the program never runs out of them.
fn advice(len: u64, header: &[u8]) -> Vec<Felt> {
    let mut stack = vec![Felt::new_unchecked(len)];
    stack.extend(felts(header));
    stack.resize(4096, Felt::from_u32(0));
    stack
}

fn run(statement: &Statement, advice: Vec<Felt>) -> Result<(), String> {
    execute_sync(
        &compile(SOURCE),
        inputs(statement),
        AdviceInputs::default().with_stack(advice),
        &mut host(Arc::new(KeccakPrecompile)),
        ExecutionOptions::default(),
    )
    .map(|_| ())
    .map_err(|error| error.to_string())
}

fn forge(
    source: &str,
    statement: &Statement,
    header: &[u8],
    hash: HashFunction,
    handler: Arc<dyn EventHandler>,
) -> ExecutionProof {
    prove_sync(
        &compile(source),
        inputs(statement),
        AdviceInputs::default().with_stack(advice(header.len() as u64, header)),
        &mut host(handler),
        ExecutionOptions::default(),
        ProvingOptions::new(hash),
    )
    .unwrap()
    .1
}

fn refused_as_invalid(statement: &Statement, proof: &ExecutionProof) -> bool {
    matches!(
        verify(statement, &proof.to_bytes(), &program_id()),
        Err(VerifyError::Invalid(_))
    )
}

#[test]
fn the_pinned_id_is_that_of_the_source() {
    assert_eq!(compile(SOURCE).hash().as_bytes(), program_id());
}

#[test]
fn the_program_stops_on_false_statements() {
    let (statement, rlp) = block(1, b"z");
    let len = rlp.len() as u64;
    run(&statement, advice(len, &rlp)).unwrap();

    for byte in 0..32 {
        let mut wrong = statement;
        wrong.parent_hash[byte] ^= 1;
        assert!(run(&wrong, advice(len, &rlp)).is_err(), "parent hash byte {byte}");
        let mut wrong = statement;
        wrong.block_hash[byte] ^= 1;
        assert!(run(&wrong, advice(len, &rlp)).is_err(), "block hash byte {byte}");
    }
    // Each bit of the four prefix bytes is flipped, and the statement has the hash of the changed bytes.
    for (at, bit) in (0..4).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut bytes = rlp.clone();
        bytes[at] ^= 1 << bit;
        assert!(
            run(&statement_for(&bytes), advice(len, &bytes)).is_err(),
            "bit {bit} of {at}"
        );
    }
}

#[test]
fn the_program_bounds_the_length() {
    for len in [258, 4097, 5000] {
        let (statement, bytes) = shaped(len);
        assert!(
            run(&statement, advice(len as u64, &bytes)).is_err(),
            "{len} bytes"
        );
    }
    let (statement, bytes) = shaped(4096);
    run(&statement, advice(4096, &bytes)).unwrap();
    for len in [0, 1, u64::from(u32::MAX), 1 << 32, (1 << 32) + 4096] {
        assert!(
            run(&statement, advice(len, &bytes)).is_err(),
            "claimed length {len}"
        );
    }
}

#[test]
fn the_program_refuses_words_over_32_bits() {
    let (statement, rlp) = block(1, b"z");
    // The last position lies in the padding, which no hash covers.
    let blocks = rlp.len().div_ceil(32);
    for at in [1, 5, 9, 60, blocks * 8] {
        let mut stack = advice(rlp.len() as u64, &rlp);
        stack[at] += Felt::new_unchecked(1 << 32);
        let error = run(&statement, stack).unwrap_err();
        assert!(
            error.contains("u32") || error.contains("32 bit"),
            "word {at}: {error}"
        );
    }
}

/// Event handler that claims a chosen digest for any bytes to hash.
struct Liar([u8; 32], KeccakPreimage);

impl EventHandler for Liar {
    fn on_event(&self, _: &ProcessorState) -> Result<Vec<AdviceMutation>, EventError> {
        let digest = KeccakFeltDigest::from_bytes(&self.0);
        let digest: &[Felt] = digest.as_ref();
        Ok(vec![
            AdviceMutation::extend_stack(digest.iter().copied()),
            AdviceMutation::extend_precompile_requests([self.1.clone().into()]),
        ])
    }
}

#[test]
fn a_false_digest_is_refused() {
    let (real, rlp) = block(1, b"z");
    let (other, other_rlp) = block(2, b"w");
    // The claim pairs block 1's parent hash with block 2's hash; the request holds either header.
    let claim = Statement {
        block_hash: other.block_hash,
        parent_hash: real.parent_hash,
    };
    for request in [&rlp, &other_rlp] {
        let liar = Liar(claim.block_hash, KeccakPreimage::new(request.clone()));
        let proof = forge(SOURCE, &claim, &rlp, HashFunction::Blake3_256, Arc::new(liar));
        assert!(refused_as_invalid(&claim, &proof));
    }
}

#[test]
fn a_weaker_program_is_refused() {
    let (real, rlp) = block(1, b"z");
    let claim = Statement {
        parent_hash: [9; 32],
        ..real
    };
    let weak = SOURCE.replace("    exec.check_parent_hash\n", "");
    assert_ne!(weak, SOURCE);
    let handler = Arc::new(KeccakPrecompile);
    let proof = forge(&weak, &claim, &rlp, HashFunction::Blake3_256, handler);
    assert!(refused_as_invalid(&claim, &proof));
    // The proof is valid for the weaker program, so only the pinned program id protects the verifier.
    let weak = compile(&weak).to_info();
    miden_vm::verify(weak, inputs(&claim), Default::default(), proof).unwrap();
}

#[test]
fn requests_must_be_exactly_the_logged_one() {
    let (statement, rlp) = block(1, b"z");
    let proof = forge(
        SOURCE,
        &statement,
        &rlp,
        HashFunction::Blake3_256,
        Arc::new(KeccakPrecompile),
    );
    verify(&statement, &proof.to_bytes(), &program_id()).unwrap();

    let request = proof.pc_requests[0].clone();
    for requests in [vec![], vec![request.clone(), request]] {
        let bad = ExecutionProof {
            pc_requests: requests,
            ..proof.clone()
        };
        let result = verify(&statement, &bad.to_bytes(), &program_id());
        assert!(matches!(result, Err(VerifyError::Requests)));
    }
    let longer = KeccakPreimage::new([rlp, vec![0]].concat());
    let bad = ExecutionProof {
        pc_requests: vec![longer.into()],
        ..proof
    };
    assert!(refused_as_invalid(&statement, &bad));
}

#[test]
fn another_hash_function_is_refused() {
    let (statement, rlp) = block(1, b"z");
    let proof = forge(
        SOURCE,
        &statement,
        &rlp,
        HashFunction::Keccak,
        Arc::new(KeccakPrecompile),
    );
    let result = verify(&statement, &proof.to_bytes(), &program_id());
    assert!(matches!(
        result,
        Err(VerifyError::HashFunction(HashFunction::Keccak))
    ));
}
