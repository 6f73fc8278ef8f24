//! Metrics in the default registry, which `/metrics` shows, under the prefix `push0_`.
//!
//! A metric that is registered again is the same metric, so a service can start twice in one process.
//! The values of a label must be few and known: a zkVM, a stage, an outcome; never a block's number,
//! a hash or a task's id. Each value makes a series that lives as long as the process.
//!
//! Names follow Prometheus: counters end in `_total`, times are seconds and end in `_seconds`.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use prometheus::core::Collector;
pub use prometheus::{Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use prometheus::{HistogramOpts, Opts, TextEncoder};

/// Upper bounds in seconds for how long something took, from 0.1 ms (a publish on loopback) to 10 min
/// (a proof): three a decade up to 5 s, then those that people speak of.
pub const LATENCY_SECONDS: [f64; 21] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0, 120.0, 300.0, 600.0,
];

/// A metric cannot be registered: its name or a label is not valid for Prometheus, or the name is
/// taken by a metric of another kind or with other labels.
#[derive(Debug, thiserror::Error)]
#[error("metric {name} cannot be registered: {reason}")]
pub struct MetricError {
    /// The metric's name, prefix included.
    pub name: String,
    reason: String,
}

/// A count that only rises. `name` without prefix, such as `tasks_assigned_total`.
///
/// # Errors
/// See [`MetricError`].
pub fn counter(name: &str, help: &str) -> Result<IntCounter, MetricError> {
    register(name, &[], |name| IntCounter::new(name, help))
}

/// A count for each value of the labels. `with_label_values` takes as many values as there are
/// labels, and panics otherwise.
///
/// # Errors
/// See [`MetricError`].
pub fn counter_vec(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, MetricError> {
    register(name, labels, |name| {
        IntCounterVec::new(Opts::new(name, help), labels)
    })
}

/// A number that rises and falls.
///
/// # Errors
/// See [`MetricError`].
pub fn gauge(name: &str, help: &str) -> Result<IntGauge, MetricError> {
    register(name, &[], |name| IntGauge::new(name, help))
}

/// A number for each value of the labels.
///
/// # Errors
/// See [`MetricError`].
pub fn gauge_vec(name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, MetricError> {
    register(name, labels, |name| {
        IntGaugeVec::new(Opts::new(name, help), labels)
    })
}

/// How long something took, in seconds, in the buckets [`LATENCY_SECONDS`].
///
/// # Errors
/// See [`MetricError`].
pub fn latency(name: &str, help: &str) -> Result<Histogram, MetricError> {
    histogram(name, help, &LATENCY_SECONDS)
}

/// How long something took, for each value of the labels.
///
/// # Errors
/// See [`MetricError`].
pub fn latency_vec(name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, MetricError> {
    register(name, labels, |name| {
        HistogramVec::new(
            HistogramOpts::new(name, help).buckets(LATENCY_SECONDS.to_vec()),
            labels,
        )
    })
}

/// How often a number fell below each of the rising `buckets`, in the unit that the name ends with.
///
/// # Errors
/// See [`MetricError`].
pub fn histogram(name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, MetricError> {
    register(name, &[], |name| {
        Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
    })
}

/// All metrics of the process in the text format of Prometheus.
pub(crate) fn text() -> prometheus::Result<String> {
    TextEncoder::new().encode_to_string(&prometheus::gather())
}

/// Labels and metric by full name. The registry itself does not give back what it holds.
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
                reason: "it exists with another kind or labels".to_owned(),
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
        assert!(text().expect("metrics encode").contains("\npush0_once_total 2\n"));
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
}
