//! Logs on stderr and traces to an OTLP receiver.
//!
//! Telemetry never slows or stops the work. Spans go into a bounded queue, which drops spans when
//! full. While the receiver does not answer, none are made; one log line says so, and one that the receiver is
//! back. Spans that a receiver missed after it had taken some are counted (`push0_spans_lost_total`).
//!
//! The spans of `tracing` put their fields before log lines and are not sent, unlike the finished spans of
//! `push0_domain::trace` (docs/adr/0044). The log lines of an attempt or a check are events of its span.

mod endpoint;
mod error;
mod export;
mod lines;
mod one_line;
mod receiver;
mod sink;

use std::io::IsTerminal as _;
use std::time::Duration;

use tracing::{Dispatch, Level, Metadata};
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::config::LogFormat;
pub use error::TelemetryError;
use lines::Lines;
pub(crate) use lines::take as take_lines;
pub use sink::Sink;

use crate::{Invalid, TelemetryConfig, tasks};

/// Handle for the flush of traces before the process ends. Empty if traces have no receiver.
#[derive(Debug)]
#[must_use = "traces are flushed by `shutdown`"]
pub struct TelemetryGuard(Option<Sink>);

impl TelemetryGuard {
    /// Sends the queued spans, for at most `timeout`. Returns whether all spans were sent. This call
    /// blocks the thread, so an async task needs `spawn_blocking`. The runtime must still be alive.
    pub fn shutdown(self, timeout: Duration) -> bool {
        self.0.is_none_or(|sink| sink.shutdown(timeout))
    }

    /// Returns the queue of spans, if they have a receiver.
    pub fn sink(&self) -> Option<&Sink> {
        self.0.as_ref()
    }
}

/// Checks the constraints not expressed by the types: the filter, the endpoint, the ratio.
///
/// # Errors
/// The first key with an invalid value.
pub fn check(config: &TelemetryConfig) -> Result<(), Invalid> {
    log_filter(&config.log)?;
    if !(0.0..=1.0).contains(&config.sample_ratio) {
        return Err(Invalid::new("telemetry.sample_ratio", "a number from 0 to 1"));
    }
    endpoint::resolve(config, |name| std::env::var(name).ok()).map(drop)
}

/// Sets up logs and traces for the whole process. Needs the context of the runtime that will send the
/// traces. `name` comes without prefix: traces carry the service name `push0-<name>`.
///
/// # Errors
/// Telemetry cannot be started, see [`TelemetryError`].
pub fn init(name: &str, version: &str, config: &TelemetryConfig) -> Result<TelemetryGuard, TelemetryError> {
    let (dispatch, guard) = build(name, version, config)?;
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| TelemetryError::AlreadySet)?;
    guard.sink().cloned().into_iter().for_each(Sink::install);
    Ok(guard)
}

/// Like [`init`], but returns the dispatcher instead of installing it for the whole process.
///
/// # Errors
/// Telemetry cannot be started, see [`TelemetryError`].
pub fn build(
    name: &str,
    version: &str,
    config: &TelemetryConfig,
) -> Result<(Dispatch, TelemetryGuard), TelemetryError> {
    let filter = log_filter(&config.log).map_err(TelemetryError::Config)?;
    // A filter such as `warn` keeps push0's spans: a warning takes block and prover from the span around it.
    let logs = log_layer(config.format).with_filter(
        filter
            .or(filter_fn(is_span_of_push0))
            .and(filter_fn(is_free_of_secrets)),
    );

    let target =
        endpoint::resolve(config, |name| std::env::var(name).ok()).map_err(TelemetryError::Config)?;
    let sink = target.map(|target| export::sink(name, version, &target, config.sample_ratio));
    let sink = sink.transpose()?;
    let registry = Registry::default().with(logs);
    // An optional layer that is absent would still call every event wanted.
    let dispatch = match &sink {
        Some(_) => Dispatch::new(registry.with(Lines.with_filter(LevelFilter::INFO))),
        None => Dispatch::new(registry),
    };
    Ok((dispatch, TelemetryGuard(sink)))
}

/// Below `info`, the NATS client logs its words at signing in, its password included.
fn is_free_of_secrets(metadata: &Metadata<'_>) -> bool {
    !metadata.target().starts_with("async_nats") || *metadata.level() <= Level::INFO
}

fn is_span_of_push0(metadata: &Metadata<'_>) -> bool {
    metadata.is_span()
        && metadata.target().starts_with("push0")
        && metadata.target() != tasks::SPAN_TARGET
        && *metadata.level() <= Level::INFO
}

fn log_layer(format: LogFormat) -> Box<dyn Layer<Registry> + Send + Sync> {
    let layer = fmt::layer().with_writer(std::io::stderr);
    match format {
        LogFormat::Text => layer
            .fmt_fields(one_line::fields())
            .with_ansi(std::io::stderr().is_terminal())
            .boxed(),
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
    // A lone word that is not a level would be read as a target: `inof` would silence everything else. An
    // empty directive would be read as the level `error`.
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let mut directives: Vec<_> = directives.split(',').map(str::trim).collect();
    if !directives.iter().all(|d| d.contains(['=', '[']) || is_level(d)) {
        return Err(refused());
    }
    // The SDK logs every failed export. The exporter of this crate logs only the first one instead.
    if !directives.iter().any(|d| d.contains("opentelemetry")) {
        directives.push("opentelemetry=off");
    }
    // The NATS client logs every failed sign-in, some five a second. `push0_bus` logs the outage once a minute instead.
    if !directives.iter().any(|d| d.contains("async_nats")) {
        directives.push("async_nats::connector=off");
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
    fn failed_sign_ins_are_left_to_the_log_of_the_outage_unless_they_are_asked_for() {
        let filter = |directives| log_filter(directives).expect("a filter").to_string();
        for quiet in ["warn", "info,push0_bus=debug"] {
            assert!(filter(quiet).contains("async_nats::connector=off"), "{quiet}");
        }
        assert!(!filter("warn,async_nats=info").contains("connector=off"));
    }

    #[test]
    fn a_warning_keeps_the_block_and_prover_of_its_span() {
        let config = TelemetryConfig {
            log: "warn".to_owned(),
            ..TelemetryConfig::default()
        };
        let (dispatch, _guard) = build("tester", "1.2.3", &config).expect("telemetry starts");
        tracing::dispatcher::with_default(&dispatch, || {
            let span = tracing::info_span!("reassign", block.number = 7);
            assert!(!span.is_disabled(), "the span is dropped with its fields");
            assert!(!tracing::enabled!(Level::INFO), "information is logged");
        });
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
