//! Reading of block records from PROOFS, and values derived from them.

use crate::failure::Failure;
use crate::output;
use crate::table::{self, Align, NONE};
use push0_bus::{Bus, Kept, Stream};
use push0_domain::codec::CodecError;
use push0_domain::message::{Emission, EmissionOutcome, Proof};
use push0_domain::trace::TraceContext;
use push0_domain::{BlockRef, PipelineId, ProofType, ProverId, Timestamp, subject};
use push0_operate::outcome;
use serde::Serialize;
use std::collections::BTreeSet;

/// Maximum number of messages read in one scan.
const SCAN_MAX: usize = 1000;

/// Stored record of a block or range.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) emission: Emission,
    pub(crate) sequence: u64,
    pub(crate) stored_at: Timestamp,
    pub(crate) trace: TraceContext,
}

impl Record {
    /// Returns the record; `None` for an unreadable one, which is named on stderr.
    fn read(kept: Kept<Emission>) -> Option<Self> {
        let named = |error: &CodecError| {
            let text = format!(
                "passed over {} (sequence {}): {error}; `push0 repair` mends it",
                kept.subject, kept.sequence
            );
            output::note(&text);
        };
        let emission = kept.body.inspect_err(named).ok()?;
        Some(Self {
            emission,
            sequence: kept.sequence,
            stored_at: kept.stored_at,
            trace: kept.trace,
        })
    }

    /// Returns the proofs; empty if the block was not proved.
    pub(crate) fn proofs(&self) -> &[Proof] {
        match &self.emission.outcome {
            EmissionOutcome::Proved(proofs) => proofs,
            _ => &[],
        }
    }

    /// Returns whether the block was proved and each of its proofs was verified by a verifier, except those of
    /// the `unchecked` types, which the pipeline does not verify.
    pub(crate) fn is_verified(&self, unchecked: &BTreeSet<ProofType>) -> bool {
        let is_verified = |proof: &Proof| proof.verifier.is_some() || unchecked.contains(&proof.proof_type);
        !self.proofs().is_empty() && self.proofs().iter().all(is_verified)
    }

    /// Returns the orchestration overhead in microseconds.
    pub(crate) fn overhead_us(&self) -> i64 {
        self.emission.overhead_us(self.stored_at)
    }

    /// Returns the longest final-stage time among the block's proofs, in microseconds.
    pub(crate) fn prove_us(&self) -> Option<u64> {
        self.proofs().iter().map(|proof| proof.prove_us).max()
    }

    /// Returns the longest time in which one of the final stages read its inputs and stored its outputs, in
    /// microseconds.
    fn transfer_us(&self) -> Option<u64> {
        self.proofs().iter().map(|proof| proof.transfer_us).max()
    }

    fn verify_us(&self) -> Option<u64> {
        self.proofs()
            .iter()
            .filter(|p| p.verifier.is_some())
            .map(|proof| proof.verify_us)
            .max()
    }

    /// Returns the id of the block's trace.
    pub(crate) fn trace_id(&self) -> Option<&str> {
        trace_id(&self.trace)
    }
}

/// Returns the trace id in a `traceparent` header.
pub(crate) fn trace_id(trace: &TraceContext) -> Option<&str> {
    trace.traceparent.as_deref()?.split('-').nth(1)
}

/// Returns the newest record of a pipeline.
pub(crate) async fn newest(bus: &Bus, pipeline: &PipelineId) -> Result<Option<Record>, Failure> {
    let subjects = subject::proofs_of_pipeline(pipeline);
    match bus.last(Stream::Proofs, &subjects).await?.map(Record::read) {
        None => return Ok(None),
        Some(Some(newest)) => return Ok(Some(newest)),
        Some(None) => {}
    }
    // The newest message cannot be read: the readable record of the highest number is the newest but for amendments.
    let all = bus.subjects(Stream::Proofs, &subjects).await?;
    let numbers = all
        .iter()
        .filter_map(|(subject, _)| subject::number_of_proof(subject));
    for number in numbers.collect::<BTreeSet<u64>>().into_iter().rev() {
        if let Own::Record(record) = own(bus, pipeline, number).await? {
            return Ok(Some(*record));
        }
    }
    Ok(None)
}

/// The messages under a number.
enum Own {
    Record(Box<Record>),
    /// There are messages, and none of them can be read.
    Unreadable,
    Nothing,
}

