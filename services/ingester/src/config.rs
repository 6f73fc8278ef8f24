//! Configuration of the ingester. The sources of blocks are configured in the pipelines, not here.

use push0_bus::NatsConfig;
use push0_runtime::{HasRuntimeConfig, HttpConfig, TelemetryConfig};
use serde::Deserialize;
use std::net::SocketAddr;

/// The configuration of the ingester.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Connection to the broker.
    pub nats: NatsConfig,
    /// Settings of logs and traces.
    pub telemetry: TelemetryConfig,
    /// Server for health and metrics.
    pub http: HttpConfig,
    /// Server for blocks submitted by HTTP.
    pub submit: SubmitConfig,
}

/// The section `submit`: the server to which blocks of `http` pipelines are posted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubmitConfig {
    /// Address of `POST /v1/pipelines/{name}/blocks`, such as `127.0.0.1:8090`. Port 0 picks a free port,
    /// which is logged. Every client able to reach the address can submit blocks. Default: no server.
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
