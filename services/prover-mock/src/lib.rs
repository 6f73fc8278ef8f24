//! Prover that only waits: for tests, load tests and demonstrations.
//!
//! Durations and the rates of failures, hangs, crashes and false proofs are configured, and repeat exactly
//! for the same seed. Outputs have the JSON format of push0's demo. An output commits to its block and can
//! be checked, but it proves nothing: anyone can compute one.

mod config;
mod fate;
mod output;
mod timer;

pub use config::{Config, MockConfig, MockFailure};
use fate::{Fate, fate};
use push0_domain::message::StageKind;
use push0_prover_sdk::{Prove, ProveError, Statement, Verify, Work};
pub use timer::sleep;

/// The mock prover and its verifier.
#[derive(Clone, Debug)]
pub struct Mock {
    config: MockConfig,
}

impl Mock {
    /// Returns a mock with this behaviour.
    pub fn new(config: &MockConfig) -> Self {
        Self {
            config: config.clone(),
        }
    }
}

impl Prove for Mock {
    async fn prove(&self, work: Work) -> Result<Vec<Vec<u8>>, ProveError> {
        let header = &work.header;
        let stamp = self.config.stamp.then(|| output::Stamp {
            released_us: work.released_at.0,
            began_us: push0_bus::now().0,
        });
        let (time, fate) = fate(&self.config, header);
        sleep(time).await;
        match fate {
            Fate::Proof | Fate::False => {}
            Fate::Failure => {
                return Err(ProveError {
                    class: self.config.failure_class.into(),
                    message: "the mock failed as configured".into(),
                });
            }
            Fate::Hang => std::future::pending().await,
            Fate::Crash => std::process::abort(),
            Fate::Panic => panic_as_told(),
        }
        let about = output::About {
            block: header.id.stage.block,
            parent_hash: header.context.parent_hash,
            stamp,
        };
        let valid = fate != Fate::False;
        let outputs = match header.kind {
            StageKind::Split => (0..self.config.split)
                .map(|step| about.step(step, self.config.output_bytes, valid))
                .collect(),
            _ => vec![about.proof(header.zkvm.as_str(), self.config.output_bytes, valid)],
        };
        Ok(outputs)
    }
}

impl Verify for Mock {
    async fn verify(&self, statement: Statement, output: Vec<u8>) -> Result<Option<String>, ProveError> {
        sleep(self.config.verify_time).await;
        let about = output::About {
            block: statement.block.block,
            parent_hash: statement.parent_hash(),
            stamp: None,
        };
        Ok(about.refusal(&output))
    }
}

#[expect(clippy::panic, reason = "tests need a panic to see how the SDK handles one")]
fn panic_as_told() {
    panic!("the mock panicked as configured");
}