/// Reads the newest readable record under a number.
async fn own(bus: &Bus, pipeline: &PipelineId, number: u64) -> Result<Own, Failure> {
    let subject = subject::proof(pipeline, number);
    let Some(kept) = bus.last(Stream::Proofs, &subject).await? else {
        return Ok(Own::Nothing);
    };
    let newest = match Record::read(kept) {
        Some(record) => Some(record),
        None => {
            let all = bus.scan(Stream::Proofs, &subject, 1, SCAN_MAX).await?;
            let readable = all.into_iter().filter(|kept| kept.body.is_ok());
            readable.last().and_then(Record::read)
        }
    };
    Ok(newest.map_or(Own::Unreadable, |record| Own::Record(Box::new(record))))
}

/// Returns the record of a block by number: its own record, or the record of its range.
pub(crate) async fn of_number(
    bus: &Bus,
    pipeline: &PipelineId,
    number: u64,
) -> Result<Option<Record>, Failure> {
    match own(bus, pipeline, number).await? {
        Own::Record(record) => return Ok(Some(*record)),
        Own::Unreadable => {
            return Err(Failure::failed(format!(
                "{pipeline}: the record of block {number} cannot be read"
            )));
        }
        Own::Nothing => {}
    }
    // A range is stored under the number of its last block, so the next higher number with a record
    // may cover this block.
    let all = bus
        .subjects(Stream::Proofs, &subject::proofs_of_pipeline(pipeline))
        .await?;
    let numbers = all
        .iter()
        .filter_map(|(subject, _)| subject::number_of_proof(subject));
    let above: BTreeSet<u64> = numbers.filter(|last| *last > number).collect();
    for last in above {
        let under = subject::proof(pipeline, last);
        let found = bus.scan(Stream::Proofs, &under, 1, SCAN_MAX).await?;
        let (mut covering, mut stands) = (None, false);
        for kept in found {
            let Some(record) = Record::read(kept) else {
                continue;
            };
            let mut standing = record.emission.standing.iter();
            stands |= standing.any(|standing| standing.block.number == number);
            covering = (record.emission.first.number <= number)
                .then_some(record)
                .or(covering);
        }
        // After a reorg cut a range, a newer record at a lower number lists the range's remaining blocks.
        // The record of the range itself is at a higher number.
        if covering.is_some() || !stands {
            return Ok(covering);
        }
    }
    Ok(None)
}

/// Returns the last `count` records, oldest first. Goes back by block number and stops at the first number
/// without a record. This takes one read per record, even if many other pipelines share the stream.
pub(crate) async fn tail(bus: &Bus, pipeline: &PipelineId, count: usize) -> Result<Vec<Record>, Failure> {
    tail_of(bus, pipeline, &Filter::default(), count).await
}

/// Records that are wanted: those that fit everything that is given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// The outcome in words, as tables show it.
    pub(crate) outcome: Option<String>,
    /// A prover or verifier of one of the block's proofs.
    pub(crate) prover: Option<ProverId>,
    /// The lowest block number.
    pub(crate) from: Option<u64>,
    /// The highest block number.
    pub(crate) to: Option<u64>,
}

impl Filter {
    /// Returns whether a record is wanted. A range is wanted if one of its blocks is.
    pub(crate) fn fits(&self, record: &Record) -> bool {
        let Emission { first, last, .. } = &record.emission;
        let is_by = |prover: &ProverId| {
            let proofs = record.proofs().iter();
            proofs
                .clone()
                .any(|proof| proof.prover == *prover || proof.verifier.as_ref() == Some(prover))
        };
        self.from.is_none_or(|from| last.number >= from)
            && self.to.is_none_or(|to| first.number <= to)
            && self.prover.as_ref().is_none_or(is_by)
            && self
                .outcome
                .as_ref()
                .is_none_or(|wanted| outcome(&record.emission.outcome) == *wanted)
    }
}

