//! Streams and stores that fill: data of emitted blocks makes room, everything else stays and waits.

use push0_bus::{Limits, Message, Place, Stream};
use push0_domain::{
    Payload, Payloads, PipelineId, ProverId, ZkvmId,
    message::{EmissionOutcome, Event, Happening, Outcome, StageKind, TaskHeader, TaskResult},
    subject::{self, AttemptKey},
    trace::TraceContext,
};
use push0_harness::{
    Deployment, DeploymentBuilder, assert_complete_in_order, synthetic_block, synthetic_header, wait_for,
};
use push0_scenarios::{
    PATIENCE, attempts, count_of, dead_letters, demo, outcome, proofs, prover, push0, running, settled,
    single, verifier,
};
use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

/// A deployment with this small a store, of blocks from a file with inputs of this length.
fn small(store_bytes: u64, stage: &str, folder: &tempfile::TempDir) -> DeploymentBuilder {
    let file = folder.path().join("blocks.jsonl");
    let source = format!("source = {{ kind = \"file\", path = \"{}\" }}", file.display());
    let toml = single(stage).replace("source = { kind = \"external\" }", &source);
    let limits = Limits {
        store_bytes,
        ..Limits::default()
    };
    Deployment::builder().as_shipped().limits(limits).pipeline(&toml)
}

/// Writes the file of blocks, numbered from 1.
fn write_blocks(folder: &tempfile::TempDir, count: u64, input_len: usize) {
    let mut lines = String::new();
    for number in 1..=count {
        let input = format!("{number:08x}").repeat(input_len.div_ceil(4));
        writeln!(lines, "{{\"number\": {number}, \"input\": \"0x{input}\"}}").expect("it is written");
    }
    std::fs::write(folder.path().join("blocks.jsonl"), lines).expect("it is written");
}

/// Returns the number of entries the janitor has removed.
async fn removed(deployment: &Deployment, what: &str) -> u64 {
    let series = format!("push0_room_removed_total{{what=\"{what}\"}}");
    count_of(deployment, "watchdog", &series).await
}

/// Returns the used bytes of a place.
async fn used(deployment: &Deployment, place: Place) -> u64 {
    let levels = deployment.bus().levels(&[place]).await.expect("a level");
    levels[0].1.bytes
}

#[tokio::test]
async fn proofs_of_several_times_the_store_pass_through_it_and_no_block_dies() {
    const BLOCKS: u64 = 40;
    let folder = tempfile::tempdir().expect("a directory");
    write_blocks(&folder, BLOCKS, 8);
    // A fifth is the blob store's: 20 MB, room for ten proofs, and as many places as that. No setting says how large
    // the proofs are.
    let mut builder = small(100 << 20, "timeout = \"10s\"", &folder).service(verifier("v1"));
    for name in ["p1", "p2", "p3"] {
        builder = builder.service(
            prover(name)
                .env("PUSH0_MOCK__TIME", "250ms")
                .env("PUSH0_PROVER__SLOTS", 4)
                .env("PUSH0_MOCK__OUTPUT_BYTES", 2 << 20),
        );
    }
    let deployment = builder.start().await;
    let emissions = deployment
        .wait_emitted(&demo(), BLOCKS as usize, 2 * PATIENCE)
        .await;
    assert_complete_in_order(&emissions, 1..=BLOCKS);
    for kept in &emissions {
        proofs(kept);
    }
    settled(deployment.bus()).await;
    assert!(dead_letters(deployment.bus()).await.is_empty());
    assert!(removed(&deployment, "blobs").await >= 4 * (BLOCKS - 10));
    // The last proofs may have filled the store just before the janitor's next look.
    wait_for("a store with room", PATIENCE, async || {
        let status = deployment.command().arg("status").start();
        let succeeded = status.wait_exit(PATIENCE).await.success();
        (succeeded && status.log().contains("PUSH0_BLOBS"))
            .then_some(())
            .ok_or(status.log())
    })
    .await;
    // The newest proof is still there.
    push0(
        &deployment,
        &["proof", "get", "40", "--pipeline", "demo", "-o", "/dev/null"],
    )
    .await;
}

