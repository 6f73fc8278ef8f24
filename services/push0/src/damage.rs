//! Stored state that cannot be read, and how each kind of it is mended.

use crate::failure::Failure;
use push0_bus::{Bucket, Bus, Facts, Stream, Unreadable};
use push0_domain::message::{Emission, HeldQueue, KnownBlock};
use push0_domain::pipeline::{Pipeline, Position, Reset};
use push0_domain::{BlockRef, PipelineId, Timestamp, subject};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A value that cannot be read.
pub(crate) struct Damage {
    /// What was expected.
    kind: &'static str,
    place: Place,
    there: Unreadable,
    mend: Mend,
}

#[derive(Clone, Copy)]
enum Place {
    Stream(Stream),
    Bucket(Bucket),
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Stream(stream) => stream.name(),
            Self::Bucket(bucket) => bucket.name(),
        }
    }
}

/// What takes the place of an unreadable value, with the effect.
enum Mend {
    Remove(&'static str),
    Put(Value, &'static str),
}

/// The cursor of an ingester, rebuilt from the facts about blocks. Other fields are lost.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Cursor {
    block: Option<BlockRef>,
    first: Option<u64>,
    ahead: Vec<BlockRef>,
}

/// A quarantine as the watchdog stores it.
#[derive(Serialize, Deserialize)]
struct Quarantine {
    until: Timestamp,
    times: u32,
    reason: String,
}

/// A leader's entry.
#[derive(Serialize, Deserialize)]
struct Holder {
    instance: String,
    renewal: u64,
}

/// Returns all stored state that cannot be read, of one pipeline or of all. Reads every value.
pub(crate) async fn find(bus: &Bus, of: Option<&PipelineId>) -> Result<Vec<Damage>, Failure> {
    let all = of.map_or(">".to_owned(), |name| format!("{name}.>"));
    let mut found = definitions(bus, &all).await?;
    found.extend(records(bus, of).await?);
    let effect = "its proofs cannot be verified until `push0 pipeline reset` announces the block again";
    found.extend(unreadable::<KnownBlock>(bus, Bucket::Blocks, &all, ("fact about a block", effect)).await?);
    found.extend(state(bus, of).await?);
    Ok(found)
}

async fn records(bus: &Bus, of: Option<&PipelineId>) -> Result<Vec<Damage>, Failure> {
    let subjects = match of {
        Some(name) => subject::proofs_of_pipeline(name),
        None => subject::all(subject::Kind::Proof),
    };
    let effect = "its block is emitted again from its results, unless an older record of it is there";
    let found = bus.unreadable::<Emission>(Stream::Proofs, &subjects).await?;
    Ok(found
        .into_iter()
        .map(|there| Damage {
            kind: "record",
            place: Place::Stream(Stream::Proofs),
            there,
            mend: Mend::Remove(effect),
        })
        .collect())
}

/// Returns the unreadable facts that services remember.
async fn state(bus: &Bus, of: Option<&PipelineId>) -> Result<Vec<Damage>, Failure> {
    let bucket = Bucket::State;
    let of_one = of.map_or("*", PipelineId::as_str);
    let mut found = Vec::new();
    let cursors = bus.facts::<Position>(bucket).await?;
    for there in cursors.sorted(&format!("cursor.ingester.{of_one}")).await?.1 {
        found.push(cursor(bus, there).await?);
    }
    let told = (
        "wish to go back",
        "the wish of an operator to go back is forgotten",
    );
    found.extend(unreadable::<Reset>(bus, bucket, &format!("reset.ingester.{of_one}"), told).await?);
    let leaders = of.map_or("leader.>".to_owned(), |name| format!("leader.*.{name}"));
    let told = (
        "leader",
        "the role is free; services overwrite such an entry as well",
    );
    found.extend(unreadable::<Holder>(bus, bucket, &leaders, told).await?);
    if of.is_none() {
        let told = ("cursor of a stage", "tasks that were released are released again");
        found.extend(unreadable::<u32>(bus, bucket, "cursor.dispatcher.*", told).await?);
        let told = ("quarantine", "the prover is not quarantined");
        found.extend(unreadable::<Quarantine>(bus, bucket, "quarantine.*.*", told).await?);
        let told = ("held queue", "the queue is not held until attempts fail again");
        found.extend(unreadable::<HeldQueue>(bus, bucket, &subject::facts::holds(), told).await?);
    }
    Ok(found)
}

/// Returns the facts of a bucket that are not of type `T`, to be removed.
async fn unreadable<T: Serialize + DeserializeOwned>(
    bus: &Bus,
    bucket: Bucket,
    filter: &str,
    (kind, effect): (&'static str, &'static str),
) -> Result<Vec<Damage>, Failure> {
    let facts: Facts<T> = bus.facts(bucket).await?;
    let found = facts.sorted(filter).await?.1;
    Ok(found
        .into_iter()
        .map(|there| Damage {
            kind,
            place: Place::Bucket(bucket),
            there,
            mend: Mend::Remove(effect),
        })
        .collect())
}

/// Returns the unreadable definitions. A current definition is restored from its newest readable revision, and that
/// revision from the current definition.
async fn definitions(bus: &Bus, filter: &str) -> Result<Vec<Damage>, Failure> {
    let facts: Facts<Pipeline> = bus.facts(Bucket::Pipelines).await?;
    let (readable, unreadable) = facts.sorted(filter).await?;
    let mut newest: BTreeMap<&str, &Pipeline> = BTreeMap::new();
    for (name, pipeline) in readable
        .iter()
        .filter_map(|fact| Some((fact.key.rsplit_once('.')?.0, fact.value.as_ref()?)))
    {
        let there = newest.entry(name).or_insert(pipeline);
        if pipeline.revision > there.revision {
            *there = pipeline;
        }
    }
    let mut found = Vec::new();
    for there in unreadable {
        let (name, revision) = there.name.rsplit_once('.').unwrap_or((&there.name, ""));
        let newest = newest.get(name).copied();
        let mend = match (newest, revision) {
            (Some(newest), "current") => Mend::Put(
                serde_json::to_value(newest)?,
                "the newest readable revision is current",
            ),
            (Some(newest), revision) if newest.revision.to_string() == revision => Mend::Put(
                serde_json::to_value(newest)?,
                "the revision is restored from the current definition",
            ),
            (_, "current") => {
                Mend::Remove("the pipeline has no definition until `push0 pipeline apply FILE`")
            }
            _ => Mend::Remove("blocks of this revision in flight end as dead letters"),
        };
        found.push(Damage {
            kind: "definition",
            place: Place::Bucket(Bucket::Pipelines),
            there,
            mend,
        });
    }
    Ok(found)
}

/// Rebuilds the cursor of an ingester from the facts about its blocks.
async fn cursor(bus: &Bus, there: Unreadable) -> Result<Damage, Failure> {
    let pipeline = there
        .name
        .rsplit_once('.')
        .and_then(|(_, name)| name.parse::<PipelineId>().ok());
    let known = match &pipeline {
        Some(name) => {
            let facts: Facts<KnownBlock> = bus.facts(Bucket::Blocks).await?;
            let mut known = facts.sorted(&format!("{name}.>")).await?.0;
            known.sort_by_key(|fact| fact.revision);
            known.into_iter().filter_map(|fact| fact.value).collect()
        }
        None => Vec::new(),
    };
    let mend = if known.is_empty() {
        Mend::Remove("the pipeline begins anew as its source says")
    } else {
        Mend::Put(
            serde_json::to_value(rebuilt(&known))?,
            "rebuilt from the facts about its blocks; a file is read again from its first line",
        )
    };
    Ok(Damage {
        kind: "cursor of an ingester",
        place: Place::Bucket(Bucket::State),
        there,
        mend,
    })
}

/// Returns the cursor that follows from facts about blocks, in the order in which they were written. An ingester
/// writes the facts of a few blocks, then publishes them. So the blocks written after the newest announcement that any
/// fact knows are in doubt, and all others were published.
fn rebuilt(known: &[KnownBlock]) -> Cursor {
    let last = known.iter().map(|known| known.announced_after).max();
    let (mut published, mut doubtful) = (BTreeMap::new(), BTreeMap::new());
    for known in known {
        let number = known.block.number;
        if Some(known.announced_after) == last {
            doubtful.insert(number, known.block);
        } else {
            published.insert(number, known.block);
        }
    }
    if let Some(from) = doubtful.keys().next().copied() {
        published.split_off(&from);
    }
    Cursor {
        block: published.into_values().next_back(),
        first: known.iter().map(|known| known.block.number).min(),
        ahead: doubtful.into_values().collect(),
    }
}

impl Damage {
    /// Puts the replacement in the place of the value, unless another process was faster.
    pub(crate) async fn mend(&self, bus: &Bus) -> Result<(), Failure> {
        let (key, revision) = (&self.there.name, self.there.sequence);
        match (self.place, &self.mend) {
            (Place::Stream(stream), _) => bus.remove(stream, revision).await?,
            (Place::Bucket(bucket), Mend::Put(value, _)) => {
                bus.facts::<Value>(bucket)
                    .await?
                    .swap(key, value, revision)
                    .await?;
            }
            (Place::Bucket(bucket), Mend::Remove(_)) => {
                bus.facts::<Value>(bucket).await?.delete_at(key, revision).await?;
            }
        }
        Ok(())
    }

