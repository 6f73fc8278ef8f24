//! Metrics in the default registry, which `/metrics` exposes, under the prefix `push0_`.
//!
//! Registering a metric again returns the same metric, so a service can start twice in one process. The
//! values of a label must be few and known, such as a zkVM, a stage or an outcome; never a block number,
//! a hash or a task id. Each value creates a series that lives as long as the process.
//!
//! Names follow Prometheus: counters end in `_total`; times are in seconds and end in `_seconds`.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use prometheus::core::Collector;
pub use prometheus::{CounterVec, Gauge, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use prometheus::{HistogramOpts, Opts, TextEncoder};

/// Bucket bounds of durations, in seconds, from 0.1 ms (a publish on loopback) to 10 min (a proof): three
/// per decade up to 5 s, then commonly used round values.
pub const LATENCY_SECONDS: [f64; 21] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0, 120.0, 300.0, 600.0,
];

/// Bucket bounds of the times of work and of waits, in seconds, from 10 ms to 30 min. Two bounds are those of the real-time
/// score: 10 s and 20 min.
pub const WORK_SECONDS: [f64; 18] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0,
    1800.0,
];

/// Failure to register a metric: its name or a label is not valid for Prometheus, or the name is taken by
/// a metric of another kind or with other labels.
#[derive(Debug, thiserror::Error)]
#[error("metric {name} cannot be registered: {reason}")]
pub struct MetricError {
    /// The metric's full name, prefix included.
    pub name: String,
    reason: String,
}

/// Registers a counter, which only rises. `name` comes without the prefix,
/// such as `tasks_assigned_total`.
///
/// # Errors
/// The metric cannot be registered, see [`MetricError`].
pub fn counter(name: &str, help: &str) -> Result<IntCounter, MetricError> {
    register(name, &[], |name| IntCounter::new(name, help))
}

