//! The signed statement of a prover: how its attempt ended.
//!
//! A reader of the ordered output can write the statement down from a record. So a reader that has the book of keys sees
//! which prover made a proof, even behind a broker that lies.

use super::{Emission, Outcome, Proof, TaskResult};
use crate::{AttemptId, Payload, Payloads, ProverId, StageKey, ZkvmId, payload::BlobHash};
use std::fmt::Write;

/// The first line of a statement, so that no other signature of the key passes for one.
const PURPOSE: &str = "push0-result-v1";

impl TaskResult {
    /// Returns the text that the prover of the attempt signs.
    pub fn statement(&self) -> String {
        let id = self.header.attempt_id();
        statement(&id, &self.header.zkvm, &self.prover, &self.outcome)
    }
}

impl Emission {
    /// Returns the text that the prover of this proof signed; `None` for a proof without a signature.
    pub fn statement(&self, proof: &Proof) -> Option<String> {
        let signed = proof.signed.as_ref()?;
        let stage = StageKey {
            pipeline: self.pipeline.clone(),
            block: self.last,
            first: Some(self.first),
            proof_type: proof.proof_type.clone(),
            stage: signed.stage.clone(),
        };
        let id = stage.task(signed.index).attempt(proof.attempt);
        let outputs = Payloads::one(proof.payload.clone());
        let outcome = Outcome::Completed { outputs };
        Some(statement(&id, &proof.zkvm, &proof.prover, &outcome))
    }
}

/// Returns the text that a prover signs: lines, each with a line feed.
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
