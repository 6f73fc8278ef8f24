//! Begins lost proofs anew that a pipeline's next block waits for.

use super::Active;
use crate::{
    heads::{Look, ProofIn},
    lost::{HeldResult, awaited, is_in_range, lost_proofs},
    motion::{Evidence, Moved, evidence},
};
use futures::{StreamExt as _, stream};
use push0_bus::{Bucket, BusError, Stream, now};
use push0_domain::{
    BlockKey, CriticalPath, PipelineId, ProofType, Timestamp,
    message::{BlockEvent, Emission, KnownBlock, Outcome, ResultEvent, StageReady, TaskHeader, TaskResult},
    pipeline::{Pipeline, ProofSpec},
    subject::{self, AttemptKey, Kind},
    task::{first_attempt, start_of},
    trace::TraceContext,
};
use push0_operate::{OperateError, retry};
use push0_runtime::trace;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The streams whose messages say that work is released, in the order in which messages move through them.
const RELEASED: [(Stream, Kind); 2] = [(Stream::Stages, Kind::Stage), (Stream::Tasks, Kind::Task)];
/// How many blocks behind the next one are looked at if proofs of the next one are lost: a prover that takes one task away
/// may have taken others.
const BEHIND: u64 = 63;
/// How many ends of blocks are read in one look.
const ENDS_PAGE: usize = 256;
/// Most results read of one block. The last stage of a proof has few tasks, so it is complete far below.
const RESULTS_MAX: usize = 20_000;
/// Most checks read in one look, for their seals.
const CHECKS_MAX: usize = 256;
/// Most results of ranges read in one look, for their seals.
const OF_RANGES_MAX: usize = 256;
/// How many results are read at once. Each may carry outputs of 64 KiB, of which nothing is kept.
const READ_AT_ONCE: usize = 32;

