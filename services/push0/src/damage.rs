//! Stored state that cannot be read or is lost, and how each kind of it is mended.

use crate::failure::Failure;
use push0_bus::{Bucket, Bus, Fact, Facts, Stream, Unreadable};
use push0_domain::codec::CodecError;
use push0_domain::message::{Emission, HeldQueue, KnownBlock};
use push0_domain::pipeline::{Pipeline, Position, Reset};
use push0_domain::{BlockRef, PipelineId, Timestamp, subject};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A value that cannot be read, or a revision that is lost.
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
    /// Only an operator knows what was there.
    ByHand(&'static str),
}

/// How a revision is mended that no other definition equals.
const REVISION_BY_HAND: &str =
    "blocks of this revision wait until `push0 pipeline apply FILE --revision N` puts the revision back";

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

/// Returns the unreadable definitions and the lost revisions. A current definition is restored from its newest readable
/// revision, and that revision from the current definition.
async fn definitions(bus: &Bus, filter: &str) -> Result<Vec<Damage>, Failure> {
    let facts: Facts<Pipeline> = bus.facts(Bucket::Pipelines).await?;
    let (readable, mut damaged) = facts.sorted(filter).await?;
    for key in lost(&readable, &damaged) {
        damaged.push(Unreadable {
            sequence: facts.get(&key).await?.map_or(0, |fact| fact.revision),
            name: key,
            stored_at: Timestamp(0),
            reason: CodecError::Refused("the revision was applied, and is gone".into()),
            headers: Vec::new(),
            body: Vec::new(),
        });
    }
    let newest = |name: &str| {
        let of_name = readable.iter().filter(|fact| name_of(&fact.key) == name);
        of_name
            .filter_map(|fact| fact.value.as_ref())
            .max_by_key(|pipeline| pipeline.revision)
    };
    let mend = |there: &Unreadable| {
        let (name, revision) = there.name.rsplit_once('.').unwrap_or((&there.name, ""));
        let put = |pipeline, effect| serde_json::to_value(pipeline).map(|value| Mend::Put(value, effect));
        match (newest(name), revision) {
            (Some(newest), "current") => put(newest, "the newest readable revision is current"),
            (Some(newest), revision) if newest.revision.to_string() == revision => {
                put(newest, "the revision is restored from the current definition")
            }
            (None, "current") => Ok(Mend::Remove(
                "the pipeline has no definition until `push0 pipeline apply FILE`",
            )),
            _ => Ok(Mend::ByHand(REVISION_BY_HAND)),
        }
    };
    let damaged = damaged.into_iter().map(|there| {
        Ok(Damage {
            kind: "definition",
            place: Place::Bucket(Bucket::Pipelines),
            mend: mend(&there)?,
            there,
        })
    });
    damaged.collect()
}

fn name_of(key: &str) -> &str {
    key.rsplit_once('.').map_or(key, |(name, _)| name)
}

/// Returns the keys of the revisions below the highest one of their pipeline that are neither readable nor unreadable, and
/// of current definitions whose revision is gone.
fn lost(readable: &[Fact<Pipeline>], unreadable: &[Unreadable]) -> Vec<String> {
    let there = readable.iter().map(|fact| &*fact.key);
    let there: BTreeSet<&str> = there.chain(unreadable.iter().map(|fact| &*fact.name)).collect();
    let mut highest: BTreeMap<&str, u32> = BTreeMap::new();
    for fact in readable {
        let revision = fact.value.as_ref().map_or(0, |pipeline| pipeline.revision);
        let known = highest.entry(name_of(&fact.key)).or_default();
        *known = revision.max(*known);
    }
    let all = highest.into_iter();
    let all = all.flat_map(|(name, last)| (1..=last).map(move |revision| format!("{name}.{revision}")));
    all.filter(|key| !there.contains(&**key)).collect()
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
            (_, Mend::ByHand(_)) => {}
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

    /// Returns whether only an operator can mend the damage.
    pub(crate) fn is_by_hand(&self) -> bool {
        matches!(self.mend, Mend::ByHand(_))
    }

    pub(crate) fn to_json(&self) -> Value {
        let effect = match &self.mend {
            Mend::Remove(effect) | Mend::Put(_, effect) | Mend::ByHand(effect) => effect,
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
            Mend::ByHand(effect) => write!(f, "  by hand: {effect}"),
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
