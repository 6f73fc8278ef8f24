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

impl Prove for Miden {
    async fn prove(&self, work: Work) -> Result<Vec<Vec<u8>>, ProveError> {
        let header = &work.header;
        let pinned = pinned(header.program_id.as_deref()).map_err(ProveError::fatal)?;
        if pinned != program_id() {
            let (pinned, ours) = (hex(&pinned), hex(&program_id()));
            let message = format!("the pipeline pins program {pinned}, this prover has {ours}");
            return Err(ProveError::fatal(message));
        }
        let statement = statement(&header.id.stage.block, &header.context.parent_hash);
        let rlp = work.input()?.to_vec();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads);
        let pool = pool.build().map_err(|e| ProveError::retryable(e.to_string()))?;
        let proved = spawn_blocking(move || pool.install(|| prove(&statement, &rlp))).await;
        // A panic of the prover is resumed here: the SDK turns it into a failure.
        match proved.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic())) {
            Ok(proof) => Ok(vec![proof]),
            Err(error @ (Failure::Header(_) | Failure::Program(_))) => {
                Err(ProveError::fatal(error.to_string()))
            }
            Err(error @ Failure::Vm(_)) => Err(ProveError::retryable(error.to_string())),
        }
    }
}

impl Verify for Miden {
    async fn verify(&self, wanted: sdk::Statement, output: Vec<u8>) -> Result<Option<String>, ProveError> {
        let program = match pinned(wanted.program_id.as_deref()) {
            Ok(program) => program,
            Err(reason) => return Ok(Some(reason)),
        };
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
