//! Accepted and refused proofs, tested through the public API.

use crate::headers::{block, shaped, statement_for};
use push0_prover_miden::{
    HeaderError, MAX_PROOF_BYTES, ProveError, Statement, VerifyError, program_id, prove, verify,
};

fn header_error(statement: &Statement, header: &[u8]) -> HeaderError {
    match prove(statement, header) {
        Err(ProveError::Header(error)) => error,
        other => panic!("expected a header error, got {other:?}"),
    }
}

#[test]
fn proves_and_verifies_headers() {
    for number in [1, 21_000_000] {
        let (statement, rlp) = block(number, b"extra");
        let proof = prove(&statement, &rlp).unwrap();
        verify(&statement, &proof, &program_id()).unwrap();
    }
}

/// The hash reads words in groups of eight and bytes in groups of four, and each
/// remainder takes another path.
#[test]
fn proves_every_remainder_and_both_bounds() {
    for len in (259..=259 + 32).chain([512, 1000, 4093, 4094, 4095, 4096]) {
        let (statement, bytes) = shaped(len);
        let proof = prove(&statement, &bytes).unwrap_or_else(|e| panic!("{len} bytes: {e}"));
        verify(&statement, &proof, &program_id()).unwrap_or_else(|e| panic!("{len} bytes: {e}"));
    }
}

#[test]
fn refuses_to_prove_what_the_header_does_not_satisfy() {
    let (good, rlp) = block(7, b"x");
    let length = |len: usize| matches!(header_error(&good, &vec![0xf9; len]), HeaderError::Length(_));
    assert!([0, 3, 35, 258, 4097, 1 << 20].into_iter().all(length));

    let edited = |at: usize, byte: u8| {
        let mut bytes = rlp.clone();
        bytes[at] = byte;
        header_error(&statement_for(&bytes), &bytes)
    };
    assert!(matches!(edited(0, 0xf8), HeaderError::NotALongList(0xf8)));
    assert!(matches!(edited(2, rlp[2] ^ 1), HeaderError::ListLength { .. }));
    assert!(matches!(edited(3, 0xa1), HeaderError::NoParentHash(0xa1)));

    let parent = Statement {
        parent_hash: [1; 32],
        ..good
    };
    assert!(matches!(
        header_error(&parent, &rlp),
        HeaderError::ParentHash { .. }
    ));
    let hash = Statement {
        block_hash: [1; 32],
        ..good
    };
    let message = prove(&hash, &rlp).unwrap_err().to_string();
    assert!(
        message.contains(&alloy_primitives::hex::encode_prefixed(good.block_hash)),
        "{message}"
    );
}

#[test]
fn refuses_another_statement_or_program() {
    let (statement, rlp) = block(100, b"a");
    let (other, other_rlp) = block(101, b"b");
    let proof = prove(&statement, &rlp).unwrap();
    let id = program_id();

    // Every bit of either hash counts, so one bit of each 32-bit word is flipped.
    for word in 0..8 {
        let mut wrong = statement;
        wrong.block_hash[4 * word] ^= 1;
        assert!(matches!(
            verify(&wrong, &proof, &id),
            Err(VerifyError::Invalid(_))
        ));
        let mut wrong = statement;
        wrong.parent_hash[4 * word + 3] ^= 0x80;
        assert!(matches!(
            verify(&wrong, &proof, &id),
            Err(VerifyError::Invalid(_))
        ));
    }
    let swapped = Statement {
        block_hash: statement.parent_hash,
        parent_hash: statement.block_hash,
    };
    assert!(matches!(
        verify(&swapped, &proof, &id),
        Err(VerifyError::Invalid(_))
    ));
    let foreign = prove(&other, &other_rlp).unwrap();
    assert!(matches!(
        verify(&statement, &foreign, &id),
        Err(VerifyError::Invalid(_))
    ));

    for wrong in [[0; 32], [0xff; 32]] {
        assert!(matches!(
            verify(&statement, &proof, &wrong),
            Err(VerifyError::UnknownProgram(_))
        ));
    }
}

#[test]
fn refuses_damaged_proofs() {
    let (statement, rlp) = block(5, b"y");
    let proof = prove(&statement, &rlp).unwrap();
    let id = program_id();
    verify(&statement, &proof, &id).unwrap();

    // The prime stride reaches every part of the proof's structures. The whole tail is tested too: it
    // holds the hash function and the request with the header.
    let tail = proof.len() - rlp.len() - 64;
    for at in (0..tail).step_by(97).chain(tail..proof.len()) {
        let mut bad = proof.clone();
        bad[at] ^= 1 << (at % 8);
        assert!(verify(&statement, &bad, &id).is_err(), "flip at {at}");
    }
    for len in (0..proof.len()).step_by(997).chain([proof.len() - 1]) {
        assert!(
            verify(&statement, &proof[..len], &id).is_err(),
            "truncated to {len}"
        );
    }
    let mut longer = proof;
    longer.push(0);
    assert!(matches!(
        verify(&statement, &longer, &id),
        Err(VerifyError::Malformed(_))
    ));
}

#[test]
fn refuses_garbage() {
    let (statement, _) = block(5, b"y");
    let id = program_id();
    let mut state = 1_u64;
    for len in [0, 1, 2, 9, 64, 1000, 70_000, MAX_PROOF_BYTES] {
        let garbage: Vec<u8> = (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        assert!(verify(&statement, &garbage, &id).is_err(), "{len} bytes");
        assert!(
            verify(&statement, &vec![0xff; len], &id).is_err(),
            "{len} bytes of 0xff"
        );
        assert!(verify(&statement, &vec![0; len], &id).is_err(), "{len} zeros");
    }
    let huge = vec![0; MAX_PROOF_BYTES + 1];
    assert!(matches!(
        verify(&statement, &huge, &id),
        Err(VerifyError::TooLarge(_))
    ));
}

/// Services move errors between threads, so errors must be `Send` and `Sync`.
#[test]
fn errors_are_send_and_sync() {
    fn check<T: Send + Sync + 'static>() {}
    check::<ProveError>();
    check::<VerifyError>();
}
