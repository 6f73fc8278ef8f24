//! A prover adapter for the zkVM `stamp`, whose proof of a block is the block's hash, once or several times.
//!
//! The SDK takes tasks, sends heartbeats, stores results, enforces timeouts and drains. An adapter says how
//! a proof is made and how a proof is checked. `prover-stamp` proves; `prover-stamp --verify` verifies.

use push0_prover_sdk::{AdapterConfig, Prove, ProveError, Statement, Verify, Work};
use std::{hint::black_box, process::ExitCode};

const HASH_LEN: usize = 32;
const STEPS: u16 = 10;
/// Rounds of a step, some milliseconds in all steps together.
const ROUNDS: u32 = 1_000_000;

struct Stamp;

impl Prove for Stamp {
    async fn prove(&self, work: Work) -> Result<Vec<Vec<u8>>, ProveError> {
        let hash = work.header.id.stage.block.hash.0;
        let (stop, progress) = (work.stop.clone(), work.progress.clone());
        // Work that computes belongs in `spawn_blocking` or in a process of its own. The SDK drops this
        // future when the attempt is stopped, but only the token reaches the blocking thread.
        let proving = tokio::task::spawn_blocking(move || {
            for step in 0..STEPS {
                if stop.is_cancelled() {
                    return None;
                }
                progress.set_permille(step * 1000 / STEPS);
                // The computation of a real zkVM.
                for round in 0..ROUNDS {
                    black_box(round);
                }
            }
            Some(hash.to_vec())
        });
        let proof = proving
            .await
            .map_err(|panic| ProveError::retryable(panic.to_string()))?;
        let proof = proof.ok_or_else(|| ProveError::retryable("stopped"))?;
        Ok(vec![proof])
    }
}

impl Verify for Stamp {
    async fn verify(&self, statement: Statement, proof: Vec<u8>) -> Result<Option<String>, ProveError> {
        // The statement comes from the ingester and the pipeline, never from the prover.
        let hash = &statement.block.block.hash.0;
        let is_valid = !proof.is_empty() && proof.chunks(HASH_LEN).all(|part| part == hash);
        Ok((!is_valid).then(|| "the proof is not the hash of this block".to_owned()))
    }
}

fn main() -> ExitCode {
    push0_prover_sdk::main(
        "prover-stamp",
        env!("CARGO_PKG_VERSION"),
        "stamp",
        |_: &AdapterConfig, _role| Ok(Stamp),
    )
}
