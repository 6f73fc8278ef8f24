//! The watchdog's configuration.

use crate::{reputation::Terms, silence};
use push0_bus::NatsConfig;
use push0_runtime::{BoxError, HasRuntimeConfig, HttpConfig, Invalid, TelemetryConfig};
use serde::Deserialize;
use std::time::Duration;

/// The whole configuration. Timeouts and hedges are set by pipelines, and most other times follow
/// from the heartbeat.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The connection to the broker.
    pub nats: NatsConfig,
    /// Silence after which a prover counts as dead although its connection to the broker is open. Default 10 s.
    #[serde(with = "humantime_serde")]
    pub condemn_after: Duration,
    /// How long bad provers get no work.
    pub quarantine: Terms,
    /// Settings for logs and traces.
    pub telemetry: TelemetryConfig,
    /// Address of health checks and metrics.
    pub http: HttpConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nats: NatsConfig::default(),
            condemn_after: silence::CONDEMN_AFTER,
            quarantine: Terms::default(),
            telemetry: TelemetryConfig::default(),
            http: HttpConfig::default(),
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
        Ok(self.nats.check_files()?)
    }

    fn validate(&self) -> Result<(), Invalid> {
        if !(silence::CONDEMN_AFTER_MIN..=silence::CONDEMN_AFTER_MAX).contains(&self.condemn_after) {
            return Err(Invalid::new("condemn_after", "a duration from 1s to 1h"));
        }
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
