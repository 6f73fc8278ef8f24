//! The enroller's configuration.

use push0_accounts::{Book, check_issuer};
use push0_bus::NatsConfig;
use push0_runtime::{BoxError, HasRuntimeConfig, HttpConfig, Invalid, TelemetryConfig};
use serde::Deserialize;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The whole configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The connection to the broker.
    pub nats: NatsConfig,
    /// Who may enrol.
    pub enrol: EnrolConfig,
    /// Settings for logs and traces.
    pub telemetry: TelemetryConfig,
    /// Address of health checks and metrics.
    pub http: HttpConfig,
}

/// The `[enrol]` section.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnrolConfig {
    /// The book of keys, as `push0 auth` writes it: `public/accounts.json`. Read again for each question.
    pub accounts: PathBuf,
    /// A file with the seed of the key that signs the answers: `issuer.nk`. Read again for each question.
    pub issuer_seed: PathBuf,
}

/// A file of the section `[enrol]` cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("enrol.{key} `{path}`: {reason}; {remedy}")]
pub(crate) struct Unusable {
    key: &'static str,
    path: String,
    reason: String,
    remedy: &'static str,
}

impl EnrolConfig {
    /// Takes the book out of the content of its file.
    pub(crate) fn book(&self, content: io::Result<Vec<u8>>) -> Result<Book, Unusable> {
        let unusable = |reason| Unusable {
            key: "accounts",
            path: shown(&self.accounts),
            reason,
            remedy: "`push0 auth init DIR` writes it (DIR/public/accounts.json)",
        };
        let content = content.map_err(|error| unusable(error.to_string()))?;
        serde_json::from_slice(&content).map_err(|error| unusable(error.to_string()))
    }

    /// Takes the issuer's seed out of the content of its file.
    pub(crate) fn issuer(&self, content: io::Result<String>) -> Result<String, Unusable> {
        let unusable = |reason| Unusable {
            key: "issuer_seed",
            path: shown(&self.issuer_seed),
            reason,
            remedy: "it is DIR/issuer.nk of `push0 auth init DIR`",
        };
        let seed = content.map_err(|error| unusable(error.to_string()))?;
        check_issuer(&seed).map_err(|error| unusable(error.to_string()))?;
        Ok(seed)
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

impl HasRuntimeConfig for Config {
    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn http(&self) -> &HttpConfig {
        &self.http
    }

    fn validate(&self) -> Result<(), Invalid> {
        for (key, path) in [
            ("enrol.accounts", &self.enrol.accounts),
            ("enrol.issuer_seed", &self.enrol.issuer_seed),
        ] {
            if path.as_os_str().is_empty() {
                return Err(Invalid::new(key, "the path of a file that `push0 auth` wrote"));
            }
        }
        Ok(())
    }

    fn check_files(&self) -> Result<(), BoxError> {
        self.nats.check_files()?;
        self.enrol.book(fs::read(&self.enrol.accounts))?;
        self.enrol.issuer(fs::read_to_string(&self.enrol.issuer_seed))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrong_file_is_named_with_its_key_and_its_origin() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (manifest, nowhere) = (here.join("Cargo.toml"), PathBuf::from("/nowhere"));
        let files = |accounts: &Path| EnrolConfig {
            accounts: accounts.to_owned(),
            issuer_seed: manifest.clone(),
        };
        let refused = |config: Config| {
            config
                .check_files()
                .expect_err("a wrong file is refused")
                .to_string()
        };
        let with = |enrol| Config {
            enrol,
            ..Config::default()
        };
        let missing = refused(with(files(&nowhere)));
        assert!(
            missing.starts_with("enrol.accounts `/nowhere`: No such file"),
            "{missing}"
        );
        assert!(
            missing.ends_with("`push0 auth init DIR` writes it (DIR/public/accounts.json)"),
            "{missing}"
        );
        let malformed = refused(with(files(&manifest)));
        assert!(malformed.starts_with("enrol.accounts `"), "{malformed}");

        let no_seed = files(&nowhere)
            .issuer(fs::read_to_string(&manifest))
            .expect_err("no seed");
        let no_seed = no_seed.to_string();
        assert!(no_seed.contains("the issuer's key cannot sign"), "{no_seed}");
        assert!(
            no_seed.ends_with("it is DIR/issuer.nk of `push0 auth init DIR`"),
            "{no_seed}"
        );

        let mut config = with(files(&nowhere));
        config.nats.nkey_seed = Some(nowhere);
        assert!(refused(config).starts_with("nats.nkey_seed `/nowhere`: No such file"));
    }
}
