//! An operator retries dead blocks, with proofs of every shape.

use push0_bus::Stream;
use push0_domain::{
    PipelineId,
    message::{Emission, EmissionOutcome},
    subject,
};
use push0_harness::{Deployment, DeploymentBuilder, Process, ProcessBuilder};
use push0_scenarios::{PATIENCE, dead_letters, outcome, prover, push0, settled};

/// Returns a program that passes on its input, and fails for good as long as the file `outage` exists.
fn program(name: &str, outage: &str) -> ProcessBuilder {
    let config = format!(
        r#"
        [exec]
        program = "/bin/sh"
        args = ["-c", '[ ! -e {outage} ] || exit 4; cat "$1" > "$2"', "x", "{{input}}", "{{output}}"]
        exit_codes.fatal = [4]
        "#
    );
    Process::program("prover-exec")
        .label(name)
        .config(&config)
        .env("PUSH0_PROVER__ID", name)
        .env("PUSH0_PROVER__ZKVM", "fragile")
        .env("PUSH0_PROVER__SLOTS", 4)
}

fn stage(name: &str, kind: &str, zkvm: &str, more: &str) -> String {
    format!(
        "[[proof.stage]]\nname = \"{name}\"\nkind = \"{kind}\"\nzkvm = \"{zkvm}\"\ntimeout = \"10s\"\n{more}\n"
    )
}

fn proof(proof_type: &str, stages: &[String]) -> String {
    let stages = stages.concat();
    format!("[[proof]]\ntype = \"{proof_type}\"\nzkvm = \"mock\"\nverify = \"off\"\n{stages}")
}

/// Returns pipelines with every shape of proof whose tasks on zkVM `fragile` can die, by name.
fn shapes() -> [(&'static str, String); 4] {
    let map = |zkvm| stage("prove", "map", zkvm, "");
    let range = stage(
        "aggregate",
        "range",
        "fragile",
        "every = 4\nclose_after = \"20s\"\narity = 2",
    );
    [
        ("one", proof("p", &[map("fragile")])),
        (
            "split",
            proof(
                "p",
                &[
                    stage("split", "split", "mock", ""),
                    map("fragile"),
                    stage("join", "join", "mock", ""),
                ],
            ),
        ),
        (
            "quorum",
            format!(
                "[quorum]\nvalid = 2\n{}{}",
                proof("a", &[map("mock")]),
                proof("b", &[map("fragile")])
            ),
        ),
        ("range", proof("p", &[map("mock"), range])),
    ]
}

#[tokio::test]
async fn every_dead_block_is_proved_again_with_one_amended_record() {
    let place = tempfile::tempdir().expect("a directory");
    let outage = place.path().join("outage");
    std::fs::write(&outage, "").expect("a file");
    let pipelines = shapes().map(|(name, proofs)| {
        let text = format!("name = \"{name}\"\nsource = {{ kind = \"external\" }}\n{proofs}");
        (name.parse::<PipelineId>().expect("a name"), text)
    });
    let adapters = [
        prover("m1")
            .env("PUSH0_MOCK__SPLIT", 3)
            .env("PUSH0_PROVER__SLOTS", 4),
        program("f1", outage.to_str().expect("it is text")),
    ];
    let texts = pipelines.iter().map(|(_, text)| text.as_str());
    let builder = texts.fold(Deployment::builder().as_shipped(), DeploymentBuilder::pipeline);
    let builder = adapters.into_iter().fold(builder, DeploymentBuilder::service);
    let deployment = builder.start().await;
    for (name, _) in &pipelines {
        // Block 0 begins the chain, so the range of four is complete.
        deployment.submit_blocks(name, 0..=3).await;
    }
    for (name, _) in &pipelines {
        let records = if name.as_str() == "range" { 1 } else { 4 };
        let dead = deployment.wait_emitted(name, records, PATIENCE).await;
        assert!(
            dead.iter()
                .all(|kept| matches!(outcome(kept), EmissionOutcome::Dead { .. })),
            "{name}"
        );
    }
    settled(deployment.bus()).await;

    // A retry during the outage fails, and the next one begins anew.
    for (name, _) in &pipelines {
        let again = deployment
            .command()
            .arg("retry")
            .arg("0..3")
            .arg("--pipeline")
            .arg(name.as_str())
            .start();
        assert!(
            !again.wait_exit(PATIENCE).await.success(),
            "{name}: {}",
            again.log()
        );
        assert!(again.log().contains("dead again"), "{name}: {}", again.log());
    }
    std::fs::remove_file(&outage).expect("it was there");
    let (range, others) = pipelines.split_last().expect("four");
    for (name, _) in others {
        let log = push0(&deployment, &["retry", "0..3", "--pipeline", name.as_str()]).await;
        assert!(log.contains("proved (4 of 4)"), "{name}: {log}");
    }
    let log = push0(&deployment, &["retry", "--since", "10m"]).await;
    assert!(log.contains("block 0..3: proved (1 of 1)"), "{log}");
    assert_eq!(range.0.as_str(), "range");

    for (name, _) in &pipelines {
        let numbers = if name.as_str() == "range" { 3..=3 } else { 0..=3 };
        for number in numbers {
            let subject = subject::proof(name, number);
            let records = deployment
                .bus()
                .scan::<Emission>(Stream::Proofs, &subject, 1, 9)
                .await;
            let records = records.expect("the broker answers");
            let said: Vec<&EmissionOutcome> = records.iter().map(outcome).collect();
            assert!(
                matches!(
                    said[..],
                    [EmissionOutcome::Dead { .. }, EmissionOutcome::Proved(_)]
                ),
                "{name} {number}: {said:?}"
            );
        }
    }
    settled(deployment.bus()).await;
    assert!(dead_letters(deployment.bus()).await.is_empty());
    let log = deployment
        .command()
        .arg("retry")
        .arg("2")
        .arg("--pipeline")
        .arg("one")
        .start();
    assert!(!log.wait_exit(PATIENCE).await.success());
    assert!(
        log.log().contains("none of these blocks is dead"),
        "{}",
        log.log()
    );
}
