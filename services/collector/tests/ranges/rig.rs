//! A collector with its unacknowledged messages, and provers whose outputs repeat their inputs.

use proptest::sample::Index;
use push0_collector::{
    decide::{Collector, Step, Told},
    state::Handle,
};
use push0_domain::{
    Announcement, BlockHash, BlockKey, BlockRef, CriticalPath, Payload, Payloads, PipelineId, StageKey,
    TaskId, Timestamp,
    message::{
        BlockContext, BlockEnded, BlockFacts, Emission, EmissionOutcome, EndReason, Failure, FailureClass,
        KnownBlock, Outcome, StageKind, StageReady, TaskHeader, TaskRange, TaskResult,
    },
    output::Output,
    pipeline::Pipeline,
    subject::{AttemptKey, Kind},
    task::{first_attempt, start_of},
    trace::TraceContext,
    wanted::Claim,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// The revisions a block may have: a tree with halves and a wrap, one task for all blocks, and no range.
pub(crate) const REVISIONS: [&str; 3] = [
    "kind = \"range\"\nevery = 4\nclose_after = \"10s\"\narity = 2\nsplit_on_failure = true\ntimeout = \"1m\"\nattempts = 2\n\
     [[proof.stage]]\nname = \"wrap\"\nkind = \"map\"\ntimeout = \"1m\"\nattempts = 2\n",
    "kind = \"range\"\nevery = 3\nclose_after = \"10s\"\ntimeout = \"1m\"\nattempts = 2\n",
    "kind = \"map\"\ntimeout = \"1m\"\nattempts = 2\n",
];

fn pipeline(revision: u32) -> Arc<Pipeline> {
    let last = REVISIONS[revision as usize - 1];
    let text = format!(
        "name = \"rollup\"\nsource = {{ kind = \"external\" }}\n[[proof]]\ntype = \"main\"\nzkvm = \"mock\"\n\
         verify = \"off\"\n[[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"1m\"\nattempts = 2\n\
         [[proof.stage]]\nname = \"range\"\n{last}"
    );
    let mut pipeline = Pipeline::from_toml("test.toml", &text).expect("a good pipeline");
    pipeline.revision = revision;
    Arc::new(pipeline)
}

#[derive(Clone, Debug)]
enum Message {
    Result(Box<TaskResult>),
    Ended(BlockEnded),
}

/// A task waiting to be run.
#[derive(Clone)]
pub(crate) struct Open {
    ready: StageReady,
    index: u32,
    pub(crate) id: TaskId,
}

pub(crate) struct Rig {
    name: PipelineId,
    pipelines: Vec<Arc<Pipeline>>,
    core: Collector,
    /// Bytes of message bodies the collector may keep.
    room: usize,
    /// Unacknowledged messages, by sequence.
    messages: BTreeMap<u64, (Message, Timestamp)>,
    sequence: u64,
    /// The newest message of BLOCKS.
    announced: Announcement,
    pub(crate) now: Timestamp,
    /// Tasks asked for and not finished. The broker holds one message of each.
    pub(crate) open: BTreeMap<(TaskId, u32), Open>,
    pub(crate) records: Vec<Emission>,
    pub(crate) buried: BTreeSet<String>,
    /// The blocks of the current chain.
    pub(crate) chain: BTreeMap<u64, (BlockRef, BlockContext)>,
    forks: u8,
}

impl Rig {
    pub(crate) fn new(first: u64) -> Self {
        Self::with_room(first, usize::MAX)
    }

    /// Creates a rig whose collector may keep this many bytes of message bodies.
    pub(crate) fn with_room(first: u64, room: usize) -> Self {
        let name: PipelineId = "rollup".parse().expect("a name");
        Self {
            core: Collector::new(name.clone(), first, BTreeMap::new()).with_room(room),
            room,
            name,
            pipelines: (1..=3).map(pipeline).collect(),
            messages: BTreeMap::new(),
            sequence: 0,
            announced: Announcement::default(),
            now: Timestamp(1_000_000),
            open: BTreeMap::new(),
            records: Vec::new(),
            buried: BTreeSet::new(),
            chain: BTreeMap::new(),
            forks: 0,
        }
    }

    /// Adds a block to the chain.
    pub(crate) fn observe(&mut self, number: u64, revision: u32) {
        self.announced = self.announced.next();
        self.pass(Duration::from_millis(1));
        let parent = number.checked_sub(1).and_then(|n| self.chain.get(&n));
        let mut hash = [self.forks; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        let block = BlockRef {
            number,
            hash: BlockHash(hash),
        };
        let context = BlockContext {
            revision,
            parent_hash: parent.map_or(BlockHash::default(), |(parent, _)| parent.hash),
            announcement: self.announced,
            stored_at: self.now,
            first_announcement: None,
            deadline_at: None,
            amends: false,
            facts: BlockFacts {
                transactions: 1,
                ..BlockFacts::default()
            },
        };
        self.chain.insert(number, (block, context.clone()));
        let stage = StageKey {
            pipeline: self.name.clone(),
            block,
            first: None,
            proof_type: "main".parse().expect("a name"),
            stage: "prove".parse().expect("a name"),
        };
        let witness = Payload::Inline(format!("{number}/{}", self.forks).into_bytes());
        self.ask(StageReady {
            stage,
            context,
            zkvm: "mock".parse().expect("a name"),
            tasks: TaskRange {
                first: 0,
                count: 1,
                of: 1,
            },
            attempt: 1,
            hedge_of: None,
            failed: 0,
            avoid: Vec::new(),
            inputs: Payloads::one(witness),
            path: CriticalPath::behind(Vec::new(), self.now),
        });
    }

    /// Drops the blocks of the chain from this number on. The new ones are to be observed afterwards.
    pub(crate) fn reorg(&mut self, from: u64) {
        let gone = self.chain.split_off(&from);
        let Some((last, _)) = gone.last_key_value() else {
            return;
        };
        let hashes = gone.values().map(|(block, _)| block.hash).collect();
        self.forks += 1;
        self.end(from, *last, hashes, EndReason::Reorged);
    }

    /// Cancels a block, as an operator would.
    pub(crate) fn cancel(&mut self, number: u64) {
        let note = "test".into();
        self.end(number, number, Vec::new(), EndReason::Cancelled { note });
    }

    fn end(&mut self, first: u64, last: u64, hashes: Vec<BlockHash>, reason: EndReason) {
        self.pass(Duration::from_millis(1));
        self.announced = self.announced.next();
        let ended = BlockEnded {
            pipeline: self.name.clone(),
            first,
            last,
            hashes,
            before: self.announced,
            reason,
        };
        // Like the dispatcher, drop tasks that wait for these blocks.
        self.open.retain(|(id, _), open| {
            let claim = Claim::first(open.ready.context.announcement);
            ended.assess(&id.stage, claim).is_wanted()
        });
        self.say(Message::Ended(ended));
    }

    fn say(&mut self, message: Message) {
        self.sequence += 1;
        self.messages.insert(self.sequence, (message, self.now));
        self.hear(self.sequence);
        self.advance();
    }

    fn hear(&mut self, sequence: u64) {
        let Some((message, stored_at)) = self.messages.get(&sequence).cloned() else {
            return;
        };
        let handle = Handle(sequence);
        let steps = match message {
            Message::Ended(ended) => self.core.end(handle, ended),
            Message::Result(result) => {
                let told = Told {
                    verified: true,
                    amends: self.core.asks_to_amend(&result) && self.is_dead(&result),
                    stored_at,
                };
                let revision = result.header.context.revision;
                let pipeline = self.pipelines[revision as usize - 1].clone();
                let trace = TraceContext::default();
                self.core.result(handle, *result, told, &trace, &pipeline)
            }
        };
        self.perform(steps);
    }

    fn is_dead(&self, result: &TaskResult) -> bool {
        let stage = &result.header.id.stage;
        let of = |r: &&Emission| r.last == stage.block && r.first == stage.first_block();
        let record = self.records.iter().rev().find(of);
        record.is_some_and(|r| matches!(r.outcome, EmissionOutcome::Dead { .. }))
    }

    fn perform(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Ack(handles) => self.acknowledge(handles),
                Step::Open(opening, handles) => {
                    self.ask(opening.ready);
                    self.acknowledge(handles);
                }
                Step::Bury(letter, _) => drop(self.buried.insert(letter.id)),
                Step::Recall(handles) => self.recall(handles),
                Step::Emit(emission, traces, handles, _) => {
                    let blocks = emission.last.number - emission.first.number + 1;
                    assert!(traces.len() as u64 == blocks || emission.hashes.is_empty());
                    self.emit(*emission);
                    self.acknowledge(handles);
                    let steps = self.core.stored(1);
                    self.perform(steps);
                }
            }
        }
    }

    /// Messages read again are available at once.
    fn recall(&mut self, handles: Vec<Handle>) {
        for handle in handles {
            let Some((Message::Result(result), stored_at)) = self.messages.get(&handle.0).cloned() else {
                continue;
            };
            let told = Told {
                verified: true,
                amends: false,
                stored_at,
            };
            let pipeline = self.pipelines[result.header.context.revision as usize - 1].clone();
            self.core
                .recalled(handle, *result, told, &TraceContext::default(), &pipeline);
        }
        self.advance();
    }

    fn emit(&mut self, record: Emission) {
        let numbers = record.first.number..=record.last.number;
        // Like the dispatcher, drop tasks of blocks with a record.
        let mut output = Output::default();
        output.note(&record);
        self.open.retain(|(id, _), open| {
            let claim = Claim::first(open.ready.context.first_announcement());
            let first = id.stage.first_block().number;
            !numbers.contains(&first) || output.assess(first, claim).is_wanted()
        });
        self.records.push(record);
    }

    fn acknowledge(&mut self, handles: Vec<Handle>) {
        for Handle(sequence) in handles {
            let gone = self.messages.remove(&sequence);
            assert!(gone.is_some(), "{sequence} was acknowledged twice");
        }
    }

    fn ask(&mut self, ready: StageReady) {
        for index in ready.tasks.first..ready.tasks.first + ready.tasks.count {
            let id = ready.stage.task(index);
            let open = Open {
                ready: ready.clone(),
                index,
                id: id.clone(),
            };
            self.open.entry((id, ready.attempt)).or_insert(open);
        }
    }

    /// Performs all steps that follow now.
    pub(crate) fn advance(&mut self) {
        let pipelines = self.pipelines.clone();
        let steps = self
            .core
            .advance(self.now, |revision| pipelines.get(revision as usize - 1).cloned());
        self.perform(steps);
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
    }

    /// The collector dies, and another starts over.
    pub(crate) fn restart(&mut self, first: u64) {
        let mut output = Output::new(first, BTreeMap::new());
        self.records.iter().for_each(|record| output.note(record));
        let core = Collector::new(self.name.clone(), output.next(), output.emitted().clone());
        self.core = core.with_room(self.room);
        let all: Vec<u64> = self.messages.keys().copied().collect();
        all.into_iter().for_each(|sequence| self.hear(sequence));
        self.advance();
    }

    /// Returns an open task, if there is any.
    pub(crate) fn any(&self, which: Index) -> Option<(TaskId, u32)> {
        let keys: Vec<_> = self.open.keys().collect();
        (!keys.is_empty()).then(|| (*which.get(&keys)).clone())
    }

    /// A prover ends an open task. The output is the inputs in brackets.
    pub(crate) fn finish(&mut self, key: &(TaskId, u32), succeeds: bool) {
        self.conclude(key, (!succeeds).then_some(FailureClass::Retryable));
    }

    /// Two provers say that no attempt at an open task can succeed.
    pub(crate) fn doom(&mut self, (task, attempt): &(TaskId, u32)) {
        for attempt in [*attempt, attempt + 1] {
            self.conclude(&(task.clone(), attempt), Some(FailureClass::Fatal));
        }
    }

    fn conclude(&mut self, key: &(TaskId, u32), failure: Option<FailureClass>) {
        let Some(open) = self.open.remove(key) else { return };
        let prover = match failure {
            Some(FailureClass::Fatal) => format!("p{}", key.1),
            _ => "p1".to_owned(),
        };
        let inputs = inputs(&self.pipelines, &open);
        let read = inputs.iter().map(text).collect::<Vec<_>>().join(" ");
        let outcome = match failure {
            None => {
                let output = Payload::Inline(format!("({read})").into_bytes());
                Outcome::Completed {
                    outputs: Payloads::one(output),
                }
            }
            Some(class) => Outcome::Failed(Failure::new(class, "as it was told")),
        };
        let result = TaskResult {
            header: header(&open),
            prover: prover.parse().expect("a name"),
            outcome,
            inputs: Some(Payloads::List(inputs)),
            prove_us: 1,
            transfer_us: 0,
            waited_us: 0,
            signature: None,
            verdict: None,
        };
        self.pass(Duration::from_millis(1));
        self.say(Message::Result(Box::new(result)));
    }

    /// A prover takes open tasks of ranges away and says nothing.
    pub(crate) fn take_away(&mut self, is_taken: impl Fn(&TaskId) -> bool) {
        self.open
            .retain(|(id, _), _| id.stage.first.is_none() || !is_taken(id));
    }

    /// Returns whether a message of this kind about an attempt at a range says that the range is worked on.
    pub(crate) fn is_work(
        &self,
        kind: Kind,
        (first, last): (u64, u64),
        stage: &str,
        index: u32,
        attempt: u32,
    ) -> bool {
        let (block, _) = &self.chain[&last];
        let range = StageKey {
            pipeline: self.name.clone(),
            block: *block,
            first: Some(self.chain[&first].0),
            proof_type: "main".parse().expect("a name"),
            stage: stage.parse().expect("a name"),
        };
        let attempt = AttemptKey::of(
            &"mock".parse().expect("a name"),
            &range.task(index).attempt(attempt),
        );
        let definition = |revision| self.pipelines.get(revision as usize - 1).cloned();
        let found = self.core.ranges_in_flight(&[(kind, attempt)], definition);
        !found.is_empty()
    }

    /// The shell tells of the ranges whose work is nowhere. Returns how many there are.
    pub(crate) fn miss(&mut self) -> usize {
        let waiting = self.core.waiting_ranges().into_iter();
        let is_worked_on = |range: &BlockKey| self.open.keys().any(|(id, _)| id.stage.block_key() == *range);
        let lost: Vec<_> = waiting.filter(|(range, _)| !is_worked_on(range)).collect();
        for (range, newest) in &lost {
            self.core.lost(*range, *newest);
        }
        self.advance();
        lost.len()
    }

    /// Completes all open tasks until nothing is left.
    /// Panics if the rig does not come to rest.
    pub(crate) fn calm(&mut self) {
        for _ in 0..200 {
            while let Some(key) = self.open.keys().next().cloned() {
                self.finish(&key, true);
            }
            if self.left() == 0 {
                return;
            }
            self.miss();
            self.pass(Duration::from_secs(11));
            if let Some((block, context)) = self.core.unseen_end().and_then(|n| self.chain.get(&n)) {
                let known = KnownBlock {
                    block: *block,
                    parent_hash: context.parent_hash,
                    revision: context.revision,
                    observed_at: context.stored_at,
                    announced_after: context.announcement.previous(),
                    input: None,
                    facts: BlockFacts::default(),
                };
                self.core.known(&known, context.stored_at);
            }
            self.advance();
        }
        panic!("not at rest: {:#?}, {:#?}", self.messages, self.core);
    }

    /// An operator retries a task whose block has its record.
    pub(crate) fn retry(&mut self, open: Open) {
        let mut ready = open.ready;
        ready.attempt += 2;
        ready.context.amends = true;
        self.ask(ready);
    }

    /// Returns the number of messages, tasks and blocks left.
    fn left(&self) -> usize {
        self.messages.len() + self.open.len() + self.core.len()
    }
}

