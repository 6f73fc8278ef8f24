//! Two pipelines on two zkVMs, mock provers and real programs, while processes of all kinds die.

use push0_domain::PipelineId;
use push0_harness::{Deployment, DeploymentBuilder, Process, ProcessBuilder, assert_complete_in_order};
use push0_scenarios::{PATIENCE, dead_letters, prover, settled, verifier};

const PARTS: &str = r#"
    name = "parts"
    source = { kind = "external" }
    [[proof]]
    type = "main"
    zkvm = "mock"
    [[proof.stage]]
    name = "split"
    kind = "split"
    timeout = "10s"
    attempts = 8
    [[proof.stage]]
    name = "prove"
    kind = "map"
    timeout = "10s"
    attempts = 8
    [[proof.stage]]
    name = "join"
    kind = "join"
    timeout = "10s"
    attempts = 8
    "#;

const PROGRAMS: &str = r#"
    name = "programs"
    source = { kind = "external" }
    [[proof]]
    type = "main"
    zkvm = "exec"
    verify = "off"
    [[proof.stage]]
    name = "prove"
    kind = "map"
    timeout = "10s"
    attempts = 8
    "#;

fn program(name: &str) -> ProcessBuilder {
    let config = "[prover]\nzkvm = 'exec'\n[exec]\nprogram = 'cp'\nargs = ['{input}', '{output}']\n";
    Process::program("prover-exec")
        .label(name)
        .env("PUSH0_PROVER__ID", name)
        .config(config)
}

#[tokio::test]
async fn two_pipelines_go_on_while_processes_of_all_kinds_die() {
    let split = |name: &str| prover(name).env("PUSH0_MOCK__SPLIT", 3);
    let adapters = [
        split("m1"),
        split("m2"),
        verifier("v1"),
        verifier("v2"),
        program("e1"),
        program("e2"),
    ];
    let builder = Deployment::builder()
        .as_shipped()
        .pipeline(PARTS)
        .pipeline(PROGRAMS);
    let builder = adapters.into_iter().fold(builder, DeploymentBuilder::service);
    let mut deployment = builder.start().await;
    let names: [PipelineId; 2] = ["parts", "programs"].map(|name| name.parse().expect("a name"));
    let mut last = 0;
    for victim in [
        "m1",
        "e1",
        "dispatcher",
        "v1",
        "collector",
        "m2",
        "watchdog",
        "e2",
    ] {
        for name in &names {
            deployment.submit_blocks(name, last + 1..=last + 10).await;
        }
        let in_the_middle = usize::try_from(last + 3).expect("a small number");
        deployment.wait_emitted(&names[0], in_the_middle, PATIENCE).await;
        let victim = deployment.victim(victim).await;
        deployment.service_mut(&victim).restart();
        last += 10;
    }
    for name in &names {
        let all = usize::try_from(last).expect("a small number");
        deployment.wait_emitted(name, all, PATIENCE).await;
    }
    settled(deployment.bus()).await;
    for name in &names {
        assert_complete_in_order(&deployment.emissions(name).await, 1..=last);
    }
    assert_eq!(dead_letters(deployment.bus()).await, []);
}
