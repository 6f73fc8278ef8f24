//! Reads what no message tells of: definitions, outputs, held queues, fill levels.

use crate::{
    model::{Output, Reading},
    view::StreamLevel,
};
use push0_bus::{Bucket, Bus, BusError, Pipelines, Standing, Stream};
use push0_domain::{
    PipelineId,
    pipeline::{Position, Source},
    subject::{self, Kind},
};
use push0_operate::{holds, judge};
use std::collections::HashMap;

/// Reads everything once, of the pipelines of these names also whether they are over. Facts and records that cannot be read
/// are left out: `push0 status` names them.
pub(crate) async fn read(
    bus: &Bus,
    pipelines: &Pipelines,
    known: Vec<PipelineId>,
) -> Result<Reading, BusError> {
    let mut reading = Reading::default();
    let waiting = bus.subjects(Stream::Blocks, &subject::all(Kind::Block)).await?;
    let waiting: HashMap<String, usize> = waiting.into_iter().collect();
    for definition in pipelines.current().await? {
        let mut output = output(bus, &definition.name).await?;
        // The dispatcher acknowledges a block when the first task of each proof is released.
        let blocks = waiting.get(&subject::block(&definition.name));
        output.waiting = blocks.map_or(0, |count| *count as u64);
        reading.pipelines.push((definition, output));
    }
    reading.over = over(bus, &reading, known).await?;
    let current = reading.pipelines.iter();
    let names =
        current.map(|(definition, _)| (definition.name.as_str(), definition.source != Source::External));
    for role in judge::roles(names) {
        let lead = bus.lead(&role).await?;
        reading.leads.push((role, lead));
    }
    reading.holds = holds::list(bus).await?.0.into_iter().collect();
    let standings = bus.standings().await;
    reading.troubles = judge::streams(&standings);
    for (name, standing) in standings {
        let Ok(Standing { level, made_at, .. }) = standing else {
            continue;
        };
        if name == Stream::Proofs.name() {
            reading.made_at = Some(made_at);
        }
        reading.streams.push(StreamLevel {
            name,
            messages: level.messages,
            bytes: level.bytes,
            bytes_max: level.bytes_max,
        });
    }
    let letters = bus.level(Stream::Dead).await?.messages;
    reading.letters = usize::try_from(letters).unwrap_or(usize::MAX);
    Ok(reading)
}

/// Returns those of the known pipelines that are removed, and of which no block is in flight.
async fn over(bus: &Bus, reading: &Reading, known: Vec<PipelineId>) -> Result<Vec<PipelineId>, BusError> {
    let mut over = Vec::new();
    for name in known {
        let mut current = reading.pipelines.iter();
        if current.any(|(definition, _)| definition.name == name) {
            continue;
        }
        match bus.in_flight(&name).await {
            Ok(0) => over.push(name),
            Ok(_) => {}
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(over)
}

async fn output(bus: &Bus, name: &PipelineId) -> Result<Output, BusError> {
    let (next, is_damaged) = match bus.output(name).await {
        Ok(output) => (output.map(|(output, _)| output.next()), false),
        Err(error) if error.is_damage() => (None, true),
        Err(error) => return Err(error),
    };
    let cursors = bus.facts::<Position>(Bucket::State).await?;
    let cursor = cursors.look(&Position::key(name)).await?;
    let position = cursor.and_then(Result::ok).and_then(|fact| fact.value);
    let first = position.as_ref().and_then(|position| position.first);
    let head = position.and_then(|position| position.block);
    Ok(Output {
        next: next.or(first),
        head: head.map(|block| block.number),
        waiting: 0,
        is_damaged,
    })
}
