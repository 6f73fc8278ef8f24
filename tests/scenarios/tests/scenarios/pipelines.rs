//! Several pipelines in one deployment, which are added, changed and removed while the others work.

use push0_bus::{Bucket, Bus, Message, Stream};
use push0_domain::{
    Announcement, BlockHash, Payload, PipelineId,
    message::{BlockEvent, BlockFacts, Dead, EmissionOutcome, KnownBlock, ObservedBlock},
    pipeline::Pipeline,
    subject,
    trace::TraceContext,
};
use push0_harness::{assert_complete_in_order, synthetic_block, synthetic_hash};
use push0_scenarios::{
    PATIENCE, attempts, dead_letters, demo, deploy, outcome, proofs, prover, push0, running, settled, single,
    verifier,
};

fn named(name: &str, stage: &str) -> (PipelineId, String) {
    let text = single(stage).replace("name = \"demo\"", &format!("name = \"{name}\""));
    (name.parse().expect("a name"), text)
}

/// Returns the text of a pipeline whose blocks are proved in two steps by different provers.
fn two_steps(name: &str) -> String {
    let (_, text) = named(name, "timeout = \"10s\"");
    let second = "[[proof.stage]]\nname = \"wrap\"\nkind = \"map\"\nzkvm = \"wrapper\"\ntimeout = \"10s\"\n";
    format!("{text}\n{second}")
}

#[tokio::test]
async fn pipelines_come_change_and_go_without_touching_the_work_of_others() {
    let adapters = ["p1", "p2"].map(prover).into_iter().chain([verifier("v1")]);
    let wrapper = |name: &str| prover(name).env("PUSH0_PROVER__ZKVM", "wrapper");
    let adapters = adapters.chain([wrapper("w1"), wrapper("w2").arg("--verify")]);
    let (steady, text) = named("steady", "timeout = \"10s\"");
    // The zkVM of the changed definition is provisioned from the start, so that its provers can
    // wait for work.
    let deployment = {
        let deployment = deploy(&text, []).await;
        deployment.apply(&two_steps("other")).await;
        let mut deployment = deployment;
        for adapter in adapters {
            deployment.start_service(adapter);
        }
        deployment.ready().await;
        deployment
    };
    let (young, first) = named("young", "timeout = \"10s\"");

    deployment.submit_blocks(&steady, 1..=20).await;
    deployment.apply(&first).await;
    deployment.submit_blocks(&young, 1..=20).await;
    deployment.submit_blocks(&steady, 21..=40).await;
    // The definition changes while blocks are in flight; those blocks keep the revision that they came with.
    deployment.apply(&two_steps("young")).await;
    deployment.submit_blocks(&young, 21..=40).await;
    // The pipeline is removed: no more blocks follow, and blocks in flight are proved.
    push0(&deployment, &["pipeline", "remove", "young"]).await;
    deployment.submit_blocks(&steady, 41..=60).await;

    let of_young = deployment.wait_emitted(&young, 40, PATIENCE).await;
    assert_complete_in_order(&of_young, 1..=40);
    for (at, kept) in of_young.iter().enumerate() {
        let wanted = if at < 20 { "mock" } else { "wrapper" };
        assert_eq!(proofs(kept)[0].zkvm.as_str(), wanted, "block {}", at + 1);
    }
    let of_steady = deployment.wait_emitted(&steady, 60, PATIENCE).await;
    assert_complete_in_order(&of_steady, 1..=60);
    settled(deployment.bus()).await;
    // Each of the 100 blocks was proved once by the mock provers, none twice.
    let (p1, p2) = (deployment.service("p1"), deployment.service("p2"));
    assert_eq!(
        attempts(p1, "completed").await + attempts(p2, "completed").await,
        100
    );
    assert_eq!(attempts(deployment.service("w1"), "completed").await, 20);
}

/// Announces a block with a revision of the caller's choice.
async fn announce(bus: &Bus, pipeline: &PipelineId, number: u64, revision: u32) {
    let block = synthetic_block(pipeline, number);
    let known = KnownBlock {
        block,
        parent_hash: synthetic_hash(pipeline, number - 1),
        revision,
        observed_at: push0_bus::now(),
        announced_after: Announcement::default(),
        input: None,
        facts: BlockFacts::default(),
    };
    let facts = bus.facts(Bucket::Blocks).await.expect("a bucket");
    let key = subject::facts::known_block(pipeline, &block);
    facts.put(&key, &known).await.expect("the fact is stored");
    let event = BlockEvent::Observed(ObservedBlock {
        pipeline: pipeline.clone(),
        revision,
        block,
        parent_hash: known.parent_hash,
        input: Payload::Inline(number.to_string().into_bytes()),
        observed_at: known.observed_at,
        deadline_at: None,
        facts: known.facts,
    });
    let message = Message::new(subject::block(pipeline), &event, &TraceContext::default());
    let stored = bus.publish(message.expect("it can be written")).await;
    stored.expect("the block is stored");
}

