//! The pipeline and the blocks of this crate's tests.

use push0_domain::{BlockHash, BlockRef, PipelineId};

pub(crate) fn demo() -> PipelineId {
    "demo".parse().unwrap()
}

pub(crate) fn block(number: u64) -> BlockRef {
    let mut hash = [7; 32];
    hash[..8].copy_from_slice(&number.to_le_bytes());
    BlockRef {
        number,
        hash: BlockHash(hash),
    }
}
