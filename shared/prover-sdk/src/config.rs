//! The configuration that every adapter shares.

use push0_bus::{NatsConfig, STANDBY_MAX};
use push0_runtime::{HasRuntimeConfig, HttpConfig, Invalid, TelemetryConfig};
use serde::Deserialize;
use std::time::Duration;

/// The `[prover]` section.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProverConfig {
    /// Its name, unique in the deployment; drawn at the start if empty. A name that stays lets the
    /// watchdog remember a bad machine.
    pub id: String,
    /// The zkVM that it serves, if not the adapter's own.
    pub zkvm: String,
    /// How many attempts run at once.
    pub slots: u32,
    /// Whether a task is taken for each slot before it is free.
    pub ahead: Ahead,
    /// Under `ahead = "auto"`, how long a task may wait for its slot: it is taken ahead if attempts take
    /// less than this, or if the one that runs ends within this, by the last ones.
    #[serde(with = "humantime_serde")]
    pub ahead_below: Duration,
    /// How long running attempts may go on after the process was asked to stop.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    /// 0, or the rank among the standbys, up to 9: work comes only while nobody of a lower rank of the
    /// zkVM has a free slot.
    pub standby: u8,
    /// Whether this process may verify proofs that a prover of the same name made.
    pub verify_own: bool,
}

/// Whether tasks are taken ahead of a free slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ahead {
    /// For slots that are free soon.
    #[default]
    Auto,
    /// Never: the most urgent task always goes to the first free slot.
    Never,
    /// Always one per slot.
    Always,
}

impl Default for ProverConfig {
    fn default() -> Self {
        Self {
            id: String::new(),
            zkvm: String::new(),
            slots: 1,
            ahead: Ahead::Auto,
            ahead_below: Duration::from_millis(200),
            grace: Duration::from_secs(20),
            standby: 0,
            verify_own: false,
        }
    }
}

/// The sections of an adapter that the SDK reads.
#[derive(Clone, Debug)]
pub struct Common {
    /// `[nats]`
    pub nats: NatsConfig,
    /// `[prover]`
    pub prover: ProverConfig,
}

/// A configuration with nothing but the shared sections, for adapters without knobs of their own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdapterConfig {
    /// The broker.
    pub nats: NatsConfig,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
    /// Health and metrics.
    pub http: HttpConfig,
    /// The prover.
    pub prover: ProverConfig,
}

impl From<&AdapterConfig> for Common {
    fn from(config: &AdapterConfig) -> Self {
        Self {
            nats: config.nats.clone(),
            prover: config.prover.clone(),
        }
    }
}

impl HasRuntimeConfig for AdapterConfig {
    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn http(&self) -> &HttpConfig {
        &self.http
    }

    fn shutdown_grace(&self) -> Duration {
        self.prover.shutdown_grace()
    }

    fn validate(&self) -> Result<(), Invalid> {
        self.prover.validate()
    }
}

/// The most attempts that one process runs at once.
const SLOTS_MAX: u32 = 1024;

impl ProverConfig {
    /// How long the process may take to stop: its attempts' grace, and time to store their results.
    pub fn shutdown_grace(&self) -> Duration {
        self.grace + Duration::from_secs(5)
    }

    /// Refuses what types cannot.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.slots == 0 || self.slots > SLOTS_MAX {
            return Err(Invalid::new(
                "prover.slots",
                format!("a number from 1 to {SLOTS_MAX}"),
            ));
        }
        if self.standby > STANDBY_MAX {
            return Err(Invalid::new(
                "prover.standby",
                format!("0, or a rank from 1 to {STANDBY_MAX}"),
            ));
        }
        Ok(())
    }
}
