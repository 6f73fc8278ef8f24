//! The watchdog's configuration.

use push0_bus::NatsConfig;
use push0_runtime::{HasRuntimeConfig, HttpConfig, TelemetryConfig};
use serde::Deserialize;

/// All of it: there is nothing to tune. Timeouts and hedges are said by pipelines, the rest follows from the heartbeat.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The broker.
    pub nats: NatsConfig,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
    /// Health and metrics.
    pub http: HttpConfig,
}

impl HasRuntimeConfig for Config {
    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn http(&self) -> &HttpConfig {
        &self.http
    }
}
