//! A prover's signature of how its attempt ended.
//!
//! The signature covers a short text, the statement ([`crate::message::statement`]).

use crate::StageName;
use nkeys::{KeyPair, KeyPairType};
use serde::{Deserialize, Serialize};

/// Length of a public key in the text form of NATS (an NKEY), in characters.
const KEY_LEN: usize = 56;
/// Most characters of a fleet's word: a public key, a dot, and 64 bytes in base64.
const WORD_LEN_MAX: usize = KEY_LEN + 1 + 88;
/// Length of an Ed25519 signature in bytes.
const SIGNATURE_LEN: usize = 64;

/// A prover's signature of a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Signature {
    /// The public key of the prover, an NKEY of 56 characters: `UABC…`.
    pub key: String,
    /// The word of the prover's fleet for this key, as shown by the prover at its sign-in; `None` for a prover
    /// with a key in the book.
    pub word: Option<String>,
    /// The Ed25519 signature, 64 bytes; hex digits in JSON.
    #[serde(with = "crate::payload::hex_or_bytes")]
    pub bytes: Vec<u8>,
}

/// A signature with unchecked lengths.
#[derive(Deserialize)]
struct Unchecked {
    key: String,
    #[serde(default)]
    word: Option<String>,
    #[serde(with = "crate::payload::hex_or_bytes")]
    bytes: Vec<u8>,
}

impl Signature {
    /// Returns whether the key made this signature of `statement`. Takes some 50 µs.
    pub fn verifies(&self, statement: &str) -> bool {
        let key = KeyPair::from_public_key(&self.key);
        key.is_ok_and(|key| {
            key.key_pair_type() == KeyPairType::User && key.verify(statement.as_bytes(), &self.bytes).is_ok()
        })
    }
}

impl TryFrom<Unchecked> for Signature {
    type Error = &'static str;

    fn try_from(Unchecked { key, word, bytes }: Unchecked) -> Result<Self, Self::Error> {
        if key.len() != KEY_LEN || bytes.len() != SIGNATURE_LEN {
            return Err("a signature has a key of 56 characters and 64 bytes");
        }
        if word.as_ref().is_some_and(|word| word.len() > WORD_LEN_MAX) {
            return Err("the word of a fleet has at most 145 characters");
        }
        Ok(Self { key, word, bytes })
    }
}

/// The signature of a proof in a record, with facts of the attempt beyond the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The stage of the attempt, which is the last one of its proof.
    pub stage: StageName,
    /// Position of the task in its stage, from 0.
    pub index: u32,
    /// The prover's signature.
    pub signature: Signature,
}