impl Active<'_> {
    /// Looks at the next block of every pipeline that stands.
    pub(super) async fn look_for_lost_blocks(&mut self) -> Result<(), BusError> {
        let current = self.pipelines.current().await?;
        self.heads
            .keep(|name| current.iter().any(|pipeline| pipeline.name == *name));
        for pipeline in current {
            match self.look_at_head(&pipeline).await {
                // The state of the pipeline cannot be read, which its services report.
                Err(error) if !error.is_damage() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    async fn look_at_head(&mut self, pipeline: &Pipeline) -> Result<(), BusError> {
        let name = &pipeline.name;
        let Some(next) = self.next_to_emit(name).await? else {
            return Ok(());
        };
        if !self.heads.is_look_due(name, next, now()) {
            return Ok(());
        }
        let began = now();
        self.read_ends(name).await?;
        let mut seen = BTreeMap::new();
        if let Some((first, is_alive)) = self.held_up_by(pipeline, next).await? {
            for number in first..=first.saturating_add(BEHIND) {
                let is_alive = is_alive && number == first;
                let Some(block) = self.look_at(name, number, is_alive).await? else {
                    break;
                };
                let is_lost = !block.lost.is_empty();
                seen.insert(number, block);
                if !is_lost && number == first {
                    break;
                }
            }
        }
        let of_block = |(number, seen): (&u64, &Seen)| {
            let number = *number;
            let of_proof = |proof: &ProofType| ((number, proof.clone()), seen.newest_held(proof));
            seen.lost.iter().map(of_proof).collect::<Vec<_>>()
        };
        let look = Look {
            at: began,
            lost: seen.iter().flat_map(of_block).collect(),
            collector: self.bus.leader_of(&format!("collector.{name}")).await?,
        };
        for ((number, proof_type), start) in self.heads.looked(name, look, now()) {
            if let Some(block) = seen.get(&number) {
                self.begin_anew(block, &proof_type, start).await?;
            }
        }
        Ok(())
    }

    /// Returns the number that a pipeline emits next; `None` if no block of the pipeline is known. This takes one read,
    /// because every pipeline is asked for each second.
    async fn next_to_emit(&self, name: &PipelineId) -> Result<Option<u64>, BusError> {
        let records = subject::proofs_of_pipeline(name);
        if let Some(newest) = self.bus.last::<Emission>(Stream::Proofs, &records).await? {
            let damaged = |source| BusError::Corrupt {
                what: newest.subject.clone(),
                source,
            };
            return newest.body.map(|newest| Some(newest.next)).map_err(damaged);
        }
        let known = self.bus.facts::<KnownBlock>(Bucket::Blocks).await?;
        let mut first = known.first(&format!("{name}.>"), 1).await?;
        let first = first.pop().and_then(|fact| fact.value);
        Ok(first.map(|first| first.block.number))
    }

    /// Looks for lost proofs of a block. Returns `None` if the block or its definition is not known.
    async fn look_at(
        &mut self,
        name: &PipelineId,
        number: u64,
        is_alive: bool,
    ) -> Result<Option<Seen>, BusError> {
        let known = self.bus.facts::<KnownBlock>(Bucket::Blocks).await?;
        let known = known.list(&subject::facts::known_blocks(name, number)).await?;
        let newest = known.into_iter().max_by_key(|fact| fact.revision);
        let Some(block) = newest.and_then(|fact| fact.value) else {
            return Ok(None);
        };
        let Some(definition) = self.pipelines.revision(name, block.revision).await? else {
            return Ok(None);
        };
        let mut seen = Seen {
            block,
            definition,
            lost: BTreeSet::new(),
            held: Newest::new(),
        };
        if self.has_news(name, &seen.block).await? {
            return Ok(Some(seen));
        }
        let key = seen.block.block.key();
        let named = self.proofs_at_work(&seen.definition, Some(key)).await?;
        let is_named = |proof: &ProofSpec| named.contains(&proof.proof_type);
        if !seen.definition.proofs.iter().all(is_named) {
            let held: Vec<HeldResult>;
            (held, seen.held) = self.results(name, key, &named).await?;
            seen.lost = lost_proofs(&seen.definition, is_alive, &named, &held);
        }
        if !seen.lost.is_empty() {
            // The collector may have begun a next stage since these streams were read.
            let named = self.proofs_at_work(&seen.definition, Some(key)).await?;
            seen.lost.retain(|proof| !named.contains(proof));
        }
        Ok(Some(seen))
    }

    /// Returns the number of the block that may hold up the next one: the next one itself, or in a pipeline with ranges
    /// the first one that is not ready for its range. Returns as well whether the block cannot be dead: if a block behind
    /// the next one is dead, the range before it is worked on.
    async fn held_up_by(&mut self, pipeline: &Pipeline, next: u64) -> Result<Option<(u64, bool)>, BusError> {
        if pipeline.range().is_none() {
            return Ok(Some((next, true)));
        }
        let name = &pipeline.name;
        let mut held = Vec::new();
        let mut read = 0;
        for kind in [Kind::Result, Kind::Verdict] {
            let filter = subject::attempts_of_pipeline(kind, name);
            for (subject, _) in self.bus.subjects(Stream::Results, &filter).await? {
                let Some(attempt) = subject::attempt_of(&subject, kind) else {
                    continue;
                };
                if is_in_range(pipeline, next, &attempt) && read < OF_RANGES_MAX {
                    read += 1;
                    if self.is_admitted(&subject, kind).await? {
                        return Ok(None);
                    }
                }
                held.push(attempt);
            }
        }
        let known = self.bus.facts::<KnownBlock>(Bucket::Blocks).await?;
        for (number, blocks) in awaited(pipeline, next, &held).unwrap_or_default() {
            let mut is_ready = false;
            // Of the blocks in results that a prover made up, none is known.
            for fact in known.list(&subject::facts::known_blocks(name, number)).await? {
                let block = fact.value.map(|known| known.block.key());
                if let Some(block) = block.filter(|block| blocks.contains(block)) {
                    is_ready |= self.is_ready(pipeline, block).await?;
                }
            }
            if !is_ready {
                let is_alive = number == next || self.proofs_at_work(pipeline, None).await?.is_empty();
                return Ok(Some((number, is_alive)));
            }
        }
        Ok(None)
    }

    /// Returns whether the held results of a block complete its part of a range.
    async fn is_ready(&mut self, pipeline: &Pipeline, block: BlockKey) -> Result<bool, BusError> {
        if self.heads.is_ready(&pipeline.name, &block) {
            return Ok(true);
        }
        let (held, _) = self.results(&pipeline.name, block, &BTreeSet::new()).await?;
        let is_ready = lost_proofs(pipeline, true, &BTreeSet::new(), &held).is_empty();
        if is_ready {
            self.heads.ready(&pipeline.name, block);
        }
        Ok(is_ready)
    }

    /// Returns whether a stored result is to be believed.
    async fn is_admitted(&mut self, subject: &str, kind: Kind) -> Result<bool, BusError> {
        let kept = self.bus.last::<ResultEvent>(Stream::Results, subject).await?;
        let Some(Ok(ResultEvent::Attempt(result))) = kept.map(|kept| kept.body) else {
            return Ok(false);
        };
        Ok(self.seals.admit(subject, kind, &result).await?.is_ok())
    }

    /// Returns whether a message about the block may wait for the dispatcher, or an end of the block for the collector.
    async fn has_news(&self, name: &PipelineId, block: &KnownBlock) -> Result<bool, BusError> {
        let announced = self
            .bus
            .scan::<BlockEvent>(
                Stream::Blocks,
                &subject::block(name),
                block.announced_after.0 + 1,
                1,
            )
            .await?;
        // The oldest announcement that is left: of this block or an earlier one, unless this block's is done with.
        let waits = announced.first().is_some_and(|kept| match &kept.body {
            Ok(BlockEvent::Observed(observed)) => observed.block.number <= block.block.number,
            _ => true,
        });
        Ok(waits || self.heads.may_end(name, block))
    }

    /// Reads further ends of a pipeline's blocks that wait for the collector.
    async fn read_ends(&mut self, name: &PipelineId) -> Result<(), BusError> {
        let from = self.heads.ends_read(name) + 1;
        let page = self
            .bus
            .scan::<ResultEvent>(Stream::Results, &subject::ended(name), from, ENDS_PAGE)
            .await?;
        let are_all = page.len() < ENDS_PAGE;
        let ends = page.into_iter().map(|kept| match kept.body {
            Ok(ResultEvent::Ended(ended)) => (kept.sequence, Some(ended)),
            _ => (kept.sequence, None),
        });
        self.heads.read_ends(name, ends.collect(), are_all);
        Ok(())
    }

    /// Returns the proofs of a block, or of all blocks of the pipeline, that have a ready stage, a task or a check that says that
    /// they move.
    async fn proofs_at_work(
        &mut self,
        pipeline: &Pipeline,
        block: Option<BlockKey>,
    ) -> Result<BTreeSet<ProofType>, BusError> {
        let (name, at) = (&pipeline.name, now());
        let filter = |kind| match block {
            Some(block) => subject::attempts_of_block(kind, name, block),
            None => subject::attempts_of_pipeline(kind, name),
        };
        let proof_in = |proof: &ProofType| (block.map(|block| block.number), proof.clone());
        let mut named = BTreeSet::new();
        for (stream, kind) in RELEASED {
            for (subject, _) in self.bus.subjects(stream, &filter(kind)).await? {
                named.extend(subject::attempt_of(&subject, kind).map(|attempt| attempt.proof_type));
            }
        }
        let is_new = |proof: &ProofSpec| self.heads.moved(name, &proof_in(&proof.proof_type)).is_none();
        let new = pipeline.proofs.iter().filter(|proof| is_new(proof));
        let mut moved: BTreeSet<ProofType> = new.map(|proof| proof.proof_type.clone()).collect();
        moved.extend(named.iter().cloned());
        let mut read = 0;
        for (subject, _) in self.bus.subjects(Stream::Checks, &filter(Kind::Check)).await? {
            let attempt = subject::attempt_of(&subject, Kind::Check);
            let Some(attempt) = attempt.filter(|attempt| !named.contains(&attempt.proof_type)) else {
                continue;
            };
            if read == CHECKS_MAX {
                break;
            }
            read += 1;
            let proof = attempt.proof_type.clone();
            match self.evidence(&subject, &attempt, &proof_in(&proof)).await? {
                Evidence::Repeated => continue,
                Evidence::Waits => {}
                Evidence::Moves => drop(moved.insert(proof.clone())),
            }
            named.insert(proof);
        }
        if !moved.is_empty() {
            let checks_to = self.bus.newest(Stream::Checks).await?;
            for proof in moved {
                self.heads.moves(name, proof_in(&proof), Moved { at, checks_to });
            }
        }
        Ok(named)
    }

    /// Returns the evidence of a check. Every prover may store checks without a release, which say nothing, and make outputs
    /// on which every verifier fails.
    async fn evidence(
        &mut self,
        subject: &str,
        attempt: &AttemptKey,
        proof: &ProofIn,
    ) -> Result<Evidence, BusError> {
        let kept = self.bus.last::<TaskResult>(Stream::Checks, subject).await?;
        let Some((sequence, Ok(check))) = kept.map(|kept| (kept.sequence, kept.body)) else {
            return Ok(Evidence::Repeated);
        };
        let is_sealed = self.seals.admit(subject, Kind::Check, &check).await?.is_ok();
        if !is_sealed || self.session.unverified.is_doubted(attempt) {
            return Ok(Evidence::Repeated);
        }
        let moved = self.heads.moved(&attempt.pipeline, proof);
        Ok(evidence(moved, sequence, check.header.path.failed_until))
    }

    /// Returns the results of a block that the collector holds, except those of the proofs `without`, and the newest work and
    /// start of each proof among them. Those that the collector drops as soon as it reads them are left out: a prover
    /// could make up one after another.
    async fn results(
        &mut self,
        name: &PipelineId,
        block: BlockKey,
        without: &BTreeSet<ProofType>,
    ) -> Result<(Vec<HeldResult>, Newest), BusError> {
        let (mut all, mut newest) = (Vec::new(), Newest::new());
        for kind in [Kind::Result, Kind::Verdict] {
            let filter = subject::attempts_of_block(kind, name, block);
            let subjects = self.bus.subjects(Stream::Results, &filter).await?;
            let is_wanted = |subject: &str| {
                let attempt = subject::attempt_of(subject, kind);
                attempt.is_some_and(|attempt| !without.contains(&attempt.proof_type))
            };
            let subjects = subjects.into_iter().map(|(subject, _)| subject);
            let wanted = subjects.filter(|subject| is_wanted(subject)).take(RESULTS_MAX);
            let bus = self.bus;
            let mut found = stream::iter(wanted)
                .map(|subject| async move { bus.last::<ResultEvent>(Stream::Results, &subject).await })
                .buffered(READ_AT_ONCE);
            while let Some(kept) = found.next().await {
                if let Some(kept) = kept?
                    && let Ok(ResultEvent::Attempt(result)) = kept.body
                    && self.seals.admit(&kept.subject, kind, &result).await?.is_ok()
                {
                    all.push(held(&result));
                    let of_proof = newest.entry(result.header.id.stage.proof_type.clone());
                    of_proof.or_default().note(result.header);
                }
            }
        }
        Ok((all, newest))
    }

    /// Asks for the first stage of a proof. Its attempts follow all earlier ones, so that the collector forgets the
    /// results of the earlier start with the first result of this one.
    async fn begin_anew(&self, seen: &Seen, proof_type: &ProofType, start: u32) -> Result<(), BusError> {
        let (pipeline, block) = (&seen.definition, &seen.block);
        let (name, number) = (&pipeline.name, block.block.number);
        let Some(input) = &block.input else {
            tracing::error!(
                pipeline = %name, block.number = number, proof.type = %proof_type,
                "a proof that the next block waits for is lost, and the witness of the block is not known: cancel the block or submit it again"
            );
            return Ok(());
        };
        let newest = seen.held.get(proof_type).and_then(|held| held.newest.as_ref());
        // A prover may repeat a result for an earlier announcement of the block.
        let newest = newest.filter(|header| header.context.announcement > block.announced_after);
        let start = newest.map_or(start, |header| start.max(start_of(header.attempt) + 1));
        tracing::warn!(
            pipeline = %name, block.number = number, proof.type = %proof_type, start,
            "a proof that the next block waits for is lost: a prover took a task away and gave no result. The proof is begun anew"
        );
        self.metrics.acts.with_label_values(&["lost"]).inc();
        let context = match newest {
            Some(header) => header.context.clone(),
            None => retry::context(pipeline, block),
        };
        let path = CriticalPath::behind(Vec::new(), context.stored_at).failed_at(now());
        let stages = retry::first_stages(pipeline, block, &context, input, &path);
        let trace = TraceContext::default();
        let trace = trace::of_block(&trace, name, &block.block, block.observed_at);
        let trace = trace
            .map(|trace| trace.begun(now()).context())
            .unwrap_or_default();
        let of_proof = |ready: &StageReady| ready.stage.proof_type == *proof_type;
        for mut ready in stages.into_iter().filter(of_proof) {
            ready.attempt = first_attempt(start);
            match retry::ask(self.bus, &ready, &trace).await {
                Ok(()) => {}
                Err(OperateError::Bus(error)) => return Err(error),
                Err(error) => {
                    tracing::warn!(pipeline = %name, block.number = number, %error, "the proof could not be begun anew, and is tried again later")
                }
            }
        }
        Ok(())
    }
}

/// A block that was looked at.
struct Seen {
    block: KnownBlock,
    definition: Arc<Pipeline>,
    lost: BTreeSet<ProofType>,
    held: Newest,
}

/// The newest of each proof's held results.
type Newest = BTreeMap<ProofType, NewestHeld>;

/// The newest of a proof's held results. Not by their sequence, since a prover may repeat any of them.
#[derive(Default)]
struct NewestHeld {
    /// When the newest work with a result was ready.
    ready_at: Timestamp,
    /// A header of the last announcement and start.
    newest: Option<TaskHeader>,
}

impl NewestHeld {
    fn note(&mut self, header: TaskHeader) {
        self.ready_at = self.ready_at.max(header.path.failed_until);
        let start = |header: &TaskHeader| (header.context.announcement, start_of(header.attempt));
        if self
            .newest
            .as_ref()
            .is_none_or(|newest| start(newest) < start(&header))
        {
            self.newest = Some(header);
        }
    }
}

impl Seen {
    fn newest_held(&self, proof_type: &ProofType) -> Timestamp {
        let held = self.held.get(proof_type);
        held.map_or(Timestamp::default(), |held| held.ready_at)
    }
}

fn held(result: &TaskResult) -> HeldResult {
    let header = &result.header;
    let is_valid = match &result.verdict {
        Some(verdict) => verdict.invalid.is_none(),
        None => !header.check,
    };
    HeldResult {
        proof_type: header.id.stage.proof_type.clone(),
        stage: header.id.stage.stage.clone(),
        index: header.id.index,
        of: header.of,
        is_completed: is_valid && matches!(result.outcome, Outcome::Completed { .. }),
    }
}
