//! The collector's decisions do not depend on how many message bodies it may keep.
#![expect(clippy::expect_used, reason = "a failing test panics, in its helpers as well")]

use proptest::{prelude::*, sample::Index};
use push0_collector::{
    decide::{Collector, Step, Told},
    state::Handle,
};
use push0_domain::{
    Announcement, BlockHash, BlockRef, CriticalPath, Payload, Payloads, Timestamp,
    message::{
        BlockContext, BlockEnded, BlockFacts, EndReason, Failure, FailureClass, Outcome, TaskHeader,
        TaskResult,
    },
    pipeline::Pipeline,
    task::StageKey,
    trace::TraceContext,
};
use std::{collections::BTreeMap, sync::Arc};

const FIRST: u64 = 7;
const NOW: Timestamp = Timestamp(1_000_000);

/// Two proofs: one of a single task, and one that is split and joined.
fn pipeline(quorum: usize) -> Arc<Pipeline> {
    let stage = |name: &str, kind: &str| {
        format!("[[proof.stage]]\nname = \"{name}\"\nkind = \"{kind}\"\ntimeout = \"10s\"\nattempts = 2\n")
    };
    let proof = |name: &str, stages: String| {
        format!("[[proof]]\ntype = \"{name}\"\nzkvm = \"mock\"\nverify = \"off\"\n{stages}")
    };
    let split = [
        stage("split", "split"),
        stage("part", "map"),
        stage("join", "join"),
    ]
    .concat();
    let text = format!(
        "name = \"demo\"\n[source]\nkind = \"external\"\n[quorum]\nvalid = {quorum}\n{}{}",
        proof("one", stage("prove", "map")),
        proof("two", split)
    );
    Arc::new(Pipeline::from_toml("test.toml", &text).expect("a good pipeline"))
}

fn hash(number: u64) -> BlockHash {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_be_bytes());
    BlockHash(hash)
}

#[derive(Clone, Debug)]
struct Ended {
    number: u64,
    proof: usize,
    stage: usize,
    index: u32,
    attempt: u32,
    succeeds: bool,
}

fn ended() -> impl Strategy<Value = Ended> {
    let which = (0..2_usize, 0..3_usize, 0..3_u32, 1..3_u32);
    (FIRST..FIRST + 6, which, 0..8_u32).prop_map(|(number, (proof, stage, index, attempt), chance)| {
        let stage = if proof == 0 { 0 } else { stage };
        Ended {
            number,
            proof,
            stage,
            index: if stage == 1 { index } else { 0 },
            attempt,
            succeeds: chance > 0,
        }
    })
}

/// A collector and its unacknowledged messages.
struct Session {
    core: Collector,
    pipeline: Arc<Pipeline>,
    messages: BTreeMap<Handle, TaskResult>,
    handles: u64,
    recalled: usize,
    steps: Vec<Step>,
}

impl Session {
    fn new(room: usize, quorum: usize) -> Self {
        let pipeline = pipeline(quorum);
        let core = Collector::new(pipeline.name.clone(), FIRST, BTreeMap::new());
        Self {
            core: core.with_room(room),
            pipeline,
            messages: BTreeMap::new(),
            handles: 0,
            recalled: 0,
            steps: Vec::new(),
        }
    }

    fn result(&self, ended: &Ended) -> TaskResult {
        let spec = &self.pipeline.proofs[ended.proof];
        let stage = &spec.stages[ended.stage];
        let number = ended.number;
        let key = StageKey {
            pipeline: self.pipeline.name.clone(),
            block: BlockRef {
                number,
                hash: hash(number),
            },
            first: None,
            proof_type: spec.proof_type.clone(),
            stage: stage.name.clone(),
        };
        let text = format!("{ended:?}").into_bytes();
        let outcome = if ended.succeeds {
            let outputs = match ended.stage {
                0 if ended.proof == 1 => Payloads::List(vec![Payload::Inline(text.clone()); 3]),
                _ => Payloads::one(Payload::Inline(text.clone())),
            };
            Outcome::Completed { outputs }
        } else {
            Outcome::Failed(Failure::new(FailureClass::Retryable, format!("{ended:?}")))
        };
        TaskResult {
            header: TaskHeader {
                id: key.task(ended.index),
                attempt: ended.attempt,
                hedge_of: None,
                zkvm: stage.zkvm.clone(),
                context: BlockContext {
                    revision: 1,
                    parent_hash: hash(number - 1),
                    announcement: Announcement(1),
                    stored_at: Timestamp(number),
                    first_announcement: None,
                    deadline_at: None,
                    amends: false,
                    facts: BlockFacts {
                        gas_used: number,
                        ..BlockFacts::default()
                    },
                },
                kind: stage.kind,
                of: if ended.stage == 1 { 3 } else { 1 },
                timeout_ms: 10_000,
                hedge_after_ms: None,
                attempts_max: stage.attempts,
                give_up_at: None,
                check: false,
                program_id: None,
                path: CriticalPath::behind(Vec::new(), Timestamp(number)),
                seal: push0_domain::seal::Seal::default(),
            },
            prover: format!("p-{}", ended.attempt).parse().expect("valid"),
            outcome,
            inputs: Some(Payloads::one(Payload::Inline(text))),
            prove_us: 1,
            transfer_us: 0,
            waited_us: 0,
            signature: None,
            verdict: None,
        }
    }

