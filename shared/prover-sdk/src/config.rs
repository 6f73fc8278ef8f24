//! Configuration shared by all adapters.

use push0_bus::{NatsConfig, STANDBY_MAX};
use push0_domain::message::SLOTS_MAX;
use push0_runtime::{BoxError, HasRuntimeConfig, HttpConfig, Invalid, TelemetryConfig};
use serde::Deserialize;
use std::{path::PathBuf, time::Duration};

/// The `[prover]` section of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProverConfig {
    /// The process's name, unique in the deployment. If empty, a random name is drawn at each start. A
    /// fixed name lets the watchdog recognize a bad machine after a restart.
    pub id: String,
    /// A file with the credential of a fleet. The process then draws a key of its own at each start, and is named after
    /// it, so `id` stays empty. Any number of replicas use the same file.
    pub enrol: Option<PathBuf>,
    /// The name of the zkVM to serve; if empty, the adapter's default. Another name makes a separate group
    /// of provers, for example those with more memory.
    pub zkvm: String,
    /// How many attempts run at once, from 1 to 1,024. Default 1.
    pub slots: u32,
    /// Whether the process takes tasks before a slot is free.
    pub ahead: Ahead,
    /// How long a task may wait for its slot under `ahead = "auto"`. Default 200 ms. A task is taken ahead
    /// if attempts take less than this on average, or if the running attempt is expected to end within this
    /// time, judging by the last attempts.
    #[serde(with = "humantime_serde")]
    pub ahead_below: Duration,
    /// How long running attempts may continue after the process was asked to stop. Attempts still running
    /// then are handed back. Default 20 s.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    /// The rank among standby provers, from 1 to 9; 0, the default, for a regular prover. The broker gives
    /// work to a standby only while no process of a lower rank for the same zkVM has a free slot.
    pub standby: u8,
    /// Directory for results that the broker cannot take; created if it does not exist. Adapters may share
    /// one. If empty, the default, such results are kept in memory only, and are lost with the process.
    pub spool: PathBuf,
    /// Most bytes in the spool. Default 1 GiB.
    pub spool_bytes: u64,
    /// For how long the transfer of an input may make no progress before the attempt fails and another prover
    /// is asked. Default 60 s.
    #[serde(with = "humantime_serde")]
    pub stall: Duration,
    /// Whether this process, as a verifier, may check proofs of a prover with the same name. Default false.
    pub verify_own: bool,
}

/// When tasks are taken ahead of a free slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ahead {
    /// One task for each slot expected to be free soon (see [`ProverConfig::ahead_below`]).
    #[default]
    Auto,
    /// No tasks: the most urgent task always goes to the first free slot of any prover.
    Never,
    /// One task for each slot.
    Always,
}

impl Default for ProverConfig {
    fn default() -> Self {
        Self {
            id: String::new(),
            enrol: None,
            zkvm: String::new(),
            slots: 1,
            ahead: Ahead::Auto,
            ahead_below: Duration::from_millis(200),
            grace: Duration::from_secs(20),
            standby: 0,
            spool: PathBuf::new(),
            spool_bytes: 1 << 30,
            stall: Duration::from_secs(60),
            verify_own: false,
        }
    }
}

/// The configuration sections read by the SDK. An adapter with its own configuration type implements
/// `From<&Config>` for this type.
#[derive(Clone, Debug)]
pub struct Common {
    /// The `[nats]` section: how to reach the broker.
    pub nats: NatsConfig,
    /// The `[prover]` section: name, slots and limits of the process.
    pub prover: ProverConfig,
}

/// A configuration of only the shared sections, for adapters without settings of their own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdapterConfig {
    /// How to reach the broker.
    pub nats: NatsConfig,
    /// Where logs and traces go.
    pub telemetry: TelemetryConfig,
    /// Where health and metrics are served.
    pub http: HttpConfig,
    /// Name, slots and limits of the process.
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

    fn check_files(&self) -> Result<(), BoxError> {
        Common::from(self).check_files()
    }

    fn shutdown_grace(&self) -> Duration {
        self.prover.shutdown_grace()
    }

    fn validate(&self) -> Result<(), Invalid> {
        self.prover.validate()
    }
}

impl ProverConfig {
    /// Returns how long the process may take to stop: the grace of its attempts, and 5 s to
    /// store their results.
    pub fn shutdown_grace(&self) -> Duration {
        self.grace + Duration::from_secs(5)
    }

    /// Checks the limits not expressed by types: the number of slots and the rank of a standby. Adapters
    /// with their own configuration type call this from their [`HasRuntimeConfig::validate`].
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.slots == 0 || self.slots > SLOTS_MAX {
            return Err(Invalid::new(
                "prover.slots",
                format!("a number from 1 to {SLOTS_MAX}"),
            ));
        }
        if self.enrol.is_some() && !self.id.is_empty() {
            return Err(Invalid::new(
                "prover.id",
                "no name where prover.enrol is set: the name follows from the key",
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
