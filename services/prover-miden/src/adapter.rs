//! Adapter between push0 and Miden VM.

use crate::{
    Config, ProgramError, ProveError as Failure, Statement, VerifyError,
    program::{hex, program},
    program_id, prove, verify,
};
use push0_domain::{BlockHash, BlockRef};
use push0_prover_sdk::{self as sdk, Prove, ProveError, Role, Verify, Work};
use tokio::task::spawn_blocking;

/// The Miden prover and verifier.
#[derive(Clone, Debug)]
pub struct Miden {
    threads: usize,
}

impl Miden {
    /// Returns an adapter with the configured number of threads. A prover assembles the program here
    /// rather than with its first block.
    ///
    /// # Errors
    ///
    /// Fails if the assembled program is not the one named by [`program_id`].
    pub fn new(config: &Config, role: Role) -> Result<Self, ProgramError> {
        if role == Role::Prover {
            program()?;
        }
        Ok(Self {
            threads: config.threads(),
        })
    }
}

fn statement(block: &BlockRef, parent: &BlockHash) -> Statement {
    Statement {
        block_hash: block.hash.0,
        parent_hash: parent.0,
    }
}

/// Parses the program id pinned by a pipeline: 0x and 64 hex digits. Default: the id of
/// this build's program.
fn pinned(text: Option<&str>) -> Result<[u8; 32], String> {
    let Some(text) = text else {
        return Ok(program_id());
    };
    let mut id = [0; 32];
    let digits = text.strip_prefix("0x").unwrap_or_default();
    hex::decode_to_slice(digits, &mut id)
        .map_err(|_| format!("program id `{text}` is not 0x and 64 hex digits"))?;
    Ok(id)
}

/// Returns the error of an attempt without a proof. A build without its program fails every block alike, so
/// only a header that contradicts its block is the task's own failure.
fn unproved(error: &Failure) -> ProveError {
    let said = error.to_string();
    match error {
        Failure::Header(_) => ProveError::fatal(said),
        Failure::Program(_) => ProveError::surroundings(format!(
            "{said}: this build of prover-miden is at fault, run another"
        )),
        Failure::Vm(_) => ProveError::retryable(said),
    }
}

/// Returns the program that the pipeline pins, if this build has it. Another program is a fault of the
/// pipeline's definition or of this build, and says nothing about the task or the proof.
fn pinned_here(pin: Option<&str>) -> Result<[u8; 32], ProveError> {
    let pinned = pinned(pin).map_err(|wrong| {
        ProveError::surroundings(format!(
            "{wrong}: correct program_id in the pipeline (`prover-miden program-id` prints this build's)"
        ))
    })?;
    if pinned != program_id() {
        return Err(ProveError::surroundings(format!(
            "the pipeline pins program {}, this build of prover-miden has {}: run the build that has the \
             pinned program, or pin this build's",
            hex(&pinned),
            hex(&program_id())
        )));
    }
    Ok(pinned)
}

impl Prove for Miden {
    async fn prove(&self, work: Work) -> Result<Vec<Vec<u8>>, ProveError> {
        let header = &work.header;
        pinned_here(header.program_id.as_deref())?;
        let statement = statement(&header.id.stage.block, &header.context.parent_hash);
        let rlp = work.input()?.to_vec();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads);
        let pool = pool.build().map_err(|e| {
            ProveError::surroundings(format!(
                "{} threads did not start (miden.threads): {e}",
                self.threads
            ))
        })?;
        let proved = spawn_blocking(move || pool.install(|| prove(&statement, &rlp))).await;
        // A panic of the prover is resumed here: the SDK turns it into a failure.
        let proved = proved.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic()));
        proved.map(|proof| vec![proof]).map_err(|error| unproved(&error))
    }
}

impl Verify for Miden {
    async fn verify(&self, wanted: sdk::Statement, output: Vec<u8>) -> Result<Option<String>, ProveError> {
        let program = pinned_here(wanted.program_id.as_deref())?;
        if wanted.first.is_some() {
            return Ok(Some("this program proves single blocks, not ranges".into()));
        }
        let statement = statement(&wanted.block.block, &wanted.block.parent_hash);
        let verified = spawn_blocking(move || verify(&statement, &output, &program)).await;
        match verified {
            Ok(verdict) => Ok(verdict.err().map(|error: VerifyError| error.to_string())),
            Err(ended) => Err(ProveError::retryable(ended.to_string())),
        }
    }

    fn program_id(&self) -> Option<String> {
        Some(hex(&program_id()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProgramError;
    use push0_domain::message::FailureClass;

    #[test]
    fn a_build_without_its_program_is_no_fault_of_the_task() {
        let program = Failure::Program(ProgramError::Assemble("no such instruction".into()));
        let error = unproved(&program);
        assert_eq!(error.class, FailureClass::Surroundings, "{error}");
        assert!(error.message.contains("no such instruction"), "{error}");
    }

    #[test]
    fn a_pin_that_this_build_does_not_have_is_no_fault_of_the_task() {
        assert_eq!(pinned_here(None).unwrap(), program_id());
        assert_eq!(pinned_here(Some(&hex(&program_id()))).unwrap(), program_id());
        for pin in ["abc", &hex(&[0; 32])] {
            let error = pinned_here(Some(pin)).unwrap_err();
            assert_eq!(error.class, FailureClass::Surroundings, "{error}");
        }
    }
}
