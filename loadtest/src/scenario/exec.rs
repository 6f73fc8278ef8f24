//! Cost of a task proved by an external program, beyond starting the program.
//!
//! The program copies its input file to its output file. All tasks are queued at once and a single slot takes
//! them, so the time per task includes the way to the prover and back. The comparison runs the same program
//! on the same files as a child process, in alternating windows.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::{Times, Windows, median, round, spread},
};
use anyhow::ensure;
use push0_domain::message::EmissionOutcome;
use push0_harness::Process;
use std::{
    path::Path,
    process::Command,
    time::{Instant, SystemTime},
};

const PROGRAM: &str = "cp";

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let exec = Process::program("prover-exec").label("exec").config(&format!(
        "[prover]\nid = \"exec\"\nzkvm = \"mock\"\nslots = 1\n[exec]\nprogram = \"{PROGRAM}\"\n\
         args = [\"{{input}}\", \"{{output}}\"]\n",
    ));
    let mut stand = Stand::start(stand::services().service(exec), &stand::single(false)).await?;
    let unique = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_nanos();
    let folder = std::env::temp_dir().join(format!("push0-loadtest-{unique}"));
    std::fs::create_dir(&folder)?;
    let count = context.profile.pick(300, 1_000);
    stand.run(50, Arrivals::AtOnce).await?;
    let (mut attempts, mut forks, mut per_task) = (Windows::default(), Windows::default(), Vec::new());
    for _ in 0..context.profile.pick(3, 5) {
        let records = stand.run(count, Arrivals::AtOnce).await?;
        let mut took = Vec::new();
        for kept in &records {
            if let EmissionOutcome::Proved(proofs) = &stand::proved(kept)?.outcome {
                took.extend(proofs.iter().map(|proof| proof.prove_us));
            }
        }
        attempts.push(took);
        let plain: Times = forked(&folder, count)?;
        per_task.push(round(
            stand::drained_s(&records)? * 1000.0 / count as f64 - plain.ms(0.5),
        ));
        forks.add(plain);
    }
    std::fs::remove_dir_all(&folder)?;
    context
        .record("exec")
        .with("per_task_over_fork_ms", median(&per_task))
        .with("spread_ms", spread(&per_task).to_vec())
        .with("attempt_p50_ms", attempts.ms(0.5))
        .with("attempt_over_fork_ms", round(attempts.ms(0.5) - forks.ms(0.5)))
        .with("fork_p50_ms", forks.ms(0.5))
        .with("fork_p99_ms", forks.ms(0.99))
        .with("tasks", attempts.len())
        .publish()
}

/// Runs the same program on files like the adapter's, and returns the times.
fn forked(folder: &Path, count: u64) -> anyhow::Result<Times> {
    let mut times = Times::default();
    for number in 0..count {
        let (from, to) = (folder.join("IN.json"), folder.join("OUT.json"));
        std::fs::write(&from, number.to_string())?;
        let began = Instant::now();
        ensure!(Command::new(PROGRAM).args([&from, &to]).status()?.success());
        times.add(u64::try_from(began.elapsed().as_micros())?);
        std::fs::remove_file(&to)?;
    }
    Ok(times)
}
