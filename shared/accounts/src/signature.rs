//! Tells who signed a proof, by the book of keys.
//!
//! A prover with a key in the book signs with that key. A replica of a fleet signs with the key it drew, shows the word
//! of its fleet for this key, and has a name derived from the key.

use crate::{
    Book, Member,
    enrol::{self, Refused},
};
use push0_domain::{ProverId, ZkvmId, message::Role, signature::Signature};

/// A signature without evidence that the prover made the statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// The book has another key for the prover, or none, or the prover serves another zkVM or verifies.
    #[error("{key} is not the key of a prover {prover} for {zkvm} in the book")]
    Stranger {
        /// The key that signed.
        key: String,
        /// The prover that the statement names.
        prover: ProverId,
        /// The zkVM that the statement names.
        zkvm: ZkvmId,
    },
    /// The word of the fleet is not that of a fleet in the book, or the replica was revoked.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The key did not make the signature.
    #[error("the signature of {0} is not of this proof")]
    Wrong(ProverId),
}

/// Checks that `prover`, for `zkvm`, signed `statement`.
pub fn check(
    book: &Book,
    (zkvm, prover): (&ZkvmId, &ProverId),
    statement: &str,
    signature: &Signature,
) -> Result<(), NotSigned> {
    let key = &signature.key;
    let is_prover = |member: &Member| member.role == Role::Prover && member.zkvm == *zkvm;
    let is_known = match (book.members.get(prover), &signature.word) {
        (Some(member), _) => !member.fleet && member.key == *key && is_prover(member),
        (None, None) => false,
        (None, Some(word)) => {
            let (name, fleet) = enrol::replica(book, word, key)?;
            name == *prover && is_prover(fleet)
        }
    };
    if !is_known {
        return Err(NotSigned::Stranger {
            key: key.clone(),
            prover: prover.clone(),
            zkvm: zkvm.clone(),
        });
    }
    if signature.verifies(statement) {
        Ok(())
    } else {
        Err(NotSigned::Wrong(prover.clone()))
    }
}