/// Returns the last `count` records that are wanted, oldest first, as [`tail`] reads them.
pub(crate) async fn tail_of(
    bus: &Bus,
    pipeline: &PipelineId,
    filter: &Filter,
    count: usize,
) -> Result<Vec<Record>, Failure> {
    let mut found = Vec::new();
    let mut next = match newest(bus, pipeline).await? {
        // The newest record amends an older one: the output ends at another number.
        Some(Record { emission, .. }) if emission.amends() => match emission.next.checked_sub(1) {
            Some(last) => at_or_below(bus, pipeline, last).await?,
            None => None,
        },
        newest => newest,
    };
    if let Some(to) = filter.to
        && next
            .as_ref()
            .is_some_and(|newest| newest.emission.first.number > to)
    {
        next = at_or_below(bus, pipeline, to).await?;
    }
    while let Some(record) = next.take() {
        let before = record.emission.first.number.checked_sub(1);
        let before = before.filter(|number| filter.from.is_none_or(|from| *number >= from));
        if filter.fits(&record) {
            found.push(record);
        }
        if let Some(number) = before.filter(|_| found.len() < count) {
            next = at_or_below(bus, pipeline, number).await?;
        }
    }
    found.truncate(count);
    found.reverse();
    Ok(found)
}

/// Returns the record of a block, or of the nearest block before it if its own cannot be read.
async fn at_or_below(bus: &Bus, pipeline: &PipelineId, mut number: u64) -> Result<Option<Record>, Failure> {
    while matches!(own(bus, pipeline, number).await?, Own::Unreadable) {
        let Some(before) = number.checked_sub(1) else {
            return Ok(None);
        };
        number = before;
    }
    of_number(bus, pipeline, number).await
}

/// Returns the records among the next [`SCAN_MAX`] messages from a sequence on, in stream order, and the sequence after
/// the last of them.
pub(crate) async fn from(
    bus: &Bus,
    pipeline: &PipelineId,
    sequence: u64,
) -> Result<(Vec<Record>, u64), Failure> {
    let subjects = subject::proofs_of_pipeline(pipeline);
    let found = bus.scan(Stream::Proofs, &subjects, sequence, SCAN_MAX).await?;
    let next = found.last().map_or(sequence, |last| last.sequence + 1);
    Ok((found.into_iter().filter_map(Record::read).collect(), next))
}

/// Columns of the table whose rows [`row`] returns.
pub(crate) const COLUMNS: [(&str, Align); 11] = [
    ("block", Align::Right),
    ("hash", Align::Left),
    ("txs", Align::Right),
    ("outcome", Align::Left),
    ("zkvm", Align::Left),
    ("proof bytes", Align::Right),
    ("prove ms", Align::Right),
    ("transfer ms", Align::Right),
    ("verify ms", Align::Right),
    ("overhead ms", Align::Right),
    ("verified by", Align::Left),
];

/// Returns a record as a row of a table.
pub(crate) fn row(record: &Record) -> Vec<String> {
    let Emission {
        first,
        last,
        facts,
        outcome: what,
        ..
    } = &record.emission;
    let proofs = record.proofs();
    let each = |text: &dyn Fn(&Proof) -> String| match proofs {
        [] => NONE.to_owned(),
        proofs => proofs.iter().map(text).collect::<Vec<_>>().join(","),
    };
    let optional_ms =
        |us: Option<u64>| us.map_or(NONE.into(), |us| table::ms(i64::try_from(us).unwrap_or(i64::MAX)));
    let number = numbers(first, last);
    let overhead = if proofs.is_empty() {
        NONE.into()
    } else {
        table::ms(record.overhead_us())
    };
    vec![
        number,
        table::short(&last.hash),
        facts.transactions.to_string(),
        outcome(what),
        each(&|proof| proof.zkvm.to_string()),
        each(&|proof| proof.bytes.to_string()),
        optional_ms(record.prove_us()),
        optional_ms(record.transfer_us()),
        optional_ms(record.verify_us()),
        overhead,
        each(&|proof| proof.verifier.as_ref().map_or("-".into(), ToString::to_string)),
    ]
}

/// Returns the block numbers of a record: `7`, or `7..9` for a range.
pub(crate) fn numbers(first: &BlockRef, last: &BlockRef) -> String {
    if first == last {
        last.number.to_string()
    } else {
        format!("{}..{}", first.number, last.number)
    }
}

/// A record as JSON: the emission and the values derived for tables.
#[derive(Debug, Serialize)]
pub(crate) struct RecordJson<'a> {
    sequence: u64,
    stored_at: Timestamp,
    overhead_us: i64,
    trace_id: Option<&'a str>,
    emission: &'a Emission,
}