#[tokio::test]
async fn a_backlog_older_than_what_is_kept_is_proved_and_then_removed() {
    const KEEP: Duration = Duration::from_secs(2);
    let folder = tempfile::tempdir().expect("a directory");
    write_blocks(&folder, 5, 100_000);
    let limits = Limits {
        store_bytes: 1 << 30,
        keep: KEEP,
        ..Limits::default()
    };
    let builder = small(1 << 30, "timeout = \"5s\"", &folder).limits(limits);
    let mut deployment = builder.start().await;
    wait_for("the backlog", PATIENCE, async || {
        let level = deployment.bus().level(Stream::Blocks).await;
        level.is_ok_and(|level| level.messages == 5)
    })
    .await;
    // wait: nothing happens while the backlog gets older than what is kept, and the janitor looks for it
    tokio::time::sleep(2 * KEEP).await;
    deployment.start_service(verifier("v1"));
    deployment.start_service(prover("p1"));
    let emissions = deployment.wait_emitted(&demo(), 5, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=5);
    assert_eq!(attempts(deployment.service("p1"), "completed").await, 5);
    assert_eq!(
        count_of(&deployment, "watchdog", "push0_provers_quarantined").await,
        0
    );
    wait_for("the inputs to go", PATIENCE, async || {
        removed(&deployment, "blobs").await >= 5
    })
    .await;
    assert_eq!(used(&deployment, Place::Blobs).await, 0);
}

#[tokio::test]
async fn checks_without_a_verifier_stop_releases_and_fail_no_attempt() {
    const BLOCKS: u64 = 120;
    let folder = tempfile::tempdir().expect("a directory");
    write_blocks(&folder, BLOCKS, 30_000);
    // 8 % are of CHECKS: room for some 85 checks of 90 KB.
    let mut builder = small(100 << 20, "timeout = \"2s\"", &folder);
    for name in ["p1", "p2"] {
        let prover = prover(name).env("PUSH0_MOCK__TIME", "100ms");
        builder = builder.service(prover.env("PUSH0_MOCK__OUTPUT_BYTES", 60_000));
    }
    let mut deployment = builder.start().await;
    wait_for("releases that stop", PATIENCE, async || {
        let series = "push0_dispatch_waits_for_room{stream=\"PUSH0_CHECKS\"}";
        count_of(&deployment, "dispatcher", series).await == 1
    })
    .await;
    // wait: an attempt that cannot store its output would be reported after its timeout
    tokio::time::sleep(Duration::from_secs(4)).await;
    deployment.start_service(verifier("v1"));
    let emissions = deployment
        .wait_emitted(&demo(), BLOCKS as usize, 2 * PATIENCE)
        .await;
    assert_complete_in_order(&emissions, 1..=BLOCKS);
    settled(deployment.bus()).await;
    let mut completed = 0;
    for name in ["p1", "p2"] {
        completed += attempts(deployment.service(name), "completed").await;
    }
    assert_eq!(completed, BLOCKS, "every block is proved once");
    assert!(dead_letters(deployment.bus()).await.is_empty());
}

#[tokio::test]
async fn records_of_more_than_their_stream_pass_through_it() {
    const BLOCKS: u64 = 320;
    let folder = tempfile::tempdir().expect("a directory");
    write_blocks(&folder, BLOCKS, 8);
    // 15 % are of PROOFS: room for some 210 records with such proofs, fewer than usually stay.
    let builder = small(64 << 20, "timeout = \"10s\"", &folder).service(verifier("v1"));
    let prover = prover("p1")
        .env("PUSH0_PROVER__SLOTS", 4)
        .env("PUSH0_MOCK__OUTPUT_BYTES", 48_000);
    let deployment = builder.service(prover).start().await;
    wait_for("the last record", 2 * PATIENCE, async || {
        let output = deployment.bus().output(&demo()).await;
        output.is_ok_and(|output| output.is_some_and(|(output, _)| output.next() == BLOCKS + 1))
    })
    .await;
    assert!(removed(&deployment, "records").await > 0);
    assert!(dead_letters(deployment.bus()).await.is_empty());
}

