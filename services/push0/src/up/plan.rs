//! Plan of the processes of `push0 up` and their configuration. Configuration is passed through environment
//! variables only, so that every process can be started by hand in the same way.

use super::provers::{GRACE_VARIABLE, Provers};
use crate::failure::Failure;
use push0_domain::pipeline::Pipeline;
use push0_domain::{ProverId, ZkvmId};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Services present in every deployment.
const SERVICES: [&str; 5] = ["ingester", "dispatcher", "collector", "watchdog", "gateway"];
/// Time for which a prover's attempts may continue after a stop, unless `provers.toml` sets another.
const PROVER_GRACE: Duration = Duration::from_secs(7);
/// Time limit for a service to stop before it is killed.
const SERVICE_GRACE: Duration = Duration::from_secs(10);
/// Time that a prover takes to stop after the grace of its attempts, with a margin: an adapter gives itself 5 s.
const AFTER_GRACE: Duration = Duration::from_secs(6);

/// A process to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Name of the process, used in its log lines and in `endpoint.json`.
    pub(crate) name: String,
    /// The zkVM of a prover or verifier; `None` for other services.
    pub(crate) zkvm: Option<ZkvmId>,
    /// Path of the program.
    pub(crate) program: PathBuf,
    /// Arguments of the program.
    pub(crate) args: Vec<OsString>,
    /// Environment variables with the configuration.
    pub(crate) env: BTreeMap<String, String>,
    /// Time limit for the process to stop before it is killed.
    pub(crate) grace: Duration,
}

/// Returns the processes for these pipelines, or all reasons why they cannot be planned.
pub(crate) fn processes(
    pipelines: &[Pipeline],
    provers: &Provers,
    find: impl Fn(&str) -> Result<PathBuf, String>,
) -> Result<Vec<Process>, Failure> {
    let (mut missing, mut wrong) = (Vec::new(), Vec::new());
    let mut found = Vec::new();
    for name in SERVICES {
        match find(name) {
            Ok(program) => found.push(Process {
                name: name.into(),
                zkvm: None,
                program,
                args: Vec::new(),
                env: BTreeMap::new(),
                grace: SERVICE_GRACE,
            }),
            Err(reason) => missing.push(reason),
        }
    }
    let zkvms: BTreeSet<ZkvmId> = pipelines.iter().flat_map(Pipeline::zkvms).collect();
    for zkvm in zkvms {
        match adapters(&zkvm, needs_verifier(pipelines, &zkvm), provers, &find) {
            Ok(adapters) => found.extend(adapters),
            Err(reason) => wrong.push(reason),
        }
    }
    // Services that are missing are no mistake in a file.
    let is_usage = missing.is_empty();
    missing.extend(wrong);
    let text = missing.join("\npush0: ");
    match (missing.is_empty(), is_usage) {
        (true, _) => Ok(found),
        (false, true) => Err(Failure::usage(text)),
        (false, false) => Err(Failure::failed(text)),
    }
}

fn needs_verifier(pipelines: &[Pipeline], zkvm: &ZkvmId) -> bool {
    let mut pipelines = pipelines.iter();
    pipelines.any(|pipeline| pipeline.checked_zkvms().contains(zkvm))
}

