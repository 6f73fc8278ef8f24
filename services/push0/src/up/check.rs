//! Asks every program whether it would start, before anything is started.
//!
//! Otherwise one wrong variable is found only when the broker and all other services run. A program that does not know
//! the flag is not judged here: its start decides.

use super::plan::Process;
use super::supervise::command;
use crate::failure::Failure;
use push0_runtime::exit;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Time limit for an answer. A program that ignores the flag runs until then.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Fails with one line for each program that refuses its configuration.
pub(crate) async fn check(processes: &[Process]) -> Result<(), Failure> {
    let mut asked = JoinSet::new();
    for process in distinct(processes) {
        asked.spawn(refusal(process.clone()));
    }
    let answers = asked.join_all().await;
    let mut refused: Vec<String> = answers.into_iter().flatten().collect();
    if refused.is_empty() {
        return Ok(());
    }
    refused.sort();
    Err(Failure::usage(refused.join("\npush0: ")))
}

/// Returns one process of each configuration: those of one zkVM and role differ in nothing that is refused.
fn distinct(processes: &[Process]) -> impl Iterator<Item = &Process> {
    let mut first = BTreeMap::new();
    for process in processes {
        let kind = (&process.program, &process.zkvm, &process.args);
        first.entry(kind).or_insert(process);
    }
    first.into_values()
}

/// Asks a program, and returns a line with the reason if it refuses.
async fn refusal(process: Process) -> Option<String> {
    let mut command = command(&process).ok()?;
    command.arg("--check-start");
    // A program that gives no answer is killed when the command is dropped.
    let output = timeout(ANSWER_WITHIN, command.output()).await.ok()?.ok()?;
    if output.status.code() != Some(i32::from(exit::CONFIG)) {
        return None;
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let reason = said.lines().find_map(|line| line.strip_prefix(exit::REFUSED))?;
    let variables = match &process.zkvm {
        Some(zkvm) => format!("; its variables are `env` of zkVM {zkvm} in provers.toml"),
        None => String::new(),
    };
    Some(format!("{} would not start: {reason}{variables}", process.name))
}