impl<'a> From<&'a Record> for RecordJson<'a> {
    fn from(record: &'a Record) -> Self {
        Self {
            sequence: record.sequence,
            stored_at: record.stored_at,
            overhead_us: record.overhead_us(),
            trace_id: record.trace_id(),
            emission: &record.emission,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use push0_domain::message::BlockFacts;
    use push0_domain::{Announcement, BlockHash, Payload};

    pub(crate) fn record(number: u64, outcome: EmissionOutcome) -> Record {
        let block = BlockRef {
            number,
            hash: BlockHash([7; 32]),
        };
        let emission = Emission {
            pipeline: "demo".parse().unwrap(),
            first: block,
            last: block,
            hashes: Vec::new(),
            standing: Vec::new(),
            parent_hash: BlockHash([6; 32]),
            outcome,
            next: number + 1,
            announcement: Announcement(number),
            stored_at: Timestamp(1_000_000),
            busy_us: 2_000_000,
            facts: BlockFacts {
                transactions: 12,
                ..BlockFacts::default()
            },
        };
        let traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        let trace = TraceContext {
            traceparent,
            tracestate: None,
        };
        Record {
            emission,
            sequence: number + 1,
            stored_at: Timestamp(3_004_250),
            trace,
        }
    }

    pub(crate) fn proof(verifier: Option<&str>) -> Proof {
        Proof {
            proof_type: "miden".parse().unwrap(),
            zkvm: "miden".parse().unwrap(),
            program_id: None,
            prover: "miden-1".parse().unwrap(),
            verifier: verifier.map(|v| v.parse().unwrap()),
            payload: Payload::Inline(vec![1, 2, 3]),
            bytes: 3,
            prove_us: 1_990_000,
            transfer_us: 30_000,
            verify_us: 10_000,
            attempt: 1,
            signed: None,
        }
    }

    #[test]
    fn a_proved_block_is_a_row() {
        let record = record(41, EmissionOutcome::Proved(vec![proof(Some("miden-verifier-1"))]));
        let expected = [
            "41",
            "0x07070707",
            "12",
            "proved",
            "miden",
            "3",
            "1990.0",
            "30.0",
            "10.0",
            "4.3",
            "miden-verifier-1",
        ];
        assert_eq!(row(&record), expected);
        assert_eq!(record.trace_id(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert!(record.is_verified(&BTreeSet::new()));
    }

    #[test]
    fn a_filter_keeps_what_fits_everything() {
        let proved = record(41, EmissionOutcome::Proved(vec![proof(Some("v1"))]));
        let fits = |filter: Filter| filter.fits(&proved);
        let outcome = |words: &str| Filter {
            outcome: Some(words.into()),
            ..Filter::default()
        };
        let by = |id: &str| Filter {
            prover: Some(id.parse().unwrap()),
            ..Filter::default()
        };
        let between = |from, to| Filter {
            from: Some(from),
            to: Some(to),
            ..Filter::default()
        };
        assert!(fits(Filter::default()) && fits(outcome("proved")) && fits(by("miden-1")) && fits(by("v1")));
        assert!(fits(between(41, 41)) && !fits(between(42, 50)) && !fits(between(1, 40)));
        assert!(!fits(outcome("dead")) && !fits(by("miden-2")));
    }

    #[test]
    fn a_proof_without_a_verifier_is_not_verified() {
        let unverified = record(41, EmissionOutcome::Proved(vec![proof(Some("v")), proof(None)]));
        assert!(!unverified.is_verified(&BTreeSet::new()));
        assert!(unverified.is_verified(&BTreeSet::from(["miden".parse().unwrap()])));
        assert_eq!(row(&unverified).last().map(String::as_str), Some("v,-"));
    }

    #[test]
    fn a_block_without_a_proof_is_a_row_without_times() {
        let record = record(
            9,
            EmissionOutcome::Abandoned(push0_domain::message::EndReason::DeadlinePassed),
        );
        assert_eq!(
            row(&record),
            [
                "9",
                "0x07070707",
                "12",
                "too late",
                "-",
                "-",
                "-",
                "-",
                "-",
                "-",
                "-"
            ]
        );
        assert!(!record.is_verified(&BTreeSet::new()));
    }

    proptest! {
        #[test]
        fn overhead_and_busy_time_add_up_to_the_whole(
            stored in 0..u64::MAX / 4, took in 0..u64::MAX / 4, busy in 0..u64::MAX / 4,
        ) {
            let mut record = record(1, EmissionOutcome::Proved(Vec::new()));
            record.stored_at = Timestamp(stored + took);
            (record.emission.stored_at, record.emission.busy_us) = (Timestamp(stored), busy);
            prop_assert_eq!(i128::from(record.overhead_us()) + i128::from(busy), i128::from(took));
        }
    }
}