#[tokio::test]
async fn dead_letters_of_several_times_their_stream_stop_no_record() {
    const BLOCKS: u64 = 150;
    let folder = tempfile::tempdir().expect("a directory");
    write_blocks(&folder, BLOCKS, 30_000);
    // 3 % are of DEAD: room for some 60 letters of 30 KB.
    let builder = small(64 << 20, "timeout = \"5s\"\nattempts = 1", &folder);
    let prover = prover("p1")
        .env("PUSH0_MOCK__FAILURE_RATE", 1)
        .env("PUSH0_MOCK__FAILURE_CLASS", "fatal")
        .env("PUSH0_PROVER__SLOTS", 4);
    let deployment = builder.service(prover).start().await;
    let emissions = deployment
        .wait_emitted(&demo(), BLOCKS as usize, 2 * PATIENCE)
        .await;
    assert_eq!(emissions.len() as u64, BLOCKS);
    for kept in &emissions {
        assert!(matches!(outcome(kept), EmissionOutcome::Dead { .. }), "{kept:?}");
    }
    settled(deployment.bus()).await;
    let letters = dead_letters(deployment.bus()).await;
    assert!(letters.len() > 30, "{} letters stay", letters.len());
    wait_for("a note of dropped letters", PATIENCE, async || {
        removed(&deployment, "dead-letters").await > 0
    })
    .await;
}

#[tokio::test]
async fn a_long_backlog_delays_neither_another_pipeline_nor_its_own_cancel() {
    const BLOCKS: u64 = 10_000;
    const AT_ONCE: Duration = Duration::from_secs(1);
    let folder = tempfile::tempdir().expect("a directory");
    write_blocks(&folder, BLOCKS, 4);
    let other = single("timeout = \"5s\"")
        .replace("\"demo\"", "\"other\"")
        .replace("\"mock\"", "\"another\"");
    let on_another = |name: &str| prover(name).env("PUSH0_PROVER__ZKVM", "another");
    let slow = prover("slow").env("PUSH0_MOCK__TIME", "1000s");
    let deployment = small(1 << 30, "timeout = \"1000s\"", &folder)
        .pipeline(&other)
        .service(slow)
        .service(on_another("p1"))
        .service(on_another("v1").arg("--verify"))
        .start()
        .await;
    wait_for("the backlog", 4 * PATIENCE, async || {
        let level = deployment.bus().level(Stream::Blocks).await;
        level.is_ok_and(|level| level.messages > BLOCKS - 100)
    })
    .await;
    running(deployment.bus(), "slow").await;

    let other = PipelineId::new("other").expect("a name");
    let began = Instant::now();
    deployment.submit_blocks(&other, 1..=1).await;
    deployment.wait_emitted(&other, 1, PATIENCE).await;
    assert!(began.elapsed() < AT_ONCE, "proved after {:?}", began.elapsed());

    let range = format!("1..{BLOCKS}");
    push0(
        &deployment,
        &["cancel", "--pipeline", "demo", &range, "--note", "a test"],
    )
    .await;
    let began = Instant::now();
    wait_for("the running attempt to stop", PATIENCE, async || {
        attempts(deployment.service("slow"), "stopped").await >= 1
    })
    .await;
    assert!(began.elapsed() < AT_ONCE, "cancelled after {:?}", began.elapsed());
    deployment
        .wait_emitted(&demo(), BLOCKS as usize, 4 * PATIENCE)
        .await;
    settled(deployment.bus()).await;
    assert_eq!(attempts(deployment.service("slow"), "completed").await, 0);
}

