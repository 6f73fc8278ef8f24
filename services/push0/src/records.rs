//! Reading of block records from PROOFS.

use crate::failure::Failure;
use crate::record::{Filter, Record};
use push0_bus::{Bus, Stream};
use push0_domain::{PipelineId, subject};
use std::collections::BTreeSet;

/// Maximum number of messages read in one scan.
const SCAN_MAX: usize = 1000;

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
                "{pipeline}: the record of block {number} cannot be read; `push0 repair` mends it"
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

/// Returns the number at which the output goes on, if it goes on at this block or before it: then a record of the block
/// is of a chain that was replaced.
pub(crate) async fn replaced_from(
    bus: &Bus,
    pipeline: &PipelineId,
    number: u64,
) -> Result<Option<u64>, Failure> {
    let next = newest(bus, pipeline).await?.map(|record| record.emission.next);
    Ok(next.filter(|next| *next <= number))
}

/// Returns the last `count` records, oldest first. Goes back by block number and stops at the first number
/// without a record. This takes one read per record, even if many other pipelines share the stream.
pub(crate) async fn tail(bus: &Bus, pipeline: &PipelineId, count: usize) -> Result<Vec<Record>, Failure> {
    tail_of(bus, pipeline, &Filter::default(), count).await
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
