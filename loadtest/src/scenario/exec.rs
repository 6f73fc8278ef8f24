//! What an attempt of a program costs beyond starting the program: `cp` of the input to the output,
//! as the adapter runs it and as a plain child process.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::{Times, round},
};
use anyhow::ensure;
use push0_domain::message::EmissionOutcome;
use push0_harness::Process;
use std::{process::Command, time::Instant};

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let exec = Process::program("prover-exec").label("exec").config(
        "[prover]\nid = \"exec\"\nzkvm = \"mock\"\nslots = 1\n[exec]\nprogram = \"cp\"\n\
         args = [\"{input}\", \"{output}\"]\n",
    );
    let mut stand = Stand::start(stand::services().service(exec), &stand::single(false)).await?;
    let count = context.profile.pick(300, 2_000);
    stand.run(50, Arrivals::AtOnce).await?;
    let records = stand.run(count, Arrivals::AtOnce).await?;
    let mut ours = Times::default();
    for kept in &records {
        if let EmissionOutcome::Proved(proofs) = &stand::proved(kept)?.outcome {
            proofs.iter().for_each(|proof| ours.add(proof.prove_us));
        }
    }
    let mut plain = Times::default();
    for _ in 0..count {
        let began = Instant::now();
        ensure!(
            Command::new("cp")
                .args(["/etc/hostname", "/dev/null"])
                .status()?
                .success()
        );
        plain.add(u64::try_from(began.elapsed().as_micros())?);
    }
    context
        .record("exec")
        .with("per_task_over_fork_ms", round(ours.ms(0.5) - plain.ms(0.5)))
        .with("task_p50_ms", ours.ms(0.5))
        .with("fork_p50_ms", plain.ms(0.5))
        .publish()
}
