//! Configuration of the Miden prover.

use push0_bus::NatsConfig;
use push0_prover_sdk::{Common, ProverConfig};
use push0_runtime::{BoxError, HasRuntimeConfig, HttpConfig, Invalid, TelemetryConfig};
use serde::Deserialize;
use std::{num::NonZeroUsize, thread, time::Duration};

/// Configuration of the Miden prover, one field per section.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Connection to the broker.
    pub nats: NatsConfig,
    /// Log and trace settings.
    pub telemetry: TelemetryConfig,
    /// Address of the health and metrics endpoints.
    pub http: HttpConfig,
    /// Settings shared by all adapters.
    pub prover: ProverConfig,
    /// Settings of Miden VM.
    pub miden: MidenConfig,
}

/// The section `miden`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MidenConfig {
    /// Threads of each attempt. Default: the machine's cores divided by the slots.
    pub threads: Option<NonZeroUsize>,
}

impl Config {
    /// Returns the number of threads of one attempt.
    pub(crate) fn threads(&self) -> usize {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let share = (cores / self.prover.slots.max(1) as usize).max(1);
        self.miden.threads.map_or(share, NonZeroUsize::get)
    }
}

impl From<&Config> for Common {
    fn from(config: &Config) -> Self {
        Self {
            nats: config.nats.clone(),
            prover: config.prover.clone(),
        }
    }
}

impl HasRuntimeConfig for Config {
    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn http(&self) -> &HttpConfig {
        &self.http
    }

    fn check_files(&self) -> Result<(), BoxError> {
        Common::from(self).check_files()
    }

    fn shutdown_grace(&self) -> Duration {
        self.prover.shutdown_grace()
    }

    fn validate(&self) -> Result<(), Invalid> {
        self.prover.validate()
    }
}