fn adapters(
    zkvm: &ZkvmId,
    verify: bool,
    provers: &Provers,
    find: impl Fn(&str) -> Result<PathBuf, String>,
) -> Result<Vec<Process>, String> {
    let spec = provers.of(zkvm);
    let program = find(&spec.program())
        .map_err(|reason| format!("{reason}, or name another adapter for zkVM {zkvm} in provers.toml"))?;
    let process = |name: String, args: Vec<OsString>| {
        let id = ProverId::new(&name).map_err(|error| error.to_string())?;
        let mut env = BTreeMap::from([
            ("PUSH0_PROVER__ID".to_owned(), id.to_string()),
            ("PUSH0_PROVER__ZKVM".to_owned(), zkvm.to_string()),
            ("PUSH0_PROVER__SLOTS".to_owned(), spec.slots.to_string()),
            (
                GRACE_VARIABLE.to_owned(),
                humantime::format_duration(PROVER_GRACE).to_string(),
            ),
        ]);
        env.extend(spec.env.clone());
        let grace = spec.grace()?.unwrap_or(PROVER_GRACE);
        Ok(Process {
            name,
            zkvm: Some(zkvm.clone()),
            program: program.clone(),
            args,
            env,
            grace: grace + AFTER_GRACE,
        })
    };
    let verifiers = if verify { spec.verifiers } else { 0 };
    let provers = (1..=spec.count).map(|n| process(format!("{zkvm}-{n}"), Vec::new()));
    let verifiers = (1..=verifiers).map(|n| process(format!("{zkvm}-verifier-{n}"), vec!["--verify".into()]));
    provers.chain(verifiers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::provers::ProversArg;
    use std::path::Path;

    fn pipeline(verify: &str) -> Pipeline {
        let text = format!(
            "name = \"p\"\n[source]\nkind = \"http\"\n[[proof]]\ntype = \"t\"\nzkvm = \"vm\"\nverify = \"{verify}\"\n\
             [[proof.stage]]\nname = \"s\"\nkind = \"split\"\ntimeout = \"1s\"\n\
             [[proof.stage]]\nname = \"j\"\nkind = \"join\"\nzkvm = \"agg\"\ntimeout = \"1s\"\n"
        );
        Pipeline::from_toml("p.toml", &text).unwrap()
    }

    fn names(verify: &str, provers: &[&str]) -> Vec<String> {
        let args: Vec<ProversArg> = provers.iter().map(|arg| arg.parse().unwrap()).collect();
        let provers = Provers::load(&args, Path::new("/nowhere")).ok().unwrap();
        let plan = processes(&[pipeline(verify)], &provers, |name| Ok(name.into()))
            .ok()
            .unwrap();
        plan.into_iter()
            .skip(SERVICES.len())
            .map(|process| process.name)
            .collect()
    }

    #[test]
    fn every_zkvm_has_its_provers_and_verifiers_where_something_is_verified() {
        assert_eq!(
            names("final", &["vm=2"]),
            ["agg-1", "agg-verifier-1", "vm-1", "vm-2"]
        );
        assert_eq!(
            names("every-stage", &[]),
            ["agg-1", "agg-verifier-1", "vm-1", "vm-verifier-1"]
        );
        assert_eq!(names("off", &[]), ["agg-1", "vm-1"]);
    }

    #[test]
    fn a_prover_is_killed_no_sooner_than_its_own_grace_allows() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.toml");
        let plan = |grace: &str| {
            let text = format!("[[prover]]\nzkvm = \"vm\"\nenv = {{ PUSH0_PROVER__GRACE = \"{grace}\" }}");
            std::fs::write(&file, text).unwrap();
            let provers = Provers::load(&[ProversArg::File(file.clone())], dir.path())?;
            processes(&[pipeline("off")], &provers, |name| Ok(name.into()))
        };
        let graces = plan("10m")
            .ok()
            .unwrap()
            .into_iter()
            .map(|p| (p.name, p.grace.as_secs()));
        let graces: BTreeMap<String, u64> = graces.collect();
        assert_eq!(
            (graces["vm-1"], graces["agg-1"], graces["collector"]),
            (606, 13, 10)
        );
        let Err(Failure::Usage(wrong)) = plan("soon") else {
            panic!("a wrong grace is a wrong file")
        };
        assert!(
            wrong.contains("p.toml: PUSH0_PROVER__GRACE = \"soon\" for zkVM vm"),
            "{wrong}"
        );
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let provers = Provers::load(&[], Path::new("/nowhere")).ok().unwrap();
        let all = processes(&[pipeline("off")], &provers, |name| Err(format!("no {name}"))).unwrap_err();
        assert!(matches!(all, Failure::Failed(_)), "{all:?}");
        let all = all.text();
        assert_eq!(all.lines().count(), SERVICES.len() + 2);
        assert!(all.contains("no prover-agg, or name another adapter"), "{all}");
        // The file names an adapter that is not there.
        let find = |name: &str| match name.starts_with("prover-") {
            true => Err(format!("no {name}")),
            false => Ok(name.into()),
        };
        let wrong = processes(&[pipeline("off")], &provers, find).unwrap_err();
        assert!(matches!(wrong, Failure::Usage(_)), "{wrong:?}");
    }
}