    pub(crate) fn to_json(&self) -> Value {
        let effect = match &self.mend {
            Mend::Remove(effect) | Mend::Put(_, effect) => effect,
        };
        let put = match &self.mend {
            Mend::Put(value, _) if !matches!(self.place, Place::Bucket(Bucket::Pipelines)) => Some(value),
            _ => None,
        };
        json!({
            "expected": self.kind,
            "where": self.place.name(),
            "name": self.there.name,
            "sequence": self.there.sequence,
            "stored_at": self.there.stored_at,
            "reason": self.there.reason.to_string(),
            "headers": self.there.headers,
            "body_hex": hex::encode(&self.there.body),
            "put": put,
            "effect": effect,
        })
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Unreadable {
            name,
            sequence,
            reason,
            ..
        } = &self.there;
        let place = self.place.name();
        writeln!(
            f,
            "{place} {name} (sequence {sequence}): expected a {}: {reason}",
            self.kind
        )?;
        match &self.mend {
            Mend::Remove(effect) => write!(f, "  to remove: {effect}"),
            Mend::Put(_, effect) => write!(f, "  to replace: {effect}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use push0_domain::message::BlockFacts;
    use push0_domain::{Announcement, BlockHash};

    fn known(number: u64, branch: u8, after: u64) -> KnownBlock {
        KnownBlock {
            block: block(number, branch),
            parent_hash: BlockHash([branch; 32]),
            revision: 1,
            observed_at: Timestamp(0),
            announced_after: Announcement(after),
            input: None,
            facts: BlockFacts::default(),
        }
    }

    fn block(number: u64, branch: u8) -> BlockRef {
        BlockRef {
            number,
            hash: BlockHash([branch; 32]),
        }
    }

    #[test]
    fn a_rebuilt_cursor_doubts_the_blocks_written_last() {
        let cursor = rebuilt(&[known(3, 0, 7), known(4, 0, 8), known(5, 0, 9), known(6, 0, 9)]);
        assert_eq!(cursor.block, Some(block(4, 0)));
        assert_eq!(
            (cursor.first, cursor.ahead),
            (Some(3), vec![block(5, 0), block(6, 0)])
        );
    }

    #[test]
    fn a_rebuilt_cursor_lies_before_the_fork_of_a_reorg_in_doubt() {
        let cursor = rebuilt(&[known(3, 0, 7), known(4, 0, 8), known(5, 0, 8), known(4, 1, 9)]);
        assert_eq!(
            (cursor.block, cursor.ahead),
            (Some(block(3, 0)), vec![block(4, 1)])
        );
    }
}
