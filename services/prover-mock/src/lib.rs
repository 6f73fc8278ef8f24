//! A prover that only takes its time: for tests, load and demonstrations.
//!
//! It takes as long as it is told, fails, hangs, crashes and lies as often as it is told, and does
//! the same in every run of the same seed. Its outputs are the JSON of push0's demo. They commit to
//! their block and can be checked, though anyone can make them: it proves nothing.

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
    /// A mock with this behaviour.
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
                    message: "the mock failed as it was told".into(),
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

#[expect(clippy::panic, reason = "how the SDK takes a panic can be seen with it")]
fn panic_as_told() {
    panic!("the mock panicked as it was told");
}
