//! The dispatcher's decisions against a model with an exhaustive search.

use proptest::{collection::vec, prelude::*};
use push0_dispatcher::decide::{Dispatcher, Effect, Ready, Release, SourceId};
use push0_domain::{
    Announcement, BlockHash, BlockRef, PipelineId, ProverId, Timestamp, ZkvmId,
    message::{
        BlockContext, BlockFacts, Cancel, EndReason, Held, Lease, ProverState, Role, StageKind, TaskHeader,
        TaskRange,
    },
    output::Output,
    pipeline::{Pipeline, Policy},
    subject::AttemptKey,
    task::StageKey,
    trace::TraceContext,
    wanted::Claim,
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

const STAGES: [&str; 3] = ["split", "segment", "join"];
const SILENT_MS: u64 = 750;
const DEADLINE_MS: u64 = 2000;

fn pipeline(name: &str, weight: u32, policy: Policy) -> Arc<Pipeline> {
    let stages = STAGES.map(|stage| {
        let kind = if stage == "segment" { "map" } else { stage };
        format!("[[proof.stage]]\nname = \"{stage}\"\nkind = \"{kind}\"\ntimeout = \"10s\"\n")
    });
    let text = format!(
        "name = \"{name}\"\nweight = {weight}\n[source]\nkind = \"external\"\n[[proof]]\ntype = \"main\"\nzkvm = \"mock\"\nverify = \"off\"\n{}",
        stages.concat()
    );
    let parsed = Pipeline::from_toml("test.toml", &text).expect("valid");
    Arc::new(Pipeline { policy, ..parsed })
}

fn block(number: u64) -> BlockRef {
    let hash = BlockHash([number as u8; 32]);
    BlockRef { number, hash }
}

/// The announcement of a block, and its time.
type Announced = (Announcement, Timestamp);

fn ready(pipeline: &Pipeline, number: u64, stage: &str, tasks: u32, attempt: u32, at: Announced) -> Ready {
    Ready {
        stage: StageKey {
            pipeline: pipeline.name.clone(),
            block: block(number),
            first: None,
            proof_type: "main".parse().expect("valid"),
            stage: stage.parse().expect("valid"),
        },
        zkvm: "mock".parse().expect("valid"),
        tasks: TaskRange {
            first: 0,
            count: tasks,
            of: tasks,
        },
        attempt,
        claim: Claim::first(at.0),
        first_announcement: at.0,
        deadline_at: pipeline.deadline_at(at.1),
        is_hedge: false,
        failed: 0,
        races: None,
    }
}

fn heartbeat(prover: u8, slots: u32) -> Lease {
    Lease {
        prover: ProverId::new(&format!("p-{prover}")).expect("valid"),
        zkvm: ZkvmId::new("mock").expect("valid"),
        role: Role::Prover,
        incarnation: 1,
        origin: None,
        beat: 1,
        slots,
        ahead: 0,
        state: ProverState::Active,
        held: Vec::new(),
    }
}

fn held(out: &Release, ends_soon: bool) -> Held {
    let context = BlockContext {
        revision: 1,
        parent_hash: BlockHash([0; 32]),
        announcement: Announcement(1),
        stored_at: Timestamp(1),
        first_announcement: None,
        deadline_at: None,
        amends: false,
        facts: BlockFacts::default(),
    };
    Held {
        header: TaskHeader {
            id: out.stage.task(out.index),
            attempt: out.key.attempt,
            hedge_of: None,
            zkvm: out.key.zkvm.clone(),
            context,
            kind: StageKind::Map,
            of: 1,
            timeout_ms: 1000,
            hedge_after_ms: None,
            attempts_max: 3,
            give_up_at: None,
            check: false,
            program_id: None,
            path: push0_domain::CriticalPath::default(),
            seal: push0_domain::seal::Seal::default(),
        },
        sequence: 1,
        running_ms: Some(1),
        ends_soon,
        progress_permille: None,
        trace: TraceContext::default(),
    }
}

#[derive(Clone, Debug)]
enum Op {
    Block(u64),
    Stage {
        number: u64,
        stage: usize,
        tasks: u32,
        attempt: u32,
    },
    /// A prover, its slots, and a bit for each outstanding attempt: set if the heartbeat says it ends soon.
    Beat(u8, u32, u8),
    Release,
    /// Index into the outstanding attempts.
    End(usize),
    Cancel(u64, u64),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..6_u64).prop_map(Op::Block),
        4 => (0..6_u64, 0..3_usize, 1..4_u32, 1..3_u32)
            .prop_map(|(number, stage, tasks, attempt)| Op::Stage { number, stage, tasks, attempt }),
        3 => (0..3_u8, 0..4_u32, any::<u8>()).prop_map(|(prover, slots, soon)| Op::Beat(prover, slots, soon)),
        8 => Just(Op::Release),
        4 => any::<usize>().prop_map(Op::End),
        1 => (0..6_u64, 0..3_u64).prop_map(|(first, more)| Op::Cancel(first, first + more)),
        1 => (1..400_u64).prop_map(Op::Wait),
    ]
}

