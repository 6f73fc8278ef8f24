//! Results: one JSON object a line, on stdout and in `target/bench/results.jsonl`.

use serde_json::{Map, Value, json};
use std::{fs, io::Write, path::PathBuf};

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Profile {
    /// Minutes: does it work, and about how well.
    Quick,
    /// Half an hour: figures to quote.
    Full,
}

impl Profile {
    /// One of two values.
    pub(crate) fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

/// What every scenario is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    pub(crate) profile: Profile,
    pub(crate) seed: u64,
    /// How long chaos goes on.
    pub(crate) seconds: u64,
}

/// One result.
pub(crate) struct Record(Map<String, Value>);

impl Context {
    /// A result of this scenario.
    pub(crate) fn record(&self, scenario: &str) -> Record {
        let profile = self.profile.pick("quick", "full");
        let head = json!({ "scenario": scenario, "seed": self.seed, "profile": profile });
        Record(head.as_object().cloned().unwrap_or_default())
    }
}

impl Record {
    /// Adds a field.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    /// Says it, and adds it to the file.
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

/// Where all results are.
pub(crate) fn results() -> PathBuf {
    PathBuf::from("target/bench/results.jsonl")
}
