//! The watchdog's configuration.

use crate::reputation::Terms;
use push0_bus::NatsConfig;
use push0_runtime::{HasRuntimeConfig, HttpConfig, Invalid, TelemetryConfig};
use serde::Deserialize;

/// The whole configuration. Timeouts and hedges are set by pipelines, and most other times follow
/// from the heartbeat.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The connection to the broker.
    pub nats: NatsConfig,
    /// How long bad provers get no work.
    pub quarantine: Terms,
    /// Settings for logs and traces.
    pub telemetry: TelemetryConfig,
    /// Address of health checks and metrics.
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
                "a duration above zero and at most quarantine.longest",
            ));
        }
        Ok(())
    }
}
