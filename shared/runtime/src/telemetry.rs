//! Logs on stderr and traces to an OTLP receiver.
//!
//! Telemetry never slows or stops the work. Spans go into a bounded queue that drops when it is full;
//! a receiver that is away costs one log line when it goes and one when it comes back, and the lost
//! spans are counted (`push0_spans_lost_total`). Only push0's own spans, down to the level `info`,
//! are traced, whatever the log filter says: those of the libraries that carry the traces would beget
//! new ones, and a zkVM's would bury ours.

mod endpoint;
mod export;

use std::io::IsTerminal as _;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Dispatch, Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::config::LogFormat;
use crate::{Invalid, TelemetryConfig, tasks};

/// Telemetry cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The configuration does not fit; [`check`] finds this before.
    #[error("{}: expected {}", .0.key, .0.expected)]
    Config(Invalid),
    /// The exporter of traces cannot be built.
    #[error("traces cannot be exported")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
    /// Spans that are lost cannot be counted.
    #[error("traces cannot be counted")]
    Metric(#[source] crate::metrics::MetricError),
    /// Something else in this process has set a global subscriber.
    #[error("logs are already set up in this process")]
    AlreadySet,
}

/// Whoever logs and traces, to be flushed before the process ends.
#[derive(Debug)]
#[must_use = "traces are flushed by `shutdown`"]
pub struct TelemetryGuard(Option<SdkTracerProvider>);

impl TelemetryGuard {
    /// Sends the spans that are still queued, for at most `timeout`. Blocks: not for an async task,
    /// unless by `spawn_blocking`. The runtime must still be alive. Returns whether all spans left.
    pub fn shutdown(self, timeout: Duration) -> bool {
        self.0
            .is_none_or(|provider| provider.shutdown_with_timeout(timeout).is_ok())
    }
}

/// Checks what the types cannot say: the filter, the endpoint, the ratio.
///
/// # Errors
/// The first key that does not fit.
pub fn check(config: &TelemetryConfig) -> Result<(), Invalid> {
    log_filter(&config.log)?;
    if !(0.0..=1.0).contains(&config.sample_ratio) {
        return Err(Invalid::new("telemetry.sample_ratio", "a number from 0 to 1"));
    }
    endpoint::resolve(config, |name| std::env::var(name).ok()).map(drop)
}

/// Sets up logs and traces for the whole process. Needs the context of the runtime that will carry
/// the traces. `name` without prefix: the traces are those of the service `push0-<name>`.
///
/// # Errors
/// See [`TelemetryError`].
pub fn init(name: &str, version: &str, config: &TelemetryConfig) -> Result<TelemetryGuard, TelemetryError> {
    let (dispatch, guard) = build(name, version, config)?;
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| TelemetryError::AlreadySet)?;
    Ok(guard)
}

/// As [`init`], but leaves it to the caller to say whose logs and traces these are.
///
/// # Errors
/// See [`TelemetryError`].
pub fn build(
    name: &str,
    version: &str,
    config: &TelemetryConfig,
) -> Result<(Dispatch, TelemetryGuard), TelemetryError> {
    let filter = log_filter(&config.log).map_err(TelemetryError::Config)?;
    let logs = log_layer(config.format).with_filter(filter);

    let target =
        endpoint::resolve(config, |name| std::env::var(name).ok()).map_err(TelemetryError::Config)?;
    let provider = target.map(|target| export::provider(name, version, &target, config.sample_ratio));
    let provider = provider.transpose()?;
    let traces = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("push0"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(is_traced).with_max_level_hint(Level::INFO))
    });
    let registry = Registry::default().with(logs);
    // Not an optional layer: where there is none, each span and event that nobody wants would be asked
    // about whenever it comes by, instead of once.
    let dispatch = match traces {
        Some(traces) => Dispatch::new(registry.with(traces)),
        None => Dispatch::new(registry),
    };
    Ok((dispatch, TelemetryGuard(provider)))
}

fn is_traced(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("push0")
        && metadata.target() != tasks::SPAN_TARGET
        && *metadata.level() <= Level::INFO
}

fn log_layer(format: LogFormat) -> Box<dyn Layer<Registry> + Send + Sync> {
    let layer = fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

fn log_filter(directives: &str) -> Result<EnvFilter, Invalid> {
    let refused = || {
        Invalid::new(
            "telemetry.log",
            "a level or directives, such as `info,push0_bus=debug`",
        )
    };
    // A lone word that is no level would be a target: `inof` would silence everything else.
    // Nothing at all would be the level `error`.
    let is_level =
        |word: &str| !word.is_empty() && word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    let mut directives: Vec<_> = directives.split(',').map(str::trim).collect();
    if !directives.iter().all(|d| d.contains(['=', '[']) || is_level(d)) {
        return Err(refused());
    }
    // The SDK complains at every failed export; the exporter says it once instead.
    if !directives.iter().any(|d| d.contains("opentelemetry")) {
        directives.push("opentelemetry=off");
    }
    EnvFilter::try_new(directives.join(",")).map_err(|_| refused())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_would_silence_by_mistake_is_refused() {
        for good in [
            "info",
            "WARN",
            "info,push0_bus=debug",
            "off",
            "info, push0_bus[consume]=trace",
        ] {
            assert!(log_filter(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "push0_bus=loud", "info,push0_bus"] {
            assert!(log_filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_ratio_outside_its_range_is_refused() {
        for (ratio, fits) in [
            (0.0, true),
            (1.0, true),
            (1.5, false),
            (-0.1, false),
            (f64::NAN, false),
        ] {
            let config = TelemetryConfig {
                sample_ratio: ratio,
                ..TelemetryConfig::default()
            };
            assert_eq!(check(&config).is_ok(), fits, "{ratio}");
        }
    }
}
