//! The task of an attempt, as it follows from its source message.
#![expect(clippy::expect_used, reason = "a failing test panics, in its helpers as well")]

use push0_dispatcher::{
    decide::{Release, SourceId},
    task::Body,
};
use push0_domain::{
    BlockHash, BlockRef, CriticalPath, Payload, Payloads, SealKeys, StageKey, Timestamp,
    message::{BlockContext, BlockFacts, ObservedBlock, StageReady, TaskHeader, TaskRange},
    pipeline::Pipeline,
    seal_keys::SealKey,
    subject::AttemptKey,
    wanted::Announcement,
};

const PIPELINE: &str = "name = \"demo\"\nsource = { kind = \"external\" }\n[[proof]]\ntype = \"main\"\nzkvm = \"mock\"\n\
                        [[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"1s\"\n";

fn stage() -> StageKey {
    StageKey {
        pipeline: "demo".parse().expect("a name"),
        block: BlockRef {
            number: 7,
            hash: BlockHash([7; 32]),
        },
        first: None,
        proof_type: "main".parse().expect("a name"),
        stage: "prove".parse().expect("a name"),
    }
}

/// Returns the header of the only task of a message that was released after so long.
fn header(body: &Body, attempt: u32, held_us: u64) -> TaskHeader {
    let pipeline = Pipeline::from_toml("test.toml", PIPELINE).expect("a good pipeline");
    let keys = SealKeys::new(SealKey::new([1; 32]));
    let zkvm = "mock".parse().expect("a name");
    let release = Release {
        source: SourceId::Block(1),
        key: AttemptKey::of(&zkvm, &stage().task(0).attempt(attempt)),
        stage: stage(),
        index: 0,
    };
    let task = body.task(&release, held_us, &pipeline, &keys).expect("a stage");
    let header = task.expect("it is sealed").header;
    assert!(keys.verify(&header));
    header
}

#[test]
fn the_path_of_a_blocks_first_task_begins_when_the_block_was_stored() {
    let block = ObservedBlock {
        pipeline: stage().pipeline,
        revision: 1,
        block: stage().block,
        parent_hash: BlockHash([6; 32]),
        input: Payload::empty(),
        observed_at: Timestamp(5),
        deadline_at: None,
        facts: BlockFacts::default(),
    };
    let body = Body::Block(block, Timestamp(100));
    let path = CriticalPath::behind(Vec::new(), Timestamp(100));
    assert_eq!(header(&body, 1, 0).path, path);
    assert_eq!(header(&body, 1, 300).path, path.clone().held(300));
}

#[test]
fn the_path_of_a_ready_stage_goes_on_with_its_wait() {
    let path = CriticalPath::behind(Vec::new(), Timestamp(100)).failed_at(Timestamp(250));
    let ready = StageReady {
        stage: stage(),
        context: BlockContext {
            revision: 1,
            parent_hash: BlockHash([6; 32]),
            announcement: Announcement(1),
            stored_at: Timestamp(100),
            first_announcement: None,
            deadline_at: None,
            amends: false,
            facts: BlockFacts::default(),
        },
        zkvm: "mock".parse().expect("a name"),
        tasks: TaskRange {
            first: 0,
            count: 1,
            of: 1,
        },
        attempt: 2,
        hedge_of: None,
        failed: 1,
        avoid: Vec::new(),
        inputs: Payloads::one(Payload::empty()),
        path: path.clone(),
    };
    assert_eq!(header(&Body::Stage(ready), 2, 40).path, path.clone().held(40));
}
