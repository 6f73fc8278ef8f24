//! Held queues and pauses of the dispatcher.

use push0_bus::{Place, Room};
use push0_dispatcher::decide::{Dispatcher, Effect, Outcome, Ready, Release, SourceId, Turn};
use push0_domain::{
    Announcement, BlockHash, BlockRef, ProverId, Timestamp, ZkvmId,
    message::{HeldQueue, Lease, Opened, ProverState, Role, TaskRange},
    output::Output,
    pipeline::Pipeline,
    subject::AttemptKey,
    task::StageKey,
    wanted::Claim,
};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

fn error() -> Outcome {
    Outcome::Failed("the node does not answer".into())
}

fn pipeline() -> Arc<Pipeline> {
    let text = "name = \"demo\"\n[source]\nkind = \"external\"\n[[proof]]\ntype = \"main\"\nzkvm = \"mock\"\n\
                verify = \"off\"\n[[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"10s\"\n\
                retry = { first = \"1s\", longest = \"4s\" }\n";
    Arc::new(Pipeline::from_toml("test.toml", text).expect("valid"))
}

fn ready(pipeline: &Pipeline, number: u64, attempt: u32, failed: u32) -> Ready {
    let block = BlockRef {
        number,
        hash: BlockHash([number as u8; 32]),
    };
    Ready {
        stage: StageKey {
            pipeline: pipeline.name.clone(),
            block,
            first: None,
            proof_type: "main".parse().expect("valid"),
            stage: "prove".parse().expect("valid"),
        },
        zkvm: "mock".parse().expect("valid"),
        tasks: TaskRange {
            first: 0,
            count: 1,
            of: 1,
        },
        attempt,
        claim: Claim::first(Announcement(number)),
        first_announcement: Announcement(number),
        deadline_at: None,
        is_hedge: false,
        failed,
        races: None,
    }
}

/// A dispatcher with a prover of many slots, and the time.
struct Rig {
    core: Dispatcher,
    pipeline: Arc<Pipeline>,
    now: Timestamp,
    sequence: u64,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self {
            core: Dispatcher::default(),
            pipeline: pipeline(),
            now: Timestamp(1_000_000_000),
            sequence: 0,
        };
        rig.beat();
        rig
    }

    fn beat(&mut self) {
        let lease = Lease {
            prover: ProverId::new("p-1").expect("valid"),
            zkvm: ZkvmId::new("mock").expect("valid"),
            role: Role::Prover,
            incarnation: 1,
            origin: None,
            beat: 1,
            slots: 8,
            ahead: 0,
            state: ProverState::Active,
            held: Vec::new(),
        };
        self.core.heard(&lease, self.now);
    }

    fn add(&mut self, number: u64, attempt: u32, failed: u32) {
        self.sequence += 1;
        let source = SourceId::Stage(self.sequence);
        let ready = ready(&self.pipeline, number, attempt, failed);
        let effects = self.core.stage(source, ready, 0, &self.pipeline, self.now);
        assert!(effects.is_empty(), "block {number} waits: {effects:?}");
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        self.beat();
    }

    fn release(&mut self) -> Option<Release> {
        self.core.release(self.now)
    }

    fn ends(&mut self, key: &AttemptKey, outcome: Outcome) -> Vec<Effect> {
        self.core.came(key, outcome, self.now)
    }

    /// Fails a first attempt at each of these blocks.
    fn fail(&mut self, numbers: std::ops::Range<u64>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for number in numbers {
            self.add(number, 1, 0);
            let released = self.release().expect("released");
            effects.extend(self.ends(&released.key, error()));
        }
        effects
    }
}

fn is_held(effects: &[Effect]) -> bool {
    matches!(effects, [Effect::Hold(_, Turn::Held(held))] if held.error.contains("node"))
}

fn is_opened(effects: &[Effect]) -> bool {
    matches!(effects, [Effect::Hold(_, Turn::Opened(..))])
}

#[test]
fn a_paused_attempt_holds_no_slot_and_is_overtaken() {
    let mut rig = Rig::new();
    rig.add(1, 2, 1);
    assert_eq!(rig.release(), None);
    rig.add(2, 1, 0);
    assert_eq!(rig.release().expect("released").stage.block.number, 2);
    rig.pass(Duration::from_millis(740));
    assert_eq!(rig.release(), None);
    rig.pass(Duration::from_millis(520));
    assert_eq!(rig.release().expect("released").stage.block.number, 1);
}

#[test]
fn pauses_grow_to_the_longest() {
    let retry = pipeline().proofs[0].stages[0].retry;
    assert_eq!(retry.pause(0, 7), Duration::ZERO);
    for seed in 0..100_u64 {
        for (failed, full) in [(1, 1000), (2, 2000), (3, 4000), (4, 4000), (90, 4000)] {
            let pause = retry.pause(failed, seed).as_millis();
            let allowed = full * 3 / 4..=(full * 5 / 4).min(4000);
            assert!(allowed.contains(&pause), "{pause} ms after {failed} failures");
        }
    }
}