/// A lost revision is the store's fault: neither a block that waits nor a finished proof dies of it.
#[tokio::test]
async fn blocks_of_a_lost_revision_wait_until_it_is_put_back() {
    let folder = tempfile::tempdir().expect("a directory");
    // A verifier would wait for the revision too, and the collector would get no result.
    let unverified =
        |stage: &str| single(stage).replace("type = \"main\"", "type = \"main\"\nverify = \"off\"");
    let (text, file) = (unverified("timeout = \"20s\""), folder.path().join("demo.toml"));
    std::fs::write(&file, &text).expect("the file is written");
    let slow = prover("p1").env("PUSH0_MOCK__TIME", "2s");
    let mut deployment = deploy(&text, [slow]).await;
    let (pipeline, bus) = (demo(), deployment.another_bus().await);
    deployment.submit_blocks(&pipeline, 1..=1).await;
    running(&bus, "p1").await;
    deployment.apply(&unverified("timeout = \"21s\"")).await;
    let definitions = bus.facts::<Pipeline>(Bucket::Pipelines).await.expect("a bucket");
    definitions.delete("demo.1").await.expect("deleted");
    // Services that have read a revision remember it.
    for program in ["dispatcher", "collector"] {
        for label in [format!("{program}-1"), format!("{program}-2")] {
            deployment.service_mut(&label).restart();
        }
    }
    announce(&bus, &pipeline, 2, 1).await;
    deployment.submit_blocks(&pipeline, 3..=3).await;
    let reason = "revision 1 of pipeline demo is lost";
    for program in ["dispatcher", "collector"] {
        let [one, other] = [1, 2].map(|n| deployment.service(&format!("{program}-{n}")));
        // The leader says so, and the lead may pass on meanwhile.
        tokio::select! {
            () = one.not_ready(reason, PATIENCE) => {}
            () = other.not_ready(reason, PATIENCE) => {}
        }
    }
    let steady = "steady".parse().expect("a name");
    deployment.apply(&text.replace("\"demo\"", "\"steady\"")).await;
    deployment.submit_blocks(&steady, 1..=2).await;
    deployment.wait_emitted(&steady, 2, PATIENCE).await;
    let repair = deployment.command().arg("repair").arg("--apply");
    let kept = folder.path().join("kept.jsonl");
    let repair = repair.arg("--keep").arg(&kept).start();
    assert!(!repair.wait_exit(PATIENCE).await.success(), "{}", repair.log());
    assert!(repair.log().contains("apply FILE --revision"), "{}", repair.log());
    let file = file.display().to_string();
    push0(&deployment, &["pipeline", "apply", &file, "--revision", "1"]).await;
    let emissions = deployment.wait_emitted(&pipeline, 3, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=3);
    assert!(emissions.iter().all(|kept| !proofs(kept).is_empty()));
    assert_eq!(dead_letters(&bus).await, []);
    deployment.ready().await;
    push0(&deployment, &["repair"]).await;
    settled(&bus).await;
}

#[tokio::test]
async fn a_block_of_a_revision_that_nobody_defined_is_dead_and_the_chain_goes_on() {
    let deployment = deploy(&single("timeout = \"10s\""), [prover("p1"), verifier("v1")]).await;
    let (bus, pipeline) = (deployment.bus(), demo());
    deployment.submit_blocks(&pipeline, 1..=3).await;
    announce(bus, &pipeline, 4, 77).await;
    deployment.submit_blocks(&pipeline, 5..=8).await;

    let emissions = deployment.wait_emitted(&pipeline, 8, PATIENCE).await;
    let hashes: Vec<BlockHash> = emissions
        .iter()
        .map(|kept| kept.body.as_ref().expect("readable").last.hash)
        .collect();
    let expected: Vec<BlockHash> = (1..=8).map(|n| synthetic_hash(&pipeline, n)).collect();
    assert_eq!(hashes, expected);
    let [letter] = &dead_letters(bus).await[..] else {
        unreachable!("one letter is expected")
    };
    assert!(
        matches!(&letter.what, Dead::Message { stream, .. } if stream == Stream::Blocks.name()),
        "{letter:?}"
    );
    for (at, kept) in emissions.iter().enumerate() {
        match outcome(kept) {
            EmissionOutcome::Dead { dead_letter, reason } if at == 3 => {
                assert_eq!(*dead_letter, letter.id);
                assert!(reason.contains("has no revision 77"), "{reason}");
            }
            EmissionOutcome::Proved(_) if at != 3 => {}
            other => unreachable!("block {}: {other:?}", at + 1),
        }
    }
    settled(bus).await;
}

#[tokio::test]
async fn a_removed_pipeline_finishes_its_blocks_also_over_restarts() {
    let (removed, text) = named("removed", "timeout = \"10s\"");
    let slow = |name: &str| prover(name).env("PUSH0_MOCK__TIME", "400ms");
    let mut deployment = deploy(&text, [slow("p1"), verifier("v1")]).await;
    deployment.submit_blocks(&removed, 1..=12).await;
    deployment.wait_emitted(&removed, 1, PATIENCE).await;
    push0(&deployment, &["pipeline", "remove", "removed"]).await;
    let status = push0(&deployment, &["status"]).await;
    assert!(
        status.contains("removed, ") && status.contains(" in flight"),
        "{status}"
    );
    let services: Vec<String> = ["collector", "dispatcher", "watchdog"]
        .iter()
        .flat_map(|program| {
            deployment
                .instances(program)
                .map(|process| process.label().to_owned())
        })
        .collect();
    for service in services {
        deployment.service_mut(&service).kill();
        deployment.service_mut(&service).restart();
    }
    let emitted = deployment.wait_emitted(&removed, 12, PATIENCE).await;
    assert_complete_in_order(&emitted, 1..=12);
    settled(deployment.bus()).await;
}
