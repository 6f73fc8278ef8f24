//! Taking part on a broker with accounts: the process's key and name, and how it reaches the streams.

use crate::{Common, ProverConfig, signer::Signer};
use push0_accounts::{
    API_PREFIX,
    enrol::{self, Enrolment},
};
use push0_bus::{DrawnKey, Membership, NatsConfig, Stream, consumer_of_checks, consumer_of_tasks};
use push0_domain::{ProverId, ZkvmId, message::Role};
use push0_runtime::BoxError;
use std::path::Path;

/// A credential that cannot be used: a mistake in the configuration.
#[derive(Debug, thiserror::Error)]
#[error("prover.enrol `{path}`: {reason}; `push0 auth add-prover --fleet` writes such a file")]
pub(crate) struct NoCredential {
    path: String,
    reason: String,
}

/// Draws a key and signs the key with a fleet's credential.
fn enrolled(credential: &Path) -> Result<Enrolment, NoCredential> {
    let failed = |reason: String| NoCredential {
        path: credential.display().to_string(),
        reason,
    };
    let seed = std::fs::read_to_string(credential).map_err(|e| failed(e.to_string()))?;
    enrol::enrol(&seed).map_err(failed)
}

impl Common {
    /// Checks the files that the sections name. The services of a deployment share their environment, and an enrolling
    /// replica has no seed of its own: a seed named there is not read.
    ///
    /// # Errors
    /// The first key whose file cannot be used.
    pub fn check_files(mut self) -> Result<(), BoxError> {
        if let Some(credential) = &self.prover.enrol {
            enrolled(credential)?;
            self.nats.nkey_seed = None;
        }
        Ok(self.nats.check_files()?)
    }
}

/// Returns the name of this process, and the key that signs its results. Completes `nats` with the process's key and
/// account, if the process signs in with a key.
pub(crate) fn join(
    nats: &mut NatsConfig,
    config: &ProverConfig,
    zkvm: &ZkvmId,
    role: Role,
) -> Result<(ProverId, Option<Signer>), BoxError> {
    let enrolment = config.enrol.as_deref().map(enrolled).transpose()?;
    let id = match &enrolment {
        Some(enrolment) => enrol::name_of(zkvm, &enrolment.key)?,
        None if config.id.is_empty() => ProverId::new(&format!("{zkvm}-{:08x}", rand::random::<u32>()))?,
        None => ProverId::new(&config.id)?,
    };
    let signer = match (&enrolment, &nats.nkey_seed) {
        (Some(enrolment), _) => Some(Signer::new(&enrolment.seed, Some(enrolment.word.clone()))?),
        (None, Some(path)) => {
            let named = |reason: String| format!("nats.nkey_seed `{}`: {reason}", path.display());
            let seed = std::fs::read_to_string(path).map_err(|e| named(e.to_string()))?;
            Some(Signer::new(&seed, None).map_err(named)?)
        }
        (None, None) => None,
    };
    if enrolment.is_some() {
        // The environment may name a seed for all services, and a replica has no such file.
        nats.nkey_seed = None;
    }
    // Without a key the broker has no accounts, or those of another make.
    if enrolment.is_some() || nats.nkey_seed.is_some() {
        nats.membership = Some(Membership {
            api_prefix: API_PREFIX.to_owned(),
            consumer: match role {
                Role::Prover => (Stream::Tasks, consumer_of_tasks(zkvm)),
                Role::Verifier => (Stream::Checks, consumer_of_checks(zkvm)),
            },
            drawn: enrolment.map(|enrolment| DrawnKey {
                seed: enrolment.seed,
                word: enrolment.word,
            }),
        });
    }
    Ok((id, signer))
}

#[cfg(test)]
mod tests {
    use crate::AdapterConfig;
    use push0_runtime::HasRuntimeConfig as _;
    use std::io::Write as _;

    #[test]
    fn a_replica_that_enrols_needs_its_credential_and_no_seed() {
        let mut credential = tempfile::NamedTempFile::new().expect("a file");
        let seed = nkeys::KeyPair::new_user().seed().expect("a seed");
        write!(credential, "{seed}").expect("written");
        let refused = |enrol: Option<std::path::PathBuf>| {
            let mut config = AdapterConfig::default();
            config.nats.nkey_seed = Some("/nowhere/seed".into());
            config.prover.enrol = enrol;
            config.check_files().err().map(|error| error.to_string())
        };
        assert_eq!(refused(Some(credential.path().to_owned())), None);
        let missing = refused(Some("/nowhere/credential".into())).expect("refused");
        assert!(
            missing.starts_with("prover.enrol `/nowhere/credential`: No such file"),
            "{missing}"
        );
        let seed = refused(None).expect("refused");
        assert!(seed.starts_with("nats.nkey_seed `/nowhere/seed`"), "{seed}");
    }
}