#[test]
fn failures_of_several_tasks_hold_the_queue_and_one_probe_goes_at_a_time() {
    let mut rig = Rig::new();
    assert!(is_held(&rig.fail(1..4)));
    for number in 4..10 {
        rig.add(number, 1, 0);
    }
    assert_eq!(rig.release(), None, "the first probe waits");
    let mut distances = Vec::new();
    for _ in 0..5 {
        let held_at = rig.now;
        let probe = loop {
            rig.pass(Duration::from_millis(10));
            if let Some(probe) = rig.release() {
                break probe;
            }
        };
        distances.push(rig.now.since(held_at));
        assert_eq!(rig.release(), None, "one probe at a time");
        assert!(rig.ends(&probe.key, error()).is_empty());
    }
    assert!(distances.last() > distances.first(), "{distances:?}");
    assert_eq!(rig.core.held().count(), 1);
}

#[test]
fn the_first_success_opens_the_queue_and_ends_all_pauses() {
    let mut rig = Rig::new();
    assert!(is_held(&rig.fail(1..4)));
    for number in 1..4 {
        rig.add(number, 2, 3);
    }
    rig.add(4, 1, 0);
    rig.pass(Duration::from_secs(1));
    let probe = rig.release().expect("a probe");
    assert_eq!(
        probe.stage.block.number, 4,
        "a task not tried yet is the better probe"
    );
    assert!(is_opened(&rig.ends(&probe.key, Outcome::Completed)));
    let released: Vec<u64> = std::iter::from_fn(|| rig.release())
        .map(|r| r.stage.block.number)
        .collect();
    assert_eq!(released, [1, 2, 3]);
}

#[test]
fn a_probe_that_outlives_every_failure_opens_the_queue() {
    let mut rig = Rig::new();
    assert!(is_held(&rig.fail(1..4)));
    rig.add(4, 1, 0);
    rig.pass(Duration::from_secs(1));
    rig.release().expect("a probe");
    rig.pass(Duration::from_secs(4));
    assert!(rig.core.tick(rig.now).is_empty());
    rig.pass(Duration::from_secs(1));
    assert!(is_opened(&rig.core.tick(rig.now)));
}

#[test]
fn one_poisonous_task_is_shown_and_holds_back_no_other() {
    let mut rig = Rig::new();
    let mut effects = Vec::new();
    for attempt in 1..9 {
        rig.add(1, attempt, 0);
        let released = rig.release().expect("released");
        effects.extend(rig.ends(&released.key, error()));
    }
    assert!(is_held(&effects), "{effects:?}");
    rig.add(2, 1, 0);
    let other = rig.release().expect("released");
    assert!(is_opened(&rig.ends(&other.key, Outcome::Completed)));
}

/// Fails the task of block 1 until its queue is shown as held for it.
fn hold_for_one(rig: &mut Rig) -> HeldQueue {
    for attempt in 1..=5 {
        rig.add(1, attempt, 0);
        let released = rig.release().expect("released");
        if let [Effect::Hold(_, Turn::Held(held))] = &rig.ends(&released.key, error())[..] {
            return held.clone();
        }
    }
    unreachable!("five failures hold the queue");
}

#[test]
fn a_queue_held_for_one_task_is_held_for_all_once_another_fails() {
    let mut rig = Rig::new();
    let task = hold_for_one(&mut rig).task.expect("one task");
    assert_eq!((task.block.number, task.attempt), (1, 5));
    rig.add(1, 6, 0);
    let again = rig.release().expect("released");
    assert!(rig.ends(&again.key, error()).is_empty(), "nothing changed");
    let turned = rig.fail(2..3);
    assert!(
        matches!(&turned[..], [Effect::Hold(_, Turn::Held(held))] if held.task.is_none()),
        "{turned:?}"
    );
    rig.add(3, 1, 0);
    assert_eq!(rig.release(), None, "the first probe waits");
}

#[test]
fn a_recalled_hold_of_one_task_holds_back_no_other() {
    let held = hold_for_one(&mut Rig::new());
    let mut rig = Rig::new();
    let mock = ZkvmId::new("mock").expect("valid");
    rig.core.recall_hold(mock, held, rig.now);
    rig.add(1, 6, 0);
    let again = rig.release().expect("released");
    assert!(rig.ends(&again.key, error()).is_empty(), "it is the same task");
    rig.add(2, 1, 0);
    rig.release().expect("released");
    assert!(is_held(&rig.fail(3..4)));
}

