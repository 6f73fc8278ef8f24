//! The configuration.

use push0_bus::NatsConfig;
use push0_prover_sdk::{Common, ProverConfig};
use push0_runtime::{HasRuntimeConfig, HttpConfig, Invalid, TelemetryConfig};
use serde::Deserialize;
use std::{num::NonZeroUsize, thread, time::Duration};

/// The configuration of the Miden prover.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The broker.
    pub nats: NatsConfig,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
    /// Health and metrics.
    pub http: HttpConfig,
    /// What every adapter has.
    pub prover: ProverConfig,
    /// Miden VM.
    pub miden: MidenConfig,
}

/// The section `miden`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MidenConfig {
    /// The threads of each attempt. Default: the machine's cores, shared by the slots.
    pub threads: Option<NonZeroUsize>,
}

impl Config {
    /// The threads of one attempt.
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

    fn shutdown_grace(&self) -> Duration {
        self.prover.shutdown_grace()
    }

    fn validate(&self) -> Result<(), Invalid> {
        self.prover.validate()
    }
}
