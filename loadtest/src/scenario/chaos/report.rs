//! The report of a failed run: what the operator's command says of the deployment, and the files of all processes.

use super::{faults::Fault, processes};
use crate::{compare::Comparison, record::Context};
use push0_domain::pipeline::Pipeline;
use push0_harness::{Broker, Deployment, NatsCluster};
use std::{fs, path::PathBuf, sync::Arc, time::Duration};

/// Time limit for an answer of the operator's command.
const ANSWERS: Duration = Duration::from_secs(30);

/// Returns the state of the deployment, and the wait of each pipeline's first lost block, as `push0` tells them.
pub(super) async fn ask<'a>(
    deployment: &Deployment<impl Broker>,
    outputs: impl Iterator<Item = (&'a Arc<Pipeline>, &'a Comparison)>,
) -> Vec<String> {
    let mut questions = vec![vec!["status".to_owned()]];
    for (pipeline, verdict) in outputs {
        if let Some(number) = verdict.lost.first() {
            let name = pipeline.name.to_string();
            questions.push(vec![
                "block".into(),
                number.to_string(),
                "--pipeline".into(),
                name,
            ]);
        }
    }
    let mut answers = Vec::new();
    for question in questions {
        let command = question
            .iter()
            .fold(deployment.command(), |command, arg| command.arg(arg));
        let command = command.label(&format!("push0-{}", answers.len())).start();
        // Without an answer in time, the log tells how far the command came.
        let _ = tokio::time::timeout(ANSWERS, command.wait_exit(2 * ANSWERS)).await;
        answers.push(format!("--- push0 {}\n{}", question.join(" "), command.log()));
    }
    answers
}

/// Leaves all processes' files for inspection, and prints where they are and the ends of the logs.
pub(super) fn keep(
    context: &Context,
    deployment: Deployment<NatsCluster>,
    faults: &[Fault],
) -> anyhow::Result<()> {
    let folder = PathBuf::from(format!("target/bench/chaos-{}", context.seed));
    fs::create_dir_all(&folder)?;
    let said: Vec<String> = faults.iter().map(|fault| format!("{fault:?}\n")).collect();
    fs::write(folder.join("faults"), said.concat())?;
    for label in processes::victims() {
        let log = deployment.service(&label).log();
        let tail: Vec<&str> = log.lines().rev().take(10).collect();
        eprintln!("--- {label}");
        tail.into_iter().rev().for_each(|line| eprintln!("{line}"));
        fs::write(folder.join(format!("{label}.log")), &log)?;
    }
    eprintln!("logs: {}", folder.display());
    for server in deployment.nats.servers() {
        let command = fs::read(format!("/proc/{}/cmdline", server.pid())).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        eprintln!("a broker and its store: {command}");
    }
    // The system ends the processes together with this one, and the forgotten value keeps their directories.
    std::mem::forget(deployment);
    Ok(())
}
