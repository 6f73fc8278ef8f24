//! An operator's view of a deployment that `push0 up` did not start, with accounts and standbys.

use push0_harness::{Deployment, Process, wait_for};
use push0_scenarios::{PATIENCE, demo, deploy, prover, single, verifier};
use serde_json::Value;

/// The control services of a shipped deployment.
const SERVICES: [&str; 4] = ["ingester", "dispatcher", "collector", "watchdog"];

/// Returns the operator's view.
async fn status(deployment: &Deployment) -> Value {
    let command = deployment.command().arg("status").arg("--json").start();
    command.wait_exit(PATIENCE).await;
    serde_json::from_str(command.log().trim()).unwrap_or_else(|e| unreachable!("{e}: {}", command.log()))
}

fn named<'a>(list: &'a Value, key: &str, name: &str) -> Vec<&'a Value> {
    let list = list.as_array().expect("a list");
    list.iter().filter(|item| item[key] == name).collect()
}

#[tokio::test]
async fn status_names_leaders_standbys_and_what_is_wrong() {
    let adapters = [prover("p1"), verifier("v1")];
    let deployment = deploy(&single("timeout = \"10s\""), adapters).await;
    deployment.submit_blocks(&demo(), 1..=3).await;
    deployment.wait_emitted(&demo(), 3, PATIENCE).await;
    let well = wait_for("a deployment that is well", PATIENCE, async || {
        let seen = status(&deployment).await;
        (seen["ok"] == true).then_some(seen.clone()).ok_or(seen)
    })
    .await;
    for service in SERVICES {
        let replicas = named(&well["services"], "name", service);
        assert_eq!(replicas.len(), 2, "{service}: {well}");
        assert_ne!(replicas[0]["replica"], replicas[1]["replica"]);
        assert!(
            replicas
                .iter()
                .all(|one| one["memory_bytes"].as_u64() > Some(1_000_000)),
            "{well}"
        );
    }
    for role in ["dispatcher", "watchdog", "collector.demo"] {
        let role = named(&well["roles"], "role", role)[0];
        let count = |key: &str| role[key].as_array().map(Vec::len);
        assert_eq!(
            (count("leaders"), count("standbys")),
            (Some(1), Some(1)),
            "{role}"
        );
    }
    assert_eq!(well["provers"].as_array().map(Vec::len), Some(2), "{well}");

    deployment.service("dispatcher-1").kill();
    deployment.service("dispatcher-2").kill();
    wait_for("word of the missing dispatcher", PATIENCE, async || {
        let check = deployment.command().arg("status").arg("--check").start();
        let code = check.wait_exit(PATIENCE).await.code();
        let said = check.log();
        let is_told = said.starts_with("NOT OK: no process leads as dispatcher") && said.contains(", since ");
        (code == Some(1) && is_told).then_some(()).ok_or(said)
    })
    .await;
}

#[tokio::test]
async fn services_log_at_most_one_line_a_block_while_all_is_well() {
    const BLOCKS: u64 = 30;
    let adapters = [prover("p1"), verifier("v1")];
    let deployment = deploy(&single("timeout = \"10s\""), adapters).await;
    deployment.submit_blocks(&demo(), 1..=1).await;
    deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    let lines = || {
        let programs = SERVICES.iter().chain(&["prover-mock"]);
        let processes = programs.flat_map(|program| deployment.instances(program));
        processes.map(Process::log).collect::<Vec<String>>()
    };
    let before = lines();
    deployment.submit_blocks(&demo(), 2..=BLOCKS).await;
    deployment
        .wait_emitted(&demo(), usize::try_from(BLOCKS).expect("small"), PATIENCE)
        .await;
    let after = lines();
    let new: Vec<&str> = before
        .iter()
        .zip(&after)
        .flat_map(|(before, after)| after[before.len().min(after.len())..].lines())
        .collect();
    assert!(
        new.len() < usize::try_from(BLOCKS).expect("small"),
        "{}",
        new.join("\n")
    );
}
