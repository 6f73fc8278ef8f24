//! Tests of the programs in `examples/`, each on a broker and services of its own.

mod adapter_python;
mod adapter_rust;
mod consumer_python;
mod submit_http;

use push0_domain::PipelineId;
use push0_harness::{Deployment, DeploymentBuilder, Process, ProcessBuilder};
use std::time::Duration;

/// Time limit of waits, far above the duration of any step on a busy machine.
const PATIENCE: Duration = Duration::from_secs(25);

/// Returns a pipeline `demo` of one stage on the zkVM `stamp`. `stage` holds the remaining keys of the stage.
fn pipeline(source: &str, stage: &str) -> String {
    format!(
        r#"
        name = "demo"
        source = {{ kind = "{source}" }}
        [[proof]]
        type = "main"
        zkvm = "stamp"
        [[proof.stage]]
        name = "prove"
        kind = "map"
        {stage}
        "#
    )
}

fn demo() -> PipelineId {
    PipelineId::new("demo").expect("a name")
}

/// Returns a deployment of the control services that every example needs, without an ingester.
fn services(pipeline: &str) -> DeploymentBuilder {
    let services = ["dispatcher", "collector", "watchdog"];
    let builder = Deployment::builder().pipeline(pipeline);
    services
        .into_iter()
        .fold(builder, |builder, name| builder.service(Process::program(name)))
}

/// Returns the example adapter in Rust, as a prover.
fn stamp(name: &str) -> ProcessBuilder {
    Process::program("prover-stamp")
        .label(name)
        .env("PUSH0_PROVER__ID", name)
}

/// Returns the example adapter in Rust, as a verifier.
fn verifier() -> ProcessBuilder {
    stamp("v1").arg("--verify")
}

/// Returns the operator's command for a deployment, to be given arguments.
fn operate(deployment: &Deployment, args: &[&str]) -> ProcessBuilder {
    args.iter()
        .fold(deployment.command(), |command, arg| command.arg(*arg))
}

/// Runs a program to its end and returns its output.
async fn run(program: ProcessBuilder) -> String {
    let process = program.start();
    let status = process.wait_exit(PATIENCE).await;
    assert!(status.success(), "{status}: {}", process.log());
    process.log()
}
