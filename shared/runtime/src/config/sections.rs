//! Sections of every service's configuration, and the trait through which the runtime reads them.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::invalid::Invalid;
use crate::BoxError;

/// Default time limit for the stop of a service. Kubernetes kills a pod 30 s after asking it to stop; the
/// limit leaves 2 s for the flush of traces, and a margin.
pub const DEFAULT_SHUTDOWN_GRACE: Duration = Duration::from_secs(25);

/// The section `telemetry`: logs and traces.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// Filter of log lines: a level, or directives such as `info,push0_bus=debug`. With the default
    /// `warn,push0=info`, libraries, zkVM provers among them, log only warnings and errors.
    pub log: String,
    /// Format of log lines. Default `text`.
    pub format: LogFormat,
    /// Receiver of traces, such as `http://collector:4317`. Without this key and without
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, no traces are sent. TLS is not supported: a collector runs
    /// beside the service.
    pub otlp_endpoint: Option<String>,
    /// Protocol of the receiver of traces. Default `grpc`.
    pub otlp_protocol: OtlpProtocol,
    /// Share of new traces that is kept, from 0 to 1. A trace begun elsewhere keeps the decision made
    /// there. Default 1.
    pub sample_ratio: f64,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines of text for people.
    #[default]
    Text,
    /// One JSON object per line, for machines.
    Json,
}

/// Protocol between a service and its receiver of traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OtlpProtocol {
    /// OTLP over gRPC, usually on port 4317.
    #[default]
    Grpc,
    /// OTLP over HTTP with protobuf bodies, usually on port 4318. The path `/v1/traces` is appended
    /// to the endpoint.
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
    /// Address of `/health/live`, `/health/ready` and `/metrics`, such as `0.0.0.0:8080`. Port 0 picks a
    /// free port, which is logged. Default: no server.
    pub listen: Option<SocketAddr>,
}

/// Configuration of a service, containing the sections of this crate as `telemetry` and `http`.
pub trait HasRuntimeConfig {
    /// Returns the section `telemetry`.
    fn telemetry(&self) -> &TelemetryConfig;

    /// Returns the section `http`.
    fn http(&self) -> &HttpConfig;

    /// Returns the number of threads, beside the main one, that run the service's tasks. The default of 0
    /// suits a service that does not compute: a message received, decided on and answered by one thread
    /// wakes no other thread, and each wake-up costs more than most decisions.
    fn worker_threads(&self) -> usize {
        0
    }

    /// Returns the time limit of a requested stop. A service that takes longer ends with a failure.
    fn shutdown_grace(&self) -> Duration {
        DEFAULT_SHUTDOWN_GRACE
    }

    /// Checks the constraints not expressed by the types: ranges, and dependencies between keys.
    ///
    /// # Errors
    /// The first key with an invalid value.
    fn validate(&self) -> Result<(), Invalid> {
        Ok(())
    }

    /// Reads the files that the configuration names, before the service starts. `--check-config` does not: the files may
    /// be on another machine.
    ///
    /// # Errors
    /// A file is missing, unreadable or of the wrong kind.
    fn check_files(&self) -> Result<(), BoxError> {
        Ok(())
    }
}
