//! The adapter's process and its commands, tested on a real broker.

use crate::{
    headers,
    rig::{Rig, class, failure, output},
};
use push0_bus::Bucket;
use push0_domain::{
    Announcement, BlockHash, BlockRef, Payload, Payloads, Timestamp,
    message::{BlockFacts, FailureClass, KnownBlock, Task},
    subject,
};
use push0_harness::Process;
use push0_prover_miden::program_id;
use std::process::Command;

/// Returns a task with a real header and stores the block's facts, as the ingester would.
async fn task(rig: &Rig, number: u64) -> Task {
    let (statement, rlp) = headers::block(number, b"x");
    let mut task = rig.task(number);
    task.header.id.stage.block = BlockRef {
        number,
        hash: BlockHash(statement.block_hash),
    };
    task.header.context.parent_hash = BlockHash(statement.parent_hash);
    task.header.check = true;
    task.inputs = Payloads::one(Payload::Inline(rlp));
    let known = KnownBlock {
        block: task.header.id.stage.block,
        parent_hash: task.header.context.parent_hash,
        revision: 1,
        observed_at: Timestamp::default(),
        announced_after: Announcement::default(),
        input: None,
        facts: BlockFacts::default(),
    };
    let facts = rig.bus().facts::<KnownBlock>(Bucket::Blocks).await.unwrap();
    let key = subject::facts::known_block(&rig.pipeline, &known.block);
    facts.put(&key, &known).await.unwrap();
    task
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_prover-miden"))
        .args(args)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_header_is_proved_and_verified_and_its_proof_kept_in_a_file_can_be_too() {
    let prover = Process::program("prover-miden").env("PUSH0_PROVER__ID", "a");
    let verifier = Process::program("prover-miden")
        .label("verifier")
        .env("PUSH0_PROVER__ID", "v")
        .arg("--verify");
    let rig = Rig::start("miden", vec![prover, verifier]).await;
    let good = task(&rig, 3).await;
    rig.publish(&good).await;
    let result = rig.result(&good).await;
    let verdict = result.verdict.clone().expect("verified");
    assert_eq!((verdict.verifier.as_str(), verdict.invalid), ("v", None));
    println!("prove {} us, verify {} us", result.prove_us, verdict.verify_us);

    // The task pairs this block's hash with another block's header, so no attempt can succeed.
    let mut bad = task(&rig, 4).await;
    bad.inputs = good.inputs.clone();
    rig.publish(&bad).await;
    let refused = rig.result_of_prover(&bad).await;
    assert_eq!(class(&refused), FailureClass::Fatal);
    assert!(
        failure(&refused).message.contains("the header names parent"),
        "{refused:?}"
    );

    let mut proof = output(rig.bus(), &result).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proof");
    let (id, block) = (
        &good.header.id.stage.block,
        good.header.id.stage.block.hash.to_string(),
    );
    let (number, parent) = (id.number.to_string(), good.header.context.parent_hash.to_string());
    let verify = |proof: &[u8], block: &str, program: &str| {
        std::fs::write(&file, proof).unwrap();
        let path = file.to_str().unwrap();
        run(&[
            "verify-file",
            "--proof",
            path,
            "--block-number",
            &number,
            "--block-hash",
            block,
            "--parent-hash",
            &parent,
            "--program-id",
            program,
        ])
    };
    let ours = format!("0x{}", hex::encode(program_id()));
    assert_eq!(
        verify(&proof, &block, &ours),
        (Some(0), "push0: valid\n".into(), String::new())
    );
    let (code, why, _) = verify(&proof, &parent, &ours);
    assert_eq!(code, Some(65), "{why}");
    assert!(why.contains("does not hold for the statement"), "{why}");
    // A program that this verifier does not have says nothing about the proof.
    for (pinned, why) in [
        (parent.as_str(), "the pipeline pins program"),
        ("abc", "64 hex digits"),
    ] {
        let (code, word, said) = verify(&proof, &block, pinned);
        assert_eq!((code, word.as_str()), (Some(2), ""), "{said}");
        assert!(said.contains(why), "{said}");
    }
    let middle = proof.len() / 2;
    proof[middle] ^= 1;
    let (code, why, _) = verify(&proof, &block, &ours);
    assert_eq!(code, Some(65), "{why}");
}

#[tokio::test]
async fn a_prover_of_another_program_than_the_pinned_one_says_so() {
    let rig = Rig::start("miden", vec![Process::program("prover-miden")]).await;
    for (pinned, why) in [
        (format!("0x{}", "00".repeat(32)), "pins program 0x00"),
        ("abc".to_owned(), "`abc` is not 0x and 64 hex digits"),
    ] {
        let mut task = task(&rig, 3 + pinned.len() as u64 % 2).await;
        task.header.program_id = Some(pinned);
        rig.publish(&task).await;
        let result = rig.result_of_prover(&task).await;
        assert_eq!(class(&result), FailureClass::Surroundings);
        assert!(failure(&result).message.contains(why), "{result:?}");
    }
}

#[test]
fn the_program_id_is_printed_and_is_the_one_that_the_demo_pins() {
    let ours = format!("0x{}", hex::encode(program_id()));
    assert_eq!(
        run(&["program-id"]),
        (Some(0), format!("{ours}\n"), String::new())
    );
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/pipelines/demo.toml");
    let demo = std::fs::read_to_string(demo).unwrap();
    let demo = push0_domain::pipeline::Pipeline::from_toml("demo.toml", &demo).unwrap();
    let miden: Vec<_> = demo
        .proofs
        .iter()
        .filter(|proof| proof.zkvm.as_str() == "miden")
        .collect();
    assert_eq!(miden.len(), 1);
    assert_eq!(miden[0].program_id.as_deref(), Some(ours.as_str()));
}
