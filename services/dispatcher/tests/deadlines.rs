//! Tests of proofs out of reach of their deadline, given the shortest durations of their stages.

use push0_dispatcher::decide::{Dispatcher, Effect, Ready, SourceId};
use push0_domain::{
    Announcement, BlockHash, BlockRef, Timestamp,
    message::{EndReason, Lease, ProverState, Role, TaskRange},
    output::Output,
    pipeline::Pipeline,
    task::StageKey,
    wanted::Claim,
};
use std::{sync::Arc, time::Duration};

const NOW: Timestamp = Timestamp(1_000_000_000);
const TICK: Duration = Duration::from_millis(1);

/// Two proof types with a deadline of 10 s: `slow` takes at least 1 + 5 s, `quick` 2 s.
fn pipeline(quorum: u32) -> Arc<Pipeline> {
    let stage = |name: &str, fastest: &str| {
        format!(
            "[[proof.stage]]\nname = \"{name}\"\nkind = \"map\"\ntimeout = \"9s\"\nfastest = \"{fastest}\"\n"
        )
    };
    let proof = |name: &str| format!("[[proof]]\ntype = \"{name}\"\nzkvm = \"mock\"\nverify = \"off\"\n");
    let text = format!(
        "name = \"demo\"\npolicy = \"deadline\"\ndeadline = \"10s\"\n[source]\nkind = \"external\"\n\
         [quorum]\nvalid = {quorum}\n{}{}{}{}{}",
        proof("slow"),
        stage("prove", "1s"),
        stage("wrap", "5s"),
        proof("quick"),
        stage("prove", "2s"),
    );
    Arc::new(Pipeline::from_toml("test.toml", &text).expect("valid"))
}

fn block() -> BlockRef {
    let hash = BlockHash([7; 32]);
    BlockRef { number: 7, hash }
}

/// Returns a dispatcher without waiting entries.
fn idle(pipeline: &Pipeline) -> Dispatcher {
    let mut dispatcher = Dispatcher::default();
    dispatcher.recall(&pipeline.name, Output::default());
    dispatcher
}

/// Announces the block in the message with this sequence.
fn announce(dispatcher: &mut Dispatcher, sequence: u64, pipeline: &Arc<Pipeline>) {
    let deadline_at = pipeline.deadline_at(NOW);
    let effects = dispatcher.block(SourceId::Block(sequence), block(), deadline_at, pipeline);
    assert_eq!(effects, []);
}

fn waiting(pipeline: &Arc<Pipeline>) -> Dispatcher {
    let mut dispatcher = idle(pipeline);
    announce(&mut dispatcher, 1, pipeline);
    dispatcher
}

/// A further attempt at the wrap of `slow`, which takes at least 5 s.
fn wrap(pipeline: &Pipeline, is_hedge: bool) -> Ready {
    Ready {
        stage: StageKey {
            pipeline: pipeline.name.clone(),
            block: block(),
            first: None,
            proof_type: "slow".parse().expect("valid"),
            stage: "wrap".parse().expect("valid"),
        },
        zkvm: "mock".parse().expect("valid"),
        tasks: TaskRange {
            first: 0,
            count: 1,
            of: 1,
        },
        attempt: 2,
        claim: Claim::first(Announcement(1)),
        first_announcement: Announcement(1),
        deadline_at: pipeline.deadline_at(NOW),
        is_hedge,
        failed: 0,
        races: None,
    }
}

fn reasons(effects: &[Effect]) -> Vec<EndReason> {
    let reason = |effect: &Effect| match effect {
        Effect::End(ended, None) => Some(ended.reason.clone()),
        _ => None,
    };
    effects.iter().filter_map(reason).collect()
}

fn released(dispatcher: &mut Dispatcher, now: Timestamp) -> Vec<String> {
    let lease = Lease {
        prover: "p-1".parse().expect("valid"),
        zkvm: "mock".parse().expect("valid"),
        role: Role::Prover,
        incarnation: 1,
        origin: None,
        beat: 1,
        slots: 10,
        ahead: 0,
        state: ProverState::Active,
        held: Vec::new(),
    };
    dispatcher.heard(&lease, now);
    std::iter::from_fn(|| dispatcher.release(now))
        .map(|release| release.stage.proof_type.to_string())
        .collect()
}

