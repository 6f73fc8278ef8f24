//! The enroller's configuration.

use push0_bus::NatsConfig;
use push0_runtime::{HasRuntimeConfig, HttpConfig, Invalid, TelemetryConfig};
use serde::Deserialize;
use std::path::PathBuf;

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
    /// A file with the seed of the key that signs the answers: `issuer.nk`.
    pub issuer_seed: PathBuf,
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
}
