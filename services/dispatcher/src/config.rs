//! The dispatcher's configuration.

use push0_bus::NatsConfig;
use push0_runtime::{BoxError, HasRuntimeConfig, HttpConfig, Invalid, TelemetryConfig};
use serde::Deserialize;

/// The whole configuration. Urgency comes from pipelines, and free provers from leases.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The connection to the broker.
    pub nats: NatsConfig,
    /// Limits on dispatching: the `[dispatch]` section.
    pub dispatch: Dispatch,
    /// Settings for logs and traces.
    pub telemetry: TelemetryConfig,
    /// Address of health checks and metrics.
    pub http: HttpConfig,
}

/// Limits on dispatching: the `[dispatch]` section.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dispatch {
    /// How many blocks beyond the next number to emit are taken in. Further blocks wait in their stream.
    pub ahead: u32,
}

impl Default for Dispatch {
    fn default() -> Self {
        Self { ahead: 8192 }
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
        Ok(self.nats.check_files()?)
    }

    fn validate(&self) -> Result<(), Invalid> {
        match self.dispatch.ahead {
            0 | 1_000_001.. => Err(Invalid::new("dispatch.ahead", "1 to 1,000,000 blocks")),
            _ => Ok(()),
        }
    }
}