/// A waiting stage, ordered by deadline, number, stages left, attempt and age.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    rank: (u64, u64, usize, Reverse<u32>, u64),
    tasks: u32,
    next: u32,
    announcement: Announcement,
    is_block: bool,
}

#[derive(Default)]
struct Model {
    waiting: BTreeSet<Waiting>,
    cancelled: Vec<(u64, u64, Announcement)>,
    heard: BTreeMap<u8, (u32, Timestamp)>,
    out: Vec<Release>,
    /// The prover that was the last to list an outstanding attempt.
    holders: Vec<(AttemptKey, u8)>,
    /// The announcement for which an attempt was released last.
    claims: Vec<(AttemptKey, Announcement)>,
    /// Outstanding attempts about to end: each adds a place.
    ending: Vec<AttemptKey>,
    age: u64,
}

impl Model {
    fn add(&mut self, policy: &Policy, ready: &Ready, stage: usize, is_block: bool) {
        let (number, announcement) = (ready.stage.block.number, ready.claim.announcement);
        let unwanted = |(first, last, before): &(u64, u64, Announcement)| {
            (*first..=*last).contains(&number) && announcement < *before
        };
        let same = |w: &Waiting| {
            // The entry of an older announcement does not stand in for a newer one.
            let stays = w.is_block || w.announcement >= announcement;
            let asked = (w.rank.1, w.rank.2, w.rank.3, w.tasks);
            stays && asked == (number, 2 - stage, Reverse(ready.attempt), ready.tasks.count)
        };
        // A further attempt that is out already does not wait for a second place.
        let key = AttemptKey::of(&ready.zkvm, &ready.stage.task(0).attempt(ready.attempt));
        let is_one = ready.attempt > 1 && ready.tasks.count == 1;
        let mut out = self.claims.iter();
        let is_out = is_one && out.any(|(out, by)| *out == key && *by == announcement);
        if self.cancelled.iter().any(unwanted) || self.waiting.iter().any(same) || is_out {
            return;
        }
        let deadline = match policy {
            Policy::OldestFirst => 0,
            Policy::Deadline { .. } => ready.deadline_at.expect("valid").0,
        };
        self.age += 1;
        self.waiting.insert(Waiting {
            rank: (deadline, number, 2 - stage, Reverse(ready.attempt), self.age),
            tasks: ready.tasks.count,
            next: 0,
            announcement,
            is_block,
        });
    }

    /// Returns number, stage, attempt and index of the task to release next, and its announcement.
    fn release(&mut self) -> Option<(u64, &'static str, u32, u32, Announcement)> {
        let places: u32 = self.heard.values().map(|(slots, _)| slots).sum();
        // An attempt with a silent prover takes no place of the others.
        let is_away = |key: &AttemptKey| {
            let mut holders = self.holders.iter();
            holders.any(|(held, by)| held == key && !self.heard.contains_key(by))
        };
        let here = self.out.iter().filter(|out| !is_away(&out.key)).count();
        let ending = self.ending.iter().filter(|key| !is_away(key)).count();
        if here >= places as usize + ending {
            return None;
        }
        let mut first = self.waiting.pop_first()?;
        let (_, number, left, Reverse(attempt), _) = first.rank;
        let (index, announcement) = (first.next, first.announcement);
        first.next += 1;
        if first.next < first.tasks {
            self.waiting.insert(first);
        }
        Some((number, STAGES[2 - left], attempt, index, announcement))
    }

