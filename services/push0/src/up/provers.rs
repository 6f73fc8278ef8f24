//! Which adapter serves a zkVM, and with how many processes: `provers.toml` and `--provers`.
//!
//! ```toml
//! [[prover]]
//! zkvm = "sp1"
//! adapter = "exec"      # the program prover-exec; left out: prover-sp1
//! slots = 2             # attempts at once in each process
//! count = 3             # processes
//! verifiers = 1         # processes that verify, if the pipelines ask for it
//! env = { PUSH0_EXEC__PROGRAM = "./prove" }
//! ```

use crate::failure::Failure;
use push0_domain::ZkvmId;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Largest number of processes for one zkVM on one machine.
const COUNT_MAX: u32 = 256;
/// Variable of the time for which a prover's attempts may continue after a stop.
pub(crate) const GRACE_VARIABLE: &str = "PUSH0_PROVER__GRACE";

/// Adapter and processes of one zkVM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProverSpec {
    pub(crate) zkvm: ZkvmId,
    #[serde(default)]
    adapter: Option<String>,
    #[serde(default = "one")]
    pub(crate) slots: u32,
    #[serde(default = "one")]
    pub(crate) count: u32,
    #[serde(default = "one")]
    pub(crate) verifiers: u32,
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

impl ProverSpec {
    fn of(zkvm: ZkvmId) -> Self {
        Self {
            zkvm,
            adapter: None,
            slots: 1,
            count: 1,
            verifiers: 1,
            env: BTreeMap::new(),
        }
    }

    /// Returns the name of the adapter's program.
    pub(crate) fn program(&self) -> String {
        format!("prover-{}", self.adapter.as_deref().unwrap_or(self.zkvm.as_str()))
    }

    /// Returns the time for which attempts may continue after a stop, if `env` sets one.
    pub(crate) fn grace(&self) -> Result<Option<Duration>, String> {
        let Some(grace) = self.env.get(GRACE_VARIABLE) else {
            return Ok(None);
        };
        humantime::parse_duration(grace).map(Some).map_err(|error| {
            format!(
                "{GRACE_VARIABLE} = {grace:?} for zkVM {}: expected a duration such as 10s ({error})",
                self.zkvm
            )
        })
    }

    fn check(&self) -> Result<(), String> {
        for (what, number) in [
            ("slots", self.slots),
            ("count", self.count),
            ("verifiers", self.verifiers),
        ] {
            if !(1..=COUNT_MAX).contains(&number) {
                return Err(format!(
                    "{what} = {number} for zkVM {}: expected 1 to {COUNT_MAX}",
                    self.zkvm
                ));
            }
        }
        self.grace()?;
        match &self.adapter {
            Some(adapter) if adapter.contains(['/', '\\']) || adapter.is_empty() => Err(format!(
                "adapter = {adapter:?} for zkVM {}: expected the part of the program's name after `prover-`",
                self.zkvm
            )),
            _ => Ok(()),
        }
    }
}

/// A `--provers` option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProversArg {
    /// `ZKVM=COUNT`: the number of prover processes for a zkVM.
    Count(ZkvmId, u32),
    /// Path of a file in the format of `provers.toml`.
    File(PathBuf),
}

impl FromStr for ProversArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((zkvm, count)) = text.split_once('=') else {
            return Ok(Self::File(text.into()));
        };
        let zkvm = zkvm
            .parse()
            .map_err(|error: push0_domain::id::InvalidId| error.to_string())?;
        match count.parse() {
            Ok(count @ 1..=COUNT_MAX) => Ok(Self::Count(zkvm, count)),
            _ => Err(format!("`{count}`: expected 1 to {COUNT_MAX} processes")),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    prover: Vec<ProverSpec>,
}

/// Returns the path of `provers.toml` beside a state directory, which need not exist yet.
fn beside(dir: &Path) -> PathBuf {
    // A directory such as `x/..` has another parent than its path shows.
    let dir = dir.canonicalize().or_else(|_| std::path::absolute(dir));
    let parent = dir.ok().and_then(|dir| dir.parent().map(Path::to_owned));
    parent.unwrap_or_default().join("provers.toml")
}

/// Adapters and processes of all listed zkVMs.
#[derive(Debug)]
pub(crate) struct Provers(BTreeMap<ZkvmId, ProverSpec>);

