//! The dispatcher's configuration.

use push0_bus::NatsConfig;
use push0_runtime::{HasRuntimeConfig, HttpConfig, Invalid, TelemetryConfig};
use serde::Deserialize;

/// All of it. Pipelines say what is urgent, and leases which provers are free.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The broker.
    pub nats: NatsConfig,
    /// How much is dispatched at a time.
    pub dispatch: Dispatch,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
    /// Health and metrics.
    pub http: HttpConfig,
}

/// How much is dispatched at a time: the `[dispatch]` section.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dispatch {
    /// How many blocks ahead of the next one to emit blocks are taken in. The rest waits in its stream.
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

    fn validate(&self) -> Result<(), Invalid> {
        match self.dispatch.ahead {
            0 | 1_000_001.. => Err(Invalid::new("dispatch.ahead", "1 to 1,000,000 blocks")),
            _ => Ok(()),
        }
    }
}