    fn wait(&mut self, policy: &Policy, now: Timestamp) {
        self.heard
            .retain(|_, (_, at)| now.since(*at) < Duration::from_millis(SILENT_MS));
        if let Policy::Deadline { .. } = policy {
            let late: BTreeSet<u64> = self
                .waiting
                .iter()
                .filter(|w| w.rank.0 <= now.0)
                .map(|w| w.rank.1)
                .collect();
            self.waiting.retain(|w| !late.contains(&w.rank.1));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// P4 and P8: after any sequence of arrivals, ends, cancellations and silences, the next release is the
    /// most urgent of all work still wanted, and goes only to a free place.
    #[test]
    fn what_is_released_is_the_most_urgent_that_is_ready(
        by_deadline in any::<bool>(),
        ops in vec(op(), 1..120),
    ) {
        let within = Duration::from_millis(DEADLINE_MS);
        let policy = if by_deadline { Policy::Deadline { within } } else { Policy::OldestFirst };
        let pipeline = pipeline("demo", 1, policy.clone());
        let mut real = Dispatcher::default();
        real.recall(&pipeline.name, Output::default());
        let mut model = Model::default();
        let mut announced = [(Announcement(0), Timestamp(1)); 6];
        let mut now = Timestamp(1_000_000);
        for (at, op) in ops.into_iter().enumerate() {
            now = Timestamp(now.0 + 1);
            let sequence = at as u64 + 1;
            match op {
                Op::Block(number) => {
                    announced[number as usize] = (Announcement(sequence), now);
                    let ready = ready(&pipeline, number, "split", 1, 1, announced[number as usize]);
                    real.block(SourceId::Block(sequence), block(number), ready.deadline_at, &pipeline);
                    model.add(&policy, &ready, 0, true);
                }
                Op::Stage { number, stage, tasks, attempt } => {
                    let ready = ready(&pipeline, number, STAGES[stage], tasks, attempt, announced[number as usize]);
                    model.add(&policy, &ready, stage, false);
                    real.stage(SourceId::Stage(sequence), ready, 0, &pipeline, Timestamp::default());
                }
                Op::Beat(prover, slots, soon) => {
                    let mut lease = heartbeat(prover, slots);
                    let ends_soon = |place: usize| soon >> (place % 8) & 1 == 1;
                    lease.held = model.out.iter().enumerate().map(|(place, out)| held(out, ends_soon(place))).collect();
                    real.heard(&lease, now);
                    model.heard.insert(prover, (slots, now));
                    let ending = model.out.iter().enumerate().filter(|(place, _)| ends_soon(*place));
                    model.ending = ending.map(|(_, out)| out.key.clone()).collect();
                    model.holders = model.out.iter().map(|out| (out.key.clone(), prover)).collect();
                }
                Op::Release => {
                    let released = real.release(now);
                    let named = released.as_ref().map(|r| (r.stage.block.number, r.stage.stage.to_string(), r.key.attempt, r.index));
                    let expected = model.release();
                    let claim = expected.map(|(.., announcement)| announcement);
                    let expected = expected.map(|(number, stage, attempt, index, _)| (number, stage.to_owned(), attempt, index));
                    prop_assert_eq!(named, expected);
                    if let Some((released, claim)) = released.zip(claim) {
                        model.claims.retain(|(key, _)| *key != released.key);
                        model.claims.push((released.key.clone(), claim));
                        real.stored(released.source, released.index);
                        // The same attempt may be out already, and then takes no second place.
                        if model.out.iter().all(|out| out.key != released.key) {
                            model.out.push(released);
                        }
                    }
                }
                Op::End(which) if !model.out.is_empty() => {
                    let ended = model.out.swap_remove(which % model.out.len());
                    real.ended(&ended.key);
                    model.ending.retain(|key| *key != ended.key);
                    model.holders.retain(|(key, _)| *key != ended.key);
                    model.claims.retain(|(key, _)| *key != ended.key);
                }
                Op::End(_) => {}
                Op::Cancel(first, last) => {
                    let cancel = Cancel {
                        pipeline: pipeline.name.clone(),
                        first,
                        last,
                        hashes: Vec::new(),
                        reason: EndReason::Cancelled { note: String::new() },
                    };
                    let held: Vec<_> = model.out.iter().map(|out| out.key.clone()).collect();
                    let effects = real.cancel(SourceId::Block(sequence), &cancel, &held, false);
                    let purged = effects.iter().filter(|effect| matches!(effect, Effect::Purge(..))).count();
                    let concerned = model.out.iter().filter(|out| (first..=last).contains(&out.stage.block.number)).count();
                    prop_assert_eq!(purged, concerned);
                    model.waiting.retain(|w| !(first..=last).contains(&w.rank.1));
                    model.cancelled.push((first, last, Announcement(sequence)));
                }
                Op::Wait(ms) => {
                    now = now.plus(Duration::from_millis(ms));
                    real.tick(now);
                    model.wait(&policy, now);
                }
            }
        }
    }

    /// Pipelines share a zkVM by weight, at every moment: each is at most one task away from its share, so
    /// none starves, and an idle pipeline gets no credit afterwards.
    #[test]
    fn pipelines_share_a_zkvm_by_weight(weights in vec(1..9_u32, 2..5), idle in 0..200_usize, tasks in 50..400_usize) {
        let mut real = Dispatcher::default();
        let now = Timestamp(1);
        let pipelines: Vec<_> = weights.iter().enumerate()
            .map(|(at, weight)| pipeline(&format!("lane-{at}"), *weight, Policy::OldestFirst))
            .collect();
        let come = |real: &mut Dispatcher, at: usize| {
            let ready = ready(&pipelines[at], 1, "segment", 1_000_000, 1, (Announcement(1), now));
            real.stage(SourceId::Stage(at as u64), ready, 0, &pipelines[at], Timestamp::default());
        };
        real.heard(&heartbeat(0, 1), now);
        let take = |real: &mut Dispatcher| {
            let released = real.release(now).expect("valid");
            real.ended(&released.key);
            released.stage.pipeline
        };
        for at in 1..weights.len() {
            come(&mut real, at);
        }
        for _ in 0..idle {
            take(&mut real);
        }
        come(&mut real, 0);
        let mut taken: BTreeMap<PipelineId, f64> = BTreeMap::new();
        for _ in 0..tasks {
            *taken.entry(take(&mut real)).or_default() += 1.0;
        }
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        for (pipeline, weight) in pipelines.iter().zip(&weights) {
            let share = tasks as f64 * f64::from(*weight) / total;
            let got = taken.get(&pipeline.name).copied().unwrap_or_default();
            // One task for each rival, since all of them may have been at the head of their turn.
            prop_assert!((got - share).abs() <= weights.len() as f64, "{} got {got} of {share}", pipeline.name);
        }
    }

    /// P1: a dispatcher that starts over releases every task of a stage whose release was not stored, and
    /// repeats no more than its cursor may lag behind.
    #[test]
    fn a_restart_skips_no_task_of_a_long_stage(
        tasks in 1..400_u32,
        answered in vec(any::<usize>(), 0..400),
    ) {
        let pipeline = pipeline("demo", 1, Policy::OldestFirst);
        let now = Timestamp(1);
        let stage = || ready(&pipeline, 1, "segment", tasks, 1, (Announcement(1), now));
        let source = SourceId::Stage(1);
        let mut real = Dispatcher::default();
        real.heard(&heartbeat(0, 1000), now);
        real.stage(source, stage(), 0, &pipeline, Timestamp::default());
        let (mut unanswered, mut stored, mut cursor, mut is_done) = (Vec::new(), BTreeSet::new(), 0, false);
        for pick in answered {
            unanswered.extend(real.release(now).map(|release| release.index));
            if pick % 3 == 0 || unanswered.is_empty() {
                continue;
            }
            let index = unanswered.swap_remove(pick % unanswered.len());
            stored.insert(index);
            for effect in real.stored(source, index) {
                match effect {
                    Effect::SaveCursor(_, next) => cursor = next,
                    Effect::Done(_) => is_done = true,
                    Effect::DropCursor(_) => prop_assert!(is_done, "what is not done has a cursor"),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
        prop_assert_eq!(is_done, stored.len() == tasks as usize);
        if !is_done {
            let mut successor = Dispatcher::default();
            successor.heard(&heartbeat(0, 1000), now);
            successor.stage(source, stage(), cursor, &pipeline, Timestamp::default());
            let again: BTreeSet<u32> = std::iter::from_fn(|| successor.release(now)).map(|release| release.index).collect();
            let missed = (0..tasks).find(|index| !stored.contains(index) && !again.contains(index));
            prop_assert_eq!(missed, None);
        }
    }
}

/// P5: the attempt of a prover that stands still leaves the place of a live prover to its second copy, also if
/// no lease shows the attempt, and takes a place again when its prover is back.
#[test]
fn an_attempt_with_a_silent_prover_takes_no_place_of_a_live_one() {
    for is_listed in [true, false] {
        let pipeline = pipeline("demo", 1, Policy::OldestFirst);
        let at = |ms: u64| Timestamp(1_000_000).plus(Duration::from_millis(ms));
        let mut real = Dispatcher::default();
        let announced = (Announcement(1), at(0));
        real.heard(&heartbeat(1, 1), at(0));
        real.stage(
            SourceId::Stage(1),
            ready(&pipeline, 1, "segment", 1, 1, announced),
            0,
            &pipeline,
            at(0),
        );
        let first = real.release(at(0)).expect("a place is free");
        let mut lease = heartbeat(1, 1);
        if is_listed {
            lease.held = vec![held(&first, false)];
        }
        real.heard(&lease, at(10));
        real.heard(&heartbeat(2, 1), at(700));
        real.tick(at(10 + SILENT_MS));
        let copy = Ready {
            is_hedge: true,
            races: Some((1, lease.prover.clone())),
            ..ready(&pipeline, 1, "segment", 1, 2, announced)
        };
        real.stage(SourceId::Stage(2), copy, 0, &pipeline, at(760));
        let second = real.release(at(770)).expect("the place of the other prover");
        assert_eq!(second.key.attempt, 2, "listed: {is_listed}");
        // Both are back, each with one attempt: no place is free for a third.
        lease.held = vec![held(&first, false)];
        real.heard(&lease, at(800));
        let mut other = heartbeat(2, 1);
        other.held = vec![held(&second, false)];
        real.heard(&other, at(800));
        real.stage(
            SourceId::Stage(3),
            ready(&pipeline, 2, "segment", 1, 1, announced),
            0,
            &pipeline,
            at(0),
        );
        assert_eq!(real.release(at(800)), None, "listed: {is_listed}");
    }
}

/// The collector asks for the retry of a dead attempt, under the number of the running copy. The retry does
/// not wait for a place, to be done once more after the copy.
#[test]
fn a_copy_that_is_out_already_is_not_released_again() {
    let pipeline = pipeline("demo", 1, Policy::OldestFirst);
    let now = Timestamp(1);
    let again = |sequence: u64| ready(&pipeline, 1, "segment", 1, 2, (Announcement(sequence), now));
    let mut real = Dispatcher::default();
    real.heard(&heartbeat(0, 1), now);
    real.stage(SourceId::Stage(1), again(1), 0, &pipeline, now);
    let copy = real.release(now).expect("a place is free");
    real.stored(copy.source, copy.index);
    let effects = real.stage(SourceId::Stage(2), again(1), 0, &pipeline, now);
    assert_eq!(effects, [Effect::Done(SourceId::Stage(2))]);
    // Work for a newer announcement of the block replaces it, and work that is over does not count.
    assert_eq!(real.stage(SourceId::Stage(3), again(2), 0, &pipeline, now), []);
    real.ended(&copy.key);
    assert!(real.release(now).is_some());
}

/// P6: memory grows with stages. An unreleased stage is one entry, however many tasks it has.
#[test]
fn a_stage_of_a_hundred_thousand_tasks_is_one_entry() {
    const TASKS: u32 = 100_000;
    let pipeline = pipeline("demo", 1, Policy::OldestFirst);
    let now = Timestamp(1);
    let mut real = Dispatcher::default();
    real.heard(&heartbeat(0, 2), now);
    real.stage(
        SourceId::Stage(1),
        ready(&pipeline, 1, "segment", TASKS, 1, (Announcement(1), now)),
        0,
        &pipeline,
        now,
    );
    let mut effects = Vec::new();
    for index in 0..TASKS {
        let waiting: usize = real.waiting().map(|(_, count)| count).sum();
        assert_eq!(waiting, 1, "before task {index}");
        let release = real.release(now).expect("valid");
        assert_eq!(release.index, index);
        effects.extend(real.stored(release.source, index));
        real.ended(&release.key);
    }
    assert_eq!(real.release(now), None);
    assert_eq!(effects.pop(), Some(Effect::DropCursor(SourceId::Stage(1))));
    assert_eq!(effects.pop(), Some(Effect::Done(SourceId::Stage(1))));
    assert!(
        effects.len() < TASKS as usize / 60,
        "a cursor is not saved for every task"
    );
}