fn header(open: &Open) -> TaskHeader {
    let ready = &open.ready;
    TaskHeader {
        id: open.id.clone(),
        attempt: ready.attempt,
        hedge_of: None,
        zkvm: "mock".parse().expect("a name"),
        context: ready.context.clone(),
        kind: StageKind::Map,
        of: ready.tasks.of,
        timeout_ms: 1000,
        hedge_after_ms: None,
        attempts_max: 2,
        give_up_at: None,
        check: false,
        program_id: None,
        path: ready.path.clone(),
        seal: push0_domain::seal::Seal::default(),
    }
}

/// Returns the inputs of a task, as the dispatcher selects them.
fn inputs(pipelines: &[Arc<Pipeline>], open: &Open) -> Vec<Payload> {
    let ready = &open.ready;
    let all: Vec<Payload> = (0..ready.inputs.count())
        .filter_map(|at| ready.inputs.get(at))
        .collect();
    if ready.attempt != first_attempt(start_of(ready.attempt)) {
        return all;
    }
    let pipeline = &pipelines[ready.context.revision as usize - 1];
    let stage = pipeline.proofs[0]
        .stage(&ready.stage.stage)
        .map(|(_, stage)| stage);
    let at = (open.index - ready.tasks.first) as usize;
    match stage.and_then(|stage| stage.arity) {
        Some(arity) => all.chunks(arity as usize).nth(at).unwrap_or_default().to_vec(),
        None => all,
    }
}

pub(crate) fn text(payload: &Payload) -> String {
    match payload {
        Payload::Inline(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    }
}

/// Returns the blocks a record's proof is made of, in order.
pub(crate) fn proved(record: &Emission) -> Option<Vec<String>> {
    let EmissionOutcome::Proved(proofs) = &record.outcome else {
        return None;
    };
    let text = text(&proofs.first()?.payload);
    let blocks = text.split(['(', ')', ' ']).filter(|part| !part.is_empty());
    Some(blocks.map(str::to_owned).collect())
}
