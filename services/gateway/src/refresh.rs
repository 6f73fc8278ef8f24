//! Reads what no message tells of: definitions, outputs, held queues, fill levels.

use crate::{
    model::{Output, Reading},
    view::StreamLevel,
};
use push0_bus::{Bucket, Bus, BusError, Pipelines, Stream};
use push0_domain::{
    PipelineId,
    pipeline::Position,
    subject::{self, Kind},
};
use push0_operate::holds;
use std::collections::HashMap;

/// Reads everything once. Facts and records that cannot be read are left out: `push0 status` names them.
pub(crate) async fn read(bus: &Bus, pipelines: &Pipelines) -> Result<Reading, BusError> {
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
    reading.holds = holds::list(bus).await?.0.into_iter().collect();
    for (name, standing) in bus.standings().await {
        let level = standing?.level;
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

async fn output(bus: &Bus, name: &PipelineId) -> Result<Output, BusError> {
    let next = match bus.output(name).await {
        Ok(output) => output.map(|(output, _)| output.next()),
        Err(error) if error.is_damage() => None,
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
    })
}