#[test]
fn a_block_that_needs_all_proofs_ends_with_the_first_that_cannot_be_ready() {
    let pipeline = pipeline(2);
    let mut dispatcher = waiting(&pipeline);
    let last_chance = NOW.plus(Duration::from_secs(4));
    assert_eq!(dispatcher.tick(last_chance.minus(TICK)), []);
    let effects = dispatcher.tick(last_chance);
    assert_eq!(reasons(&effects), [EndReason::OutOfReach]);
    assert_eq!(effects.last(), Some(&Effect::Done(SourceId::Block(1))));
    assert_eq!(released(&mut dispatcher, last_chance), [""; 0]);
}

#[test]
fn a_proof_that_the_quorum_can_do_without_only_stands_aside() {
    let pipeline = pipeline(1);
    let mut dispatcher = waiting(&pipeline);
    let now = NOW.plus(Duration::from_secs(4));
    assert_eq!(dispatcher.tick(now), []);
    assert_eq!(released(&mut dispatcher, now), ["quick"]);
    // The entry set aside stays durable, and ends with its block.
    let deadline = NOW.plus(Duration::from_secs(10));
    assert_eq!(dispatcher.tick(deadline.minus(TICK)), []);
    assert_eq!(reasons(&dispatcher.tick(deadline)), [EndReason::DeadlinePassed]);
}

#[test]
fn a_block_ends_when_none_of_its_proofs_can_be_ready() {
    let pipeline = pipeline(1);
    let mut dispatcher = waiting(&pipeline);
    assert_eq!(dispatcher.tick(NOW.plus(Duration::from_secs(4))), []);
    let now = NOW.plus(Duration::from_secs(8));
    assert_eq!(reasons(&dispatcher.tick(now)), [EndReason::OutOfReach]);
}

#[test]
fn from_a_second_copy_that_comes_too_late_nothing_follows() {
    let pipeline = pipeline(2);
    for is_hedge in [true, false] {
        let mut dispatcher = idle(&pipeline);
        dispatcher.stage(
            SourceId::Stage(1),
            wrap(&pipeline, is_hedge),
            0,
            &pipeline,
            Timestamp::default(),
        );
        let now = NOW.plus(Duration::from_secs(5));
        let expected: &[EndReason] = if is_hedge { &[] } else { &[EndReason::OutOfReach] };
        assert_eq!(reasons(&dispatcher.tick(now)), expected);
        assert_eq!(released(&mut dispatcher, now), [""; 0], "it is of no use");
    }
}

/// After a restart, a dispatcher gets back blocks released only in part. Their entries do not count as lost
/// proofs, since the tasks may be running.
#[test]
fn what_may_have_been_released_before_a_restart_ends_no_block() {
    let pipeline = pipeline(2);
    let mut dispatcher = idle(&pipeline);
    dispatcher.replays(true);
    announce(&mut dispatcher, 1, &pipeline);
    let deadline = NOW.plus(Duration::from_secs(10));
    assert_eq!(dispatcher.tick(deadline.minus(TICK)), []);
    assert_eq!(reasons(&dispatcher.tick(deadline)), [EndReason::DeadlinePassed]);
}

/// A block announced twice waits again while its tasks are out.
#[test]
fn what_is_out_ends_no_block_although_it_waits_once_more() {
    let pipeline = pipeline(2);
    let mut dispatcher = waiting(&pipeline);
    assert_eq!(released(&mut dispatcher, NOW), ["quick", "slow"]);
    announce(&mut dispatcher, 2, &pipeline);
    let now = NOW.plus(Duration::from_secs(9));
    assert_eq!(dispatcher.tick(now), []);
}

/// A retry of a stage waits, while the attempt believed dead has led to the next stage.
#[test]
fn a_stage_of_which_a_later_one_is_known_ends_no_block() {
    let pipeline = pipeline(2);
    let mut dispatcher = idle(&pipeline);
    let retry = Ready {
        stage: StageKey {
            stage: "prove".parse().expect("valid"),
            ..wrap(&pipeline, false).stage
        },
        ..wrap(&pipeline, false)
    };
    dispatcher.stage(SourceId::Stage(1), retry, 0, &pipeline, Timestamp::default());
    dispatcher.stage(
        SourceId::Stage(2),
        wrap(&pipeline, false),
        0,
        &pipeline,
        Timestamp::default(),
    );
    // The retry would need 6 s, the later stage 5.
    assert_eq!(dispatcher.tick(NOW.plus(Duration::from_millis(4500))), []);
    let effects = dispatcher.tick(NOW.plus(Duration::from_secs(5)));
    assert_eq!(reasons(&effects), [EndReason::OutOfReach]);
}
