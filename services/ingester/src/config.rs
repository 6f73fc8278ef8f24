//! The configuration. What is ingested stands in the pipelines, not here.

use push0_bus::NatsConfig;
use push0_runtime::{HasRuntimeConfig, HttpConfig, TelemetryConfig};
use serde::Deserialize;
use std::net::SocketAddr;

/// The configuration of the ingester.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The broker.
    pub nats: NatsConfig,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
    /// Health and metrics.
    pub http: HttpConfig,
    /// Blocks by HTTP.
    pub submit: SubmitConfig,
}

/// The section `submit`: where blocks of `http` pipelines are posted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubmitConfig {
    /// Address of `POST /v1/pipelines/{name}/blocks`, such as `127.0.0.1:8090`; port 0 picks a free
    /// one, which is logged. Whoever reaches it can submit blocks. Default: no server.
    pub listen: Option<SocketAddr>,
}

impl HasRuntimeConfig for Config {
    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn http(&self) -> &HttpConfig {
        &self.http
    }
}
