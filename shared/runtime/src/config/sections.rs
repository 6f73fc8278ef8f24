//! The sections that every service has, and what the runtime asks of a service's configuration.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Invalid;
use crate::telemetry;

/// How long a service may take to stop: Kubernetes kills a pod 30 s after it asked it to stop, less
/// the 2 s in which the traces are flushed and a margin.
pub const DEFAULT_SHUTDOWN_GRACE: Duration = Duration::from_secs(25);

/// The section `telemetry`: logs and traces.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// What is logged: a level, or directives such as `info,push0_bus=debug`. Default `warn,push0=info`:
    /// of libraries, provers among them, only what is wrong.
    pub log: String,
    /// How it is logged. Default `text`.
    pub format: LogFormat,
    /// Where traces go, such as `http://collector:4317`; without it (nor `OTEL_EXPORTER_OTLP_ENDPOINT`)
    /// there are none. TLS is not spoken: a collector stands beside the service.
    pub otlp_endpoint: Option<String>,
    /// How traces get there. Default `grpc`.
    pub otlp_protocol: OtlpProtocol,
    /// The part of new traces that is kept, from 0 to 1; a trace begun elsewhere keeps its decision.
    /// Default 1.
    pub sample_ratio: f64,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// How traces are sent to their receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OtlpProtocol {
    /// OTLP over gRPC, by custom on port 4317.
    #[default]
    Grpc,
    /// OTLP over HTTP with protobuf bodies, by custom on port 4318; `/v1/traces` is appended to the
    /// endpoint.
    Http,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log: "warn,push0=info".to_owned(),
            format: LogFormat::default(),
            otlp_endpoint: None,
            otlp_protocol: OtlpProtocol::default(),
            sample_ratio: 1.0,
        }
    }
}

/// The section `http`: health and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address of `/health/live`, `/health/ready` and `/metrics`, such as `0.0.0.0:8080`; port 0
    /// picks a free one, which is logged. Default: no server.
    pub listen: Option<SocketAddr>,
}

/// A service's configuration, which holds the sections of this crate as `telemetry` and `http`.
pub trait HasRuntimeConfig {
    /// The section `telemetry`.
    fn telemetry(&self) -> &TelemetryConfig;

    /// The section `http`.
    fn http(&self) -> &HttpConfig;

    /// Threads beside the main one that run the service's tasks. None, unless a service computes: a
    /// message that is received, decided on and answered by one thread wakes no other, and each
    /// wake-up costs more than most decisions.
    fn worker_threads(&self) -> usize {
        0
    }

    /// How long the service may take to stop once it was asked to, before it is given up.
    fn shutdown_grace(&self) -> Duration {
        DEFAULT_SHUTDOWN_GRACE
    }

    /// What types cannot say: ranges, and keys that depend on each other.
    ///
    /// # Errors
    /// The first key that does not fit.
    fn validate(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// All checks: those of the sections, then the service's own.
pub(crate) fn check<C: HasRuntimeConfig>(config: &C) -> Result<(), Invalid> {
    telemetry::check(config.telemetry())?;
    config.validate()
}