/// Registers one counter for each combination of label values. `with_label_values` takes as many values
/// as there are labels, and panics otherwise.
///
/// # Errors
/// The metric cannot be registered, see [`MetricError`].
pub fn counter_vec(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, MetricError> {
    register(name, labels, |name| {
        IntCounterVec::new(Opts::new(name, help), labels)
    })
}

/// Registers one counter of seconds for each combination of label values. `name` ends in `_seconds_total`.
///
/// # Errors
/// The metric cannot be registered, see [`MetricError`].
pub fn seconds_counter_vec(name: &str, help: &str, labels: &[&str]) -> Result<CounterVec, MetricError> {
    register(name, labels, |name| {
        CounterVec::new(Opts::new(name, help), labels)
    })
}

/// Registers a gauge, which rises and falls.
///
/// # Errors
/// The metric cannot be registered, see [`MetricError`].
pub fn gauge(name: &str, help: &str) -> Result<IntGauge, MetricError> {
    register(name, &[], |name| IntGauge::new(name, help))
}

/// Registers one gauge for each combination of label values.
///
/// # Errors
/// The metric cannot be registered, see [`MetricError`].
pub fn gauge_vec(name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, MetricError> {
    register(name, labels, |name| {
        IntGaugeVec::new(Opts::new(name, help), labels)
    })
}

/// Registers one histogram of durations in seconds, with the buckets [`LATENCY_SECONDS`], for each combination of label
/// values.
///
/// # Errors
/// The metric cannot be registered, see [`MetricError`].
pub fn latency_vec(name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, MetricError> {
    histogram_vec(name, help, labels, &LATENCY_SECONDS)
}

/// Registers one histogram of work or waits, with the buckets [`WORK_SECONDS`], for each combination of label values.
///
/// # Errors
/// The metric cannot be registered, see [`MetricError`].
pub fn work_vec(name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, MetricError> {
    histogram_vec(name, help, labels, &WORK_SECONDS)
}

/// Registers the histogram of waits, to which dispatcher and collector add: `release`, from a stored message to the
/// release of its task; `prover`, from the release to the start of the attempt; `order`, from a block's last result to
/// its record.
///
/// # Errors
/// The metric cannot be registered, see [`MetricError`].
pub fn waits() -> Result<HistogramVec, MetricError> {
    let help = "Time that work waited: for its release, for a prover, or for the chain's order";
    work_vec("wait_seconds", help, &["pipeline", "wait"])
}

fn histogram_vec(
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> Result<HistogramVec, MetricError> {
    register(name, labels, |name| {
        HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)
    })
}

/// Returns all metrics of the process in the text format of Prometheus, with the components that are not ready.
pub(crate) fn text<'a>(
    not_ready: impl Iterator<Item = &'a str>,
) -> Result<String, Box<dyn std::error::Error>> {
    let help = "1 while a component of the process is not ready, as /health/ready names it";
    let components = gauge_vec("component_not_ready", help, &["component"])?;
    components.reset();
    not_ready.for_each(|name| components.with_label_values(&[name]).set(1));
    Ok(TextEncoder::new().encode_to_string(&prometheus::gather())?)
}

/// Labels and metric by full name. The registry itself does not return the metrics registered in it.
type Registered = BTreeMap<String, (Vec<String>, Box<dyn Any + Send>)>;
static REGISTERED: Mutex<Registered> = Mutex::new(BTreeMap::new());

fn register<M: Collector + Clone + 'static>(
    name: &str,
    labels: &[&str],
    make: impl FnOnce(&str) -> prometheus::Result<M>,
) -> Result<M, MetricError> {
    let name = format!("push0_{name}");
    let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known_labels, metric)) = registered.get(&name) {
        return match metric.downcast_ref::<M>() {
            Some(metric) if known_labels == labels => Ok(metric.clone()),
            _ => Err(MetricError {
                name,
                reason: "the name is taken by a metric of another kind or with other labels".to_owned(),
            }),
        };
    }
    let failed = |error: prometheus::Error| MetricError {
        name: name.clone(),
        reason: error.to_string(),
    };
    let metric = make(&name).map_err(failed)?;
    prometheus::register(Box::new(metric.clone())).map_err(failed)?;
    let labels = labels.iter().map(|&label| label.to_owned()).collect();
    registered.insert(name, (labels, Box::new(metric.clone())));
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_registered_twice_is_one_metric() {
        let first = counter("once_total", "Counts.").expect("the first registers");
        let second = counter("once_total", "Counts.").expect("the second finds the first");
        first.inc();
        second.inc();
        assert_eq!(first.get(), 2);
        assert!(
            text(std::iter::empty())
                .expect("metrics encode")
                .contains("\npush0_once_total 2\n")
        );
    }

    #[test]
    fn a_name_taken_by_another_kind_or_with_other_labels_is_refused() {
        counter_vec("taken_total", "Counts.", &["zkvm"]).expect("the first registers");
        for refused in [
            counter("taken_total", "Counts.").err(),
            counter_vec("taken_total", "Counts.", &["stage"]).err(),
            gauge("not a name", "Nothing.").err(),
        ] {
            assert!(refused.is_some());
        }
    }

    #[test]
    fn latency_buckets_rise_from_a_tenth_of_a_millisecond_to_ten_minutes() {
        assert!(LATENCY_SECONDS.is_sorted());
        assert_eq!((LATENCY_SECONDS[0], LATENCY_SECONDS[20]), (0.0001, 600.0));
    }

    #[test]
    fn work_buckets_rise_from_ten_milliseconds_to_half_an_hour_and_tell_the_bounds_of_the_score() {
        assert!(WORK_SECONDS.is_sorted());
        assert_eq!((WORK_SECONDS[0], WORK_SECONDS[17]), (0.01, 1800.0));
        assert!(WORK_SECONDS.contains(&10.0) && WORK_SECONDS.contains(&1200.0));
    }
}
