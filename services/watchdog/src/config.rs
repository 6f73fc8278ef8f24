//! The watchdog's configuration.

use crate::reputation::Terms;
use push0_bus::NatsConfig;
use push0_runtime::{HasRuntimeConfig, HttpConfig, Invalid, TelemetryConfig};
use serde::Deserialize;

/// All of it. Timeouts and hedges are said by pipelines, most of the rest follows from the heartbeat.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The broker.
    pub nats: NatsConfig,
    /// How long bad provers get no work.
    pub quarantine: Terms,
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

    fn validate(&self) -> Result<(), Invalid> {
        let Terms { first, longest } = self.quarantine;
        if first.is_zero() || longest < first {
            return Err(Invalid::new(
                "quarantine.first",
                "more than nothing, and no more than quarantine.longest",
            ));
        }
        Ok(())
    }
}
