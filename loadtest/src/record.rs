//! Results: one JSON object per line, on stdout and in `target/bench/results.jsonl`.

use crate::{rounding::round, scenario::Fault};
use serde_json::{Map, Value, json};
use std::{fs, io::Write, path::PathBuf};

/// Amount of work in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Profile {
    /// Minutes: shows that push0 works, with rough figures.
    Quick,
    /// Longer windows and more of them: figures to quote.
    Full,
}

impl Profile {
    /// Returns the value for this profile.
    pub(crate) fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

/// Settings of a run, for every scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) profile: Profile,
    pub(crate) seed: u64,
    /// Duration of chaos in seconds.
    pub(crate) seconds: u64,
    /// The only number of provers that scaling measures; `None` for all.
    pub(crate) provers: Option<u32>,
    /// The only proving time that scaling measures, in milliseconds; `None` for all.
    pub(crate) prove_ms: Option<u64>,
    /// Number of brokers for the chaos scenario.
    pub(crate) brokers: usize,
    /// The only fault that the brokers scenario injects; `None` for all.
    pub(crate) fault: Option<Fault>,
    /// Repetitions of each fault; `None` for the profile's default.
    pub(crate) times: Option<u32>,
}

/// A result as a JSON object.
pub(crate) struct Record(Map<String, Value>);

impl Context {
    /// Returns a result of this scenario with the fields common to all results.
    pub(crate) fn record(&self, scenario: &str) -> Record {
        let profile = self.profile.pick("quick", "full");
        let head = json!({ "scenario": scenario, "seed": self.seed, "profile": profile });
        Record(head.as_object().cloned().unwrap_or_default())
    }
}

impl Record {
    /// Adds a field to the result.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    /// Adds the ratio of two fields that are present.
    #[must_use]
    pub(crate) fn ratio(self, name: &str, of: &str, to: &str) -> Self {
        let number = |field: &str| self.0.get(field).and_then(Value::as_f64).unwrap_or_default();
        let ratio = round(number(of) / number(to).max(1e-6));
        self.with(name, ratio)
    }

    /// Prints the result and appends it to the file.
    pub(crate) fn publish(self) -> anyhow::Result<()> {
        let line = Value::Object(self.0).to_string();
        println!("{line}");
        let path = results();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
        Ok(writeln!(file, "{line}")?)
    }
}

/// Sets the results of earlier runs aside, and records the machine of the following results.
pub(crate) fn begin(context: &Context) -> anyhow::Result<()> {
    let path = results();
    if path.exists() {
        fs::rename(&path, path.with_extension("previous.jsonl"))?;
    }
    let cores = std::thread::available_parallelism()?.get();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load
        .split(' ')
        .next()
        .and_then(|one| one.parse().ok())
        .unwrap_or_default();
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    context
        .record("machine")
        .with("cores", cores)
        .with("processor", model.unwrap_or("unknown"))
        .with("load_average", load)
        .publish()
}

/// Returns the path of the file with all results.
pub(crate) fn results() -> PathBuf {
    PathBuf::from("target/bench/results.jsonl")
}
