//! Reasons why logs and traces cannot be set up.

use crate::Invalid;

/// Reasons why telemetry cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A setting is invalid. [`check`](super::check) reports this earlier.
    #[error("{}: expected {}", .0.key, .0.expected)]
    Config(Invalid),
    /// The trace exporter cannot be built.
    #[error("the exporter of traces cannot be built")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
    /// The counter of lost spans cannot be registered.
    #[error("lost spans cannot be counted")]
    Metric(#[source] crate::metrics::MetricError),
    /// Another part of this process has already set a global subscriber.
    #[error("logs are already set up in this process")]
    AlreadySet,
}
