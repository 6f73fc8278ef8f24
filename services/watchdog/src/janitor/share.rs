//! Decides which messages are orphaned and which participant exceeds its share. Pure.

use push0_bus::{Level, Place, Stream};
use push0_domain::{
    Participant, PipelineId,
    subject::{Kind, participant::Spoken},
};
use std::collections::BTreeMap;

/// The part of the blob store, in thousandths, that one participant may take up while the store is crowded.
pub const SHARE: u64 = 333;
/// Used thousandths above which the blob store is crowded. Only unnamed blobs are removed there, so the mark may be low.
pub const CROWDED_BLOBS_ABOVE: u64 = push0_bus::SWEEP_ABOVE;

/// Returns the participant with the most of a crowded place, if the part exceeds its share.
pub fn flooding<'a>(
    bytes: &'a BTreeMap<Participant, u64>,
    level: &Level,
    crowded_above: u64,
) -> Option<&'a Participant> {
    if level.permille() < crowded_above {
        return None;
    }
    let (who, most) = bytes.iter().max_by_key(|(_, bytes)| **bytes)?;
    (most.saturating_mul(1000) >= level.bytes_max.saturating_mul(SHARE)).then_some(who)
}

/// Returns the filter of removals with an orphaned message: all messages of its sender about the same
/// pipeline. `None` for a message of an existing pipeline.
pub fn junk(spoken: &Spoken, exists: impl Fn(&PipelineId) -> bool) -> Option<String> {
    match &spoken.pipeline {
        Some(pipeline) if exists(pipeline) => None,
        Some(pipeline) if spoken.has_more => Some(spoken.who.about(spoken.kind, pipeline)),
        _ => Some(spoken.subject.clone()),
    }
}

/// The places that participants fill, besides their leases, of which the broker keeps one each.
pub const PLACES: [Place; 3] = [
    Place::Blobs,
    Place::Stream(Stream::Results),
    Place::Stream(Stream::Checks),
];

/// The kinds of messages that participants store and services take by pipeline.
pub const KINDS: [Kind; 3] = [Kind::Result, Kind::Verdict, Kind::Check];

#[cfg(test)]
mod tests {
    use super::*;
    use push0_domain::subject::{ROOT, participant::spoken};

    fn who(name: &str) -> Participant {
        Participant {
            zkvm: "mock".parse().unwrap(),
            name: name.parse().unwrap(),
        }
    }

    fn level(bytes: u64) -> Level {
        Level {
            messages: 1,
            bytes,
            bytes_max: 1000,
        }
    }

    #[test]
    fn only_the_one_with_more_than_its_share_of_a_crowded_place_floods_it() {
        let bytes = BTreeMap::from([(who("a"), 400), (who("b"), 500)]);
        assert_eq!(flooding(&bytes, &level(960), 950), Some(&who("b")));
        assert_eq!(flooding(&bytes, &level(940), 950), None, "there is room");
        let fair = BTreeMap::from([(who("a"), 300), (who("b"), 330)]);
        assert_eq!(flooding(&fair, &level(990), 950), None);
        assert_eq!(flooding(&BTreeMap::new(), &level(990), 950), None);
    }

    #[test]
    fn what_names_no_pipeline_or_an_unknown_one_is_junk() {
        let exists = |name: &PipelineId| name.as_str() == "alpha";
        let junk = |rest: &str| {
            let found = junk(&spoken(&format!("{ROOT}.{rest}")).expect("a participant"), exists);
            found.map(|filter| filter.replacen(ROOT, "", 1))
        };
        assert_eq!(junk("result.mock.p0.alpha.7-00000000.p.prove.0.1"), None);
        let unknown = junk("result.mock.p0.nosuch.7-00000000.p.prove.0.1");
        assert_eq!(unknown.as_deref(), Some(".result.mock.p0.nosuch.>"));
        let short = junk("check.mock.p0.nosuch");
        assert_eq!(short.as_deref(), Some(".check.mock.p0.nosuch"));
        assert_eq!(junk("result.mock.p0").as_deref(), Some(".result.mock.p0"));
        assert!(spoken(&format!("{ROOT}.result.mock._.alpha.7-00000000.p.prove.0.1")).is_none());
    }
}
