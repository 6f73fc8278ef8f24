//! Headers and statements for the tests.

use alloy_consensus::Header;
use alloy_primitives::{B256, keccak256};
use push0_prover_miden::Statement;

/// Returns a header with every field of the Prague fork, about 640 bytes of RLP.
pub(crate) fn header(number: u64, extra: &[u8]) -> Header {
    let mut header = Header {
        parent_hash: keccak256(number.to_be_bytes()),
        beneficiary: alloy_primitives::Address::repeat_byte(0x42),
        state_root: keccak256("state"),
        number,
        gas_limit: 30_000_000,
        gas_used: 12_345_678,
        timestamp: 1_730_000_000 + 12 * number,
        extra_data: extra.to_vec().into(),
        mix_hash: keccak256("randao"),
        base_fee_per_gas: Some(12_345_678_901),
        withdrawals_root: Some(keccak256("withdrawals")),
        blob_gas_used: Some(131_072),
        excess_blob_gas: Some(75_000_000),
        parent_beacon_block_root: Some(keccak256("beacon")),
        requests_hash: Some(keccak256("requests")),
        ..Default::default()
    };
    header.logs_bloom.0.fill(0x5a);
    header
}

/// Returns the RLP of a header and the statement satisfied by it.
pub(crate) fn block(number: u64, extra: &[u8]) -> (Statement, Vec<u8>) {
    let header = header(number, extra);
    let rlp = alloy_rlp::encode(&header);
    let statement = Statement {
        block_hash: header.hash_slow().0,
        parent_hash: header.parent_hash.0,
    };
    (statement, rlp)
}

/// Returns `len` bytes that start like a header, and the statement satisfied by them.
pub(crate) fn shaped(len: usize) -> (Statement, Vec<u8>) {
    let payload = u16::try_from(len - 3).unwrap().to_be_bytes();
    let mut bytes: Vec<u8> = (0..len).map(|i| (i * 7 + 1) as u8).collect();
    bytes[..4].copy_from_slice(&[0xf9, payload[0], payload[1], 0xa0]);
    (statement_for(&bytes), bytes)
}

/// Hashes any bytes and takes the parent hash from bytes 4 to 36.
pub(crate) fn statement_for(bytes: &[u8]) -> Statement {
    Statement {
        block_hash: keccak256(bytes).0,
        parent_hash: B256::from_slice(&bytes[4..36]).0,
    }
}