    fn trace(handle: Handle) -> TraceContext {
        TraceContext {
            traceparent: Some(format!("trace-{}", handle.0)),
            tracestate: None,
        }
    }

    fn told(handle: Handle) -> Told {
        Told {
            stored_at: Timestamp(handle.0),
            ..Told::default()
        }
    }

    fn tell(&mut self, ended: &Ended) {
        self.handles += 1;
        let (handle, result) = (Handle(self.handles), self.result(ended));
        self.messages.insert(handle, result.clone());
        let (told, trace) = (Self::told(handle), Self::trace(handle));
        let steps = self.core.result(handle, result, told, &trace, &self.pipeline);
        self.perform(steps);
        self.advance();
    }

    fn cancel(&mut self, number: u64) {
        self.handles += 1;
        let ended = BlockEnded {
            pipeline: self.pipeline.name.clone(),
            first: number,
            last: number,
            hashes: Vec::new(),
            before: Announcement(2),
            reason: EndReason::Cancelled { note: "test".into() },
        };
        let steps = self.core.end(Handle(self.handles), ended);
        self.perform(steps);
        self.advance();
    }

    fn advance(&mut self) {
        let pipeline = self.pipeline.clone();
        let steps = self.core.advance(NOW, |_| Some(pipeline.clone()));
        self.perform(steps);
    }

    /// Settled messages leave the stream, and messages read again are available at once.
    fn perform(&mut self, steps: Vec<Step>) {
        let (mut recalled, mut goes_on) = (Vec::new(), false);
        for step in steps {
            match step {
                Step::Recall(handles) => recalled.extend(handles),
                Step::Ack(handles) => self.gone(&handles),
                Step::Open(_, ref handles) | Step::Emit(_, _, ref handles, _) => {
                    self.gone(handles);
                    let is_record = matches!(step, Step::Emit(..));
                    self.steps.push(step);
                    if is_record {
                        goes_on = true;
                        let steps = self.core.stored(1);
                        self.perform(steps);
                    }
                }
                Step::Bury(..) => self.steps.push(step),
            }
        }
        goes_on |= !recalled.is_empty();
        for handle in recalled {
            self.recalled += 1;
            let result = self
                .messages
                .get(&handle)
                .expect("it is not acknowledged")
                .clone();
            let (told, trace) = (Self::told(handle), Self::trace(handle));
            self.core.recalled(handle, result, told, &trace, &self.pipeline);
        }
        if goes_on {
            self.advance();
        }
    }

    fn gone(&mut self, handles: &[Handle]) {
        for handle in handles {
            self.messages.remove(handle);
        }
    }

    /// Returns the steps per block, since steps for different blocks may come in another order.
    fn followed(&self) -> BTreeMap<(u64, String), Vec<String>> {
        let mut followed: BTreeMap<(u64, String), Vec<String>> = BTreeMap::new();
        for step in &self.steps {
            let (number, what) = match step {
                Step::Open(opening, _) => {
                    let stage = &opening.ready.stage;
                    (stage.block.number, stage.proof_type.to_string())
                }
                Step::Emit(record, ..) => (record.last.number, "record".into()),
                _ => (0, "letters".into()),
            };
            let said = followed.entry((number, what)).or_default();
            said.push(format!("{step:?}"));
        }
        followed
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_same_follows_with_room_for_everything_and_for_nothing(
        ends in prop::collection::vec(ended(), 1..120),
        cancelled in prop::collection::vec((any::<Index>(), FIRST..FIRST + 6), 0..3),
        quorum in 1..=2_usize,
        room in prop_oneof![Just(0), 500..4000_usize],
    ) {
        let mut sessions = [Session::new(usize::MAX, quorum), Session::new(room, quorum)];
        for session in &mut sessions {
            for (at, ended) in ends.iter().enumerate() {
                session.tell(ended);
                for (_, number) in cancelled.iter().filter(|(when, _)| when.index(ends.len()) == at) {
                    session.cancel(*number);
                }
            }
        }
        let [all, none] = &sessions;
        prop_assert_eq!(all.recalled, 0);
        prop_assert_eq!(all.followed(), none.followed());
        let left = |session: &Session| session.messages.keys().copied().collect::<Vec<_>>();
        prop_assert_eq!(left(all), left(none), "what is held");
    }
}

/// A block is read again when its turn comes, and its record is the same as if its body had been kept.
#[test]
fn blocks_behind_a_hole_are_read_again_when_it_is_filled() {
    let mut session = Session::new(0, 1);
    let done = |number| Ended {
        number,
        proof: 0,
        stage: 0,
        index: 0,
        attempt: 1,
        succeeds: true,
    };
    (FIRST + 1..FIRST + 200).for_each(|number| session.tell(&done(number)));
    assert_eq!((session.steps.len(), session.recalled), (0, 0));
    session.tell(&done(FIRST));
    let numbers: Vec<u64> = session.steps.iter().map(number_of).collect();
    assert_eq!(numbers, (FIRST..FIRST + 200).collect::<Vec<_>>());
    assert_eq!((session.recalled, session.messages.len()), (199, 0));
}

fn number_of(step: &Step) -> u64 {
    match step {
        Step::Emit(record, ..) => record.last.number,
        _ => 0,
    }
}
