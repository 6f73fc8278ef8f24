//! Configuration of the mock: how long attempts take and how they fail.

use push0_bus::NatsConfig;
use push0_domain::message::FailureClass;
use push0_prover_sdk::{Common, ProverConfig};
use push0_runtime::{BoxError, HasRuntimeConfig, HttpConfig, Invalid, TelemetryConfig, config::duration};
use serde::Deserialize;
use std::time::Duration;

/// Configuration of the mock prover, one field per section.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Connection to the broker.
    pub nats: NatsConfig,
    /// Log and trace settings.
    pub telemetry: TelemetryConfig,
    /// Address of the health and metrics endpoints.
    pub http: HttpConfig,
    /// Settings shared by all adapters.
    pub prover: ProverConfig,
    /// Behaviour of the mock.
    pub mock: MockConfig,
}

/// The section `mock`.
///
/// The duration of an attempt is set in one of four ways: `time`, `time_min` with `time_max`,
/// `lognormal_mean` with `lognormal_p95`, or `per_gas`. Rates are fractions of attempts, from 0 to 1,
/// drawn independently; if several apply to an attempt, the first of crash, hang, failure, false
/// proof and panic counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MockConfig {
    /// Fixed duration. One second if no duration is set in any way.
    #[serde(with = "duration")]
    pub time: Option<Duration>,
    /// Shortest duration; durations are uniform from here to `time_max`.
    #[serde(with = "duration")]
    pub time_min: Option<Duration>,
    /// Longest duration; requires `time_min`.
    #[serde(with = "duration")]
    pub time_max: Option<Duration>,
    /// Mean of a lognormal distribution, like that of real proofs: most near the mean, with a long tail.
    #[serde(with = "duration")]
    pub lognormal_mean: Option<Duration>,
    /// Duration that 95 % of attempts stay below; 1 to 3.8 times the mean.
    #[serde(with = "duration")]
    pub lognormal_p95: Option<Duration>,
    /// Nanoseconds per unit of gas used by the block.
    pub per_gas: Option<f64>,
    /// Fraction of attempts that fail after their duration.
    pub failure_rate: f64,
    /// Class of these failures: `retryable`, `fatal`, `out-of-memory` or `surroundings`.
    pub failure_class: MockFailure,
    /// Fraction of attempts whose proof the mock's verifier refuses.
    pub false_rate: f64,
    /// Fraction of attempts that never end.
    pub hang_rate: f64,
    /// Fraction of attempts that abort the process, at a random point of their duration.
    pub crash_rate: f64,
    /// Fraction of attempts that panic after their duration.
    pub panic_rate: f64,
    /// Number of outputs of a split.
    pub split: u32,
    /// Length of an output in bytes; shorter than about 110 is not possible.
    pub output_bytes: usize,
    /// Duration of a verification.
    #[serde(with = "duration")]
    pub verify_time: Duration,
    /// Whether a proof contains `released_us` (the broker stored its task) and `began_us` (its attempt
    /// began), in microseconds since the Unix epoch.
    pub stamp: bool,
    /// Seed of all random draws. A draw depends on the seed, the task and the attempt only, so
    /// a run can be repeated.
    pub seed: u64,
}

/// Failure classes reported by a prover itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MockFailure {
    /// A further attempt may succeed.
    #[default]
    Retryable,
    /// No attempt can succeed.
    Fatal,
    /// The prover ran out of memory.
    OutOfMemory,
    /// The prover's surroundings failed.
    Surroundings,
}

impl From<MockFailure> for FailureClass {
    fn from(failure: MockFailure) -> Self {
        match failure {
            MockFailure::Retryable => Self::Retryable,
            MockFailure::Fatal => Self::Fatal,
            MockFailure::OutOfMemory => Self::OutOfMemory,
            MockFailure::Surroundings => Self::Surroundings,
        }
    }
}

impl Default for MockConfig {
    fn default() -> Self {
        Self {
            time: None,
            time_min: None,
            time_max: None,
            lognormal_mean: None,
            lognormal_p95: None,
            per_gas: None,
            failure_rate: 0.0,
            failure_class: MockFailure::Retryable,
            false_rate: 0.0,
            hang_rate: 0.0,
            crash_rate: 0.0,
            panic_rate: 0.0,
            split: 1,
            output_bytes: 64,
            verify_time: Duration::ZERO,
            stamp: false,
            seed: 0,
        }
    }
}

/// Largest number of outputs of a split.
const SPLIT_MAX: u32 = 100_000;

impl MockConfig {
    fn validate(&self) -> Result<(), Invalid> {
        let rates = [
            ("failure_rate", self.failure_rate),
            ("false_rate", self.false_rate),
            ("hang_rate", self.hang_rate),
            ("crash_rate", self.crash_rate),
            ("panic_rate", self.panic_rate),
        ];
        if let Some((key, _)) = rates.iter().find(|(_, rate)| !(0.0..=1.0).contains(rate)) {
            return Err(Invalid::new(format!("mock.{key}"), "a number from 0 to 1"));
        }
        if self.split == 0 || self.split > SPLIT_MAX {
            return Err(Invalid::new(
                "mock.split",
                format!("a number from 1 to {SPLIT_MAX}"),
            ));
        }
        if self.per_gas.is_some_and(|nanos| !(0.0..=1e9).contains(&nanos)) {
            return Err(Invalid::new(
                "mock.per_gas",
                "nanoseconds, from 0 to 1,000,000,000",
            ));
        }
        self.one_way_of_time()
    }

    fn one_way_of_time(&self) -> Result<(), Invalid> {
        let (min, max) = (self.time_min, self.time_max);
        let (mean, p95) = (self.lognormal_mean, self.lognormal_p95);
        let ways = [
            self.time.is_some(),
            min.or(max).is_some(),
            mean.or(p95).is_some(),
            self.per_gas.is_some(),
        ];
        if ways.iter().filter(|said| **said).count() > 1 {
            let expected =
                "only one of time, time_min and time_max, lognormal_mean and lognormal_p95, per_gas";
            return Err(Invalid::new("mock", expected));
        }
        if min.is_some() != max.is_some() || min > max {
            return Err(Invalid::new(
                "mock.time_max",
                "given with time_min, and not below it",
            ));
        }
        if mean.is_some() != p95.is_some() {
            return Err(Invalid::new("mock.lognormal_p95", "given with lognormal_mean"));
        }
        match (mean, p95) {
            (Some(mean), Some(p95)) if !(1.0..=3.8).contains(&p95.div_duration_f64(mean)) => Err(
                Invalid::new("mock.lognormal_p95", "1 to 3.8 times lognormal_mean"),
            ),
            _ => Ok(()),
        }
    }
}

impl From<&Config> for Common {
    fn from(config: &Config) -> Self {
        Self {
            nats: config.nats.clone(),
            prover: config.prover.clone(),
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
        Common::from(self).check_files()
    }

    fn shutdown_grace(&self) -> Duration {
        self.prover.shutdown_grace()
    }

    fn validate(&self) -> Result<(), Invalid> {
        self.prover.validate()?;
        self.mock.validate()
    }
}