#[test]
fn a_held_queue_without_work_opens_after_a_minute() {
    let mut rig = Rig::new();
    assert!(is_held(&rig.fail(1..4)));
    rig.add(4, 1, 0);
    rig.pass(Duration::from_secs(1));
    let probe = rig.release().expect("a probe");
    rig.ends(&probe.key, error());
    let opens = |rig: &mut Rig, seconds| {
        rig.pass(Duration::from_secs(seconds));
        rig.core.tick(rig.now)
    };
    assert!(opens(&mut rig, 1).is_empty());
    rig.add(5, 1, 0);
    rig.add(6, 2, 1);
    assert!(opens(&mut rig, 70).is_empty(), "two stages wait");
    for _ in 0..2 {
        rig.pass(Duration::from_secs(20));
        let probe = rig.release().expect("a probe");
        rig.ends(&probe.key, Outcome::Unknown);
    }
    assert!(opens(&mut rig, 1).is_empty());
    assert!(opens(&mut rig, 59).is_empty());
    let effects = opens(&mut rig, 1);
    assert!(
        matches!(&effects[..], [Effect::Hold(_, Turn::Opened(_, Opened::NoWork))]),
        "{effects:?}"
    );
    assert_eq!(rig.core.held().count(), 0);
}

#[test]
fn deaths_and_stopped_attempts_hold_nothing() {
    let mut rig = Rig::new();
    for number in 1..9 {
        rig.add(number, 1, 0);
        let released = rig.release().expect("released");
        assert!(rig.ends(&released.key, Outcome::Unknown).is_empty());
    }
    assert_eq!(rig.core.held().count(), 0);
}

/// Without it a held queue and a full store would wait for each other for ever: the store empties only when the next
/// block is emitted.
#[test]
fn where_room_is_scarce_the_next_block_is_the_probe_although_it_failed() {
    let mut rig = Rig::new();
    let output = Output::new(1, BTreeMap::new());
    rig.core.recall(&rig.pipeline.name, output);
    assert!(is_held(&rig.fail(1..4)));
    rig.add(1, 2, 1);
    rig.add(4, 1, 0);
    rig.core.has_room_for_results(Room::Scarce(Place::Blobs));
    rig.pass(Duration::from_secs(20));
    let probe = rig.release().expect("a probe");
    assert_eq!(probe.stage.block.number, 1);
    assert!(is_opened(&rig.ends(&probe.key, Outcome::Completed)));
}

#[test]
fn a_probe_whose_end_was_missed_makes_way_for_the_next() {
    let mut rig = Rig::new();
    assert!(is_held(&rig.fail(1..4)));
    rig.add(4, 1, 0);
    rig.add(5, 1, 0);
    rig.pass(Duration::from_secs(1));
    rig.release().expect("a probe");
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.release(), None, "one probe at a time");
    let zkvm = ZkvmId::new("mock").expect("valid");
    rig.core.reconcile(&zkvm, &HashSet::new(), rig.now);
    assert_eq!(rig.release().expect("a probe").stage.block.number, 5);
}

#[test]
fn false_proofs_hold_the_queue_and_only_a_verified_one_opens_it() {
    let mut rig = Rig::new();
    let mut effects = Vec::new();
    for number in 1..4 {
        rig.add(number, 1, 0);
        let released = rig.release().expect("released");
        effects.extend(rig.ends(&released.key, Outcome::Unverified));
        effects.extend(rig.ends(&released.key, error()));
    }
    assert!(is_held(&effects), "{effects:?}");
    rig.add(4, 1, 0);
    rig.add(5, 1, 0);
    rig.pass(Duration::from_secs(1));
    let probe = rig.release().expect("a probe");
    assert!(rig.ends(&probe.key, Outcome::Unverified).is_empty());
    let zkvm = ZkvmId::new("mock").expect("valid");
    rig.core.reconcile(&zkvm, &HashSet::new(), rig.now);
    assert_eq!(rig.release(), None, "the verdict is awaited");
    assert!(is_opened(&rig.ends(&probe.key, Outcome::Completed)));
}

/// An attempt waits from its release until its prover begins.
#[test]
fn the_wait_for_a_prover_is_the_time_since_the_release_without_the_work() {
    let mut rig = Rig::new();
    rig.add(1, 1, 0);
    let mock = ZkvmId::new("mock").expect("valid");
    let waiting: Vec<_> = rig.core.waiting_sources().collect();
    assert_eq!(waiting, [(&mock, SourceId::Stage(1))]);
    let released_at = rig.now;
    let released = rig.release().expect("released");
    assert_eq!(rig.core.waiting_sources().count(), 0);
    assert_eq!(
        rig.core.untaken().collect::<Vec<_>>(),
        [(&mock, Some(released_at))]
    );
    rig.pass(Duration::from_secs(5));
    let worked = Duration::from_secs(3);
    let waited = rig.core.waited(&released.key, worked, rig.now);
    assert_eq!(waited, Some(Duration::from_secs(2)));
    rig.ends(&released.key, Outcome::Completed);
    assert_eq!(
        rig.core.waited(&released.key, worked, rig.now),
        None,
        "it has ended"
    );
    rig.core
        .adopt(&mock, HashSet::from([released.key.clone()]), rig.now);
    assert_eq!(
        rig.core.waited(&released.key, worked, rig.now),
        None,
        "another dispatcher released it"
    );
}
