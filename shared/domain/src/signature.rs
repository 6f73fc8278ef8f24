//! A prover's signature of how its attempt ended.
//!
//! The signature covers a short text, the statement, which a reader of the ordered output can write down from a record.
//! So a reader that has the book of keys sees which prover made a proof, even behind a broker that lies.

use crate::{AttemptId, Payload, Payloads, ProverId, StageName, ZkvmId, message::Outcome, payload::BlobHash};
use nkeys::{KeyPair, KeyPairType};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// The first line of a statement, so that no other signature of the key passes for one.
const PURPOSE: &str = "push0-result-v1";
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
    /// The word of the prover's fleet for this key, as the prover showed it when it signed in; `None` for a prover
    /// with a key in the book.
    pub word: Option<String>,
    /// The Ed25519 signature, 64 bytes; hex digits in JSON.
    #[serde(with = "crate::payload::hex_or_bytes")]
    pub bytes: Vec<u8>,
}

/// A signature whose lengths nobody has checked.
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

/// The signature of a proof in a record, with what the record does not tell of the attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The stage of the attempt, which is the last one of its proof.
    pub stage: StageName,
    /// Position of the task in its stage, from 0.
    pub index: u32,
    /// The prover's signature.
    pub signature: Signature,
}

/// Returns the text that a prover signs: lines that end with a line feed.
///
/// ```text
/// push0-result-v1
/// attempt demo 17-0x9f…(64 digits) 17-0x9f…(64 digits) main prove 0 1
/// prover mock p1
/// output 2c26…(64 hex digits)
/// ```
///
/// The second line has the pipeline, the first and the last block, the proof's type, the stage, the task's index and the
/// attempt. For each output a line has the SHA-256 of its bytes; of more than one in chunks, that of each chunk. An entry
/// of a chunk is `output` with the hash of the chunk and the entry's position. A failed attempt has one line
/// `failed` instead, with the class and the SHA-256 of the message.
pub fn statement(id: &AttemptId, zkvm: &ZkvmId, prover: &ProverId, outcome: &Outcome) -> String {
    let (task, stage) = (&id.task, &id.task.stage);
    let (first, last) = (stage.first_block(), stage.block);
    let mut text = format!(
        "{PURPOSE}\nattempt {} {}-{} {}-{} {} {} {} {}\nprover {zkvm} {prover}\n",
        stage.pipeline,
        first.number,
        first.hash,
        last.number,
        last.hash,
        stage.proof_type,
        stage.stage,
        task.index,
        id.number,
    );
    match outcome {
        Outcome::Completed { outputs } => write_outputs(&mut text, outputs),
        Outcome::Failed(failure) => {
            let message = BlobHash::of(failure.message.as_bytes());
            // The name of the class as JSON has it.
            let class = failure.class.as_str().replace('-', "_");
            let _ = writeln!(text, "failed {class} {message}");
        }
    }
    text
}

fn write_outputs(text: &mut String, outputs: &Payloads) {
    let mut write = |output: &Payload| {
        let _ = match output {
            Payload::Inline(bytes) => writeln!(text, "output {}", BlobHash::of(bytes)),
            Payload::Blob(blob) => writeln!(text, "output {}", blob.hash),
            Payload::Entry { chunk, entry } => writeln!(text, "output {} {entry}", chunk.hash),
        };
    };
    match (outputs, outputs.get(0)) {
        // A record holds the only output of its last stage, and not the list.
        (_, Some(only)) if outputs.count() == 1 => write(&only),
        (Payloads::List(list), _) => list.iter().for_each(write),
        (Payloads::Chunked { chunks, .. }, _) => {
            chunks
                .iter()
                .for_each(|chunk| write(&Payload::Blob(chunk.clone())));
        }
    }
}
