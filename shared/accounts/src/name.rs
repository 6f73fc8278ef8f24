//! The names of replicas.

use push0_domain::{ProverId, ZkvmId, id::InvalidId};

/// How many characters of its key the name of a replica has. Each stands for 5 bits: another key with the same name
/// takes some 2^80 tries.
pub const NAME_TAIL: usize = 16;

/// Returns the name of a replica: its zkVM, and characters of its public key.
///
/// Fails if the zkVM's name is too long; the book admits no fleet of such a zkVM.
pub fn name_of(zkvm: &ZkvmId, key: &str) -> Result<ProverId, InvalidId> {
    // The first character of every user's key is U.
    let tail: String = key.chars().skip(1).take(NAME_TAIL).collect();
    ProverId::new(&format!("{zkvm}-{}", tail.to_lowercase()))
}