impl Provers {
    /// Reads the files and counts of the command line. Without a file, reads `provers.toml` beside the state
    /// directory `dir` if it exists.
    pub(crate) fn load(args: &[ProversArg], dir: &Path) -> Result<Self, Failure> {
        let beside = &beside(dir);
        let mut files: Vec<&Path> = Vec::new();
        for arg in args {
            if let ProversArg::File(file) = arg {
                files.push(file);
            }
        }
        if files.is_empty() && beside.is_file() {
            files.push(beside);
        }
        let mut provers = Self(BTreeMap::new());
        for file in files {
            let wrong = |reason: String| Failure::usage(format!("{}: {reason}", file.display()));
            let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
            provers.read(&text).map_err(wrong)?;
        }
        for arg in args {
            if let ProversArg::Count(zkvm, count) = arg {
                provers
                    .0
                    .entry(zkvm.clone())
                    .or_insert_with(|| ProverSpec::of(zkvm.clone()))
                    .count = *count;
            }
        }
        Ok(provers)
    }

    fn read(&mut self, text: &str) -> Result<(), String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        for spec in file.prover {
            spec.check()?;
            if let Some(twice) = self.0.insert(spec.zkvm.clone(), spec) {
                return Err(format!("zkVM {} is listed twice", twice.zkvm));
            }
        }
        Ok(())
    }

    /// Returns the listed zkVMs that are not among `wanted`.
    pub(crate) fn unwanted<'a>(&'a self, wanted: &'a BTreeSet<ZkvmId>) -> impl Iterator<Item = &'a ZkvmId> {
        self.0.keys().filter(|zkvm| !wanted.contains(*zkvm))
    }

    /// Returns the listed settings of a zkVM; if it is not listed, one process of its own
    /// adapter with one slot.
    pub(crate) fn of(&self, zkvm: &ZkvmId) -> ProverSpec {
        self.0
            .get(zkvm)
            .cloned()
            .unwrap_or_else(|| ProverSpec::of(zkvm.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Provers, String> {
        let mut provers = Provers(BTreeMap::new());
        provers.read(text).map(|()| provers)
    }

    #[test]
    fn what_is_not_listed_is_served_by_one_process_of_its_own_adapter() {
        let listed =
            "[[prover]]\nzkvm = \"sp1\"\nadapter = \"exec\"\nslots = 2\ncount = 3\nenv = { A = \"b\" }";
        let provers = read(listed).unwrap();
        let sp1 = provers.of(&"sp1".parse().unwrap());
        assert_eq!(
            (sp1.program().as_str(), sp1.slots, sp1.count),
            ("prover-exec", 2, 3)
        );
        assert_eq!(sp1.env["A"], "b");
        let miden = provers.of(&"miden".parse().unwrap());
        assert_eq!(
            (miden.program().as_str(), miden.slots, miden.count),
            ("prover-miden", 1, 1)
        );
    }

    #[test]
    fn a_wrong_file_is_refused_with_a_reason() {
        for (text, reason) in [
            ("[[prover]]\nzkvm = \"a b\"", "is not a zkVM name"),
            ("[[prover]]\nzkvm = \"a\"\nslot = 2", "unknown field `slot`"),
            ("[[prover]]\nzkvm = \"a\"\ncount = 0", "count = 0 for zkVM a"),
            (
                "[[prover]]\nzkvm = \"a\"\nenv = { PUSH0_PROVER__GRACE = \"zz\" }",
                "PUSH0_PROVER__GRACE = \"zz\" for zkVM a: expected a duration",
            ),
            ("[[prover]]\nzkvm = \"a\"\nadapter = \"../x\"", "after `prover-`"),
            (
                "[[prover]]\nzkvm = \"a\"\n[[prover]]\nzkvm = \"a\"",
                "listed twice",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn an_option_is_a_count_or_a_file() {
        assert_eq!("sp1=3".parse(), Ok(ProversArg::Count("sp1".parse().unwrap(), 3)));
        assert_eq!(
            "my/provers.toml".parse(),
            Ok(ProversArg::File("my/provers.toml".into()))
        );
        assert!("sp1=0".parse::<ProversArg>().is_err() && "S P=1".parse::<ProversArg>().is_err());
    }

    #[test]
    fn a_count_wins_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("provers.toml");
        std::fs::write(&file, "[[prover]]\nzkvm = \"sp1\"\nslots = 2\ncount = 3").unwrap();
        let sp1: ZkvmId = "sp1".parse().unwrap();
        // The first run finds no state directory.
        let state = dir.path().join(".push0");
        let provers = Provers::load(&["sp1=5".parse().unwrap()], &state).ok().unwrap();
        assert_eq!((provers.of(&sp1).slots, provers.of(&sp1).count), (2, 5));
        assert_eq!(provers.unwanted(&BTreeSet::new()).collect::<Vec<_>>(), [&sp1]);
        assert_eq!(provers.unwanted(&BTreeSet::from([sp1.clone()])).next(), None);
    }
}