/// Returns a check of block 1 that the dispatcher never released.
fn unsealed(zkvm: &ZkvmId, prover: &ProverId, attempt: u32, outputs: Payloads) -> TaskResult {
    let header = TaskHeader {
        attempt,
        kind: StageKind::Split,
        check: true,
        ..synthetic_header(&demo(), 1, zkvm, "prove")
    };
    TaskResult {
        header,
        prover: prover.clone(),
        outcome: Outcome::Completed { outputs },
        inputs: Some(Payloads::one(Payload::empty())),
        prove_us: 1,
        transfer_us: 0,
        waited_us: 0,
        signature: None,
        verdict: None,
    }
}

#[tokio::test]
async fn what_nobody_takes_and_what_no_message_names_goes_and_the_pipeline_runs() {
    let folder = tempfile::tempdir().expect("a directory");
    write_blocks(&folder, 1, 8);
    let mut deployment = small(100 << 20, "timeout = \"10s\"", &folder).start().await;
    let bus = deployment.bus().clone();
    let heard = bus.listen([subject::event(None, "participant-flooding")]).await;
    let mut heard = heard.expect("listening");
    wait_for("the block", PATIENCE, async || {
        bus.level(Stream::Blocks)
            .await
            .is_ok_and(|level| level.messages == 1)
    })
    .await;
    let (zkvm, hostile) = (
        "mock".parse().expect("a name"),
        "hostile".parse().expect("a name"),
    );
    let nosuch = PipelineId::new("nosuch").expect("a name");
    let junk = |byte: u8, len: usize| vec![byte; len];
    // 17 of 20 MB: of no pipeline, under no block, and under the block that waits.
    for (pipeline, number, len) in [
        (&nosuch, 1, 3 << 20),
        (&demo(), 999, 4 << 20),
        (&demo(), 1, 10 << 20),
    ] {
        let blobs = bus.blobs().of_prover(&zkvm, &hostile, pipeline, number);
        blobs.put(&junk(1, len)).await.expect("stored");
    }
    let fill = bus.blobs().of_prover(&zkvm, &hostile, &demo(), 1);
    // Junk that names its blobs keeps none of them.
    let named = fill.name(&junk(1, 10 << 20)).await;
    let lists = [
        Payloads::one(Payload::Blob(named.clone())),
        Payloads::Chunked {
            count: 1,
            chunks: vec![named],
        },
    ];
    for (attempt, outputs) in (1..).zip(lists) {
        let check = unsealed(&zkvm, &hostile, attempt, outputs);
        let subject = subject::check(&hostile, &check.header.key(), None);
        let message = Message::new(subject, &check, &TraceContext::default()).expect("it can be written");
        bus.publish(message).await.expect("stored");
    }
    wait_for("the orphaned messages to go", PATIENCE, async || {
        used(&deployment, Place::Blobs).await < 12 << 20
    })
    .await;
    fill.put(&junk(2, 7 << 20)).await.expect("stored");
    // The stream itself is given no message that the collector could take.
    let subject = subject::result(
        &hostile,
        &AttemptKey {
            zkvm: zkvm.clone(),
            pipeline: PipelineId::new("hostile").expect("a name"),
            block: synthetic_block(&demo(), 1).key(),
            proof_type: "main".parse().expect("a name"),
            stage: "prove".parse().expect("a name"),
            index: 0,
            attempt: 1,
        },
        None,
    );
    let message = Message::new(subject, &"junk", &TraceContext::default()).expect("it can be written");
    bus.publish(message).await.expect("stored");
    // The older blob makes room enough. The younger one stays, since the store is crowded no more.
    wait_for("blobs that no message names to go", PATIENCE, async || {
        used(&deployment, Place::Blobs).await < 8 << 20
    })
    .await;
    let event = heard
        .next()
        .await
        .expect("an event")
        .body::<Event>()
        .expect("readable");
    assert!(
        matches!(&event.what, Happening::ParticipantFlooding { prover, .. } if *prover == hostile),
        "{event:?}"
    );
    deployment.start_service(verifier("v1"));
    deployment.start_service(prover("p1").env("PUSH0_MOCK__OUTPUT_BYTES", 2 << 20));
    let emissions = deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=1);
    proofs(&emissions[0]);
}
