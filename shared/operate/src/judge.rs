//! The troubles of a deployment: rules and words that `push0 status` and the gateway's page share. Pure: the time is
//! an argument.

use crate::room;
use push0_bus::{BusError, Lead, Level, Standing};
use push0_domain::{
    Timestamp, ZkvmId,
    message::{HeldQueue, Role},
};
use std::{collections::BTreeMap, time::Duration};

/// After how long without a record a pipeline with ingested blocks stands. The alert `EmissionStands` uses the same time.
pub const STANDS_AFTER: Duration = Duration::from_secs(300);
/// After how long without a renewal a role has no leader. A leader renews several times a second, and an election of the
/// stream of the fact pauses renewals for longer than a takeover takes.
const SILENT_AFTER: Duration = Duration::from_secs(3);

/// Returns the roles that pipelines need, given their names and whether an ingester has work for them.
pub fn roles<'a>(pipelines: impl IntoIterator<Item = (&'a str, bool)>) -> Vec<String> {
    let mut roles = vec!["dispatcher".to_owned(), "watchdog".to_owned()];
    for (name, is_ingested) in pipelines {
        if is_ingested {
            roles.push(format!("ingester.{name}"));
        }
        roles.push(format!("collector.{name}"));
    }
    roles
}

/// Returns whether the last renewal of a role is too old for a leader, if the clocks agree.
pub fn is_silent(lead: &Lead, now: Timestamp) -> bool {
    lead.renewed_at.is_none_or(|at| now.since(at) > SILENT_AFTER)
}

/// Returns the service of a role, and the pipeline for which it leads.
pub fn parts_of(role: &str) -> (&str, Option<&str>) {
    role.split_once('.')
        .map_or((role, None), |(service, pipeline)| (service, Some(pipeline)))
}

/// Says that a role, for which so many blocks wait, has no leader. `standbys` counts the processes
/// that wait for the role, where known.
pub fn leaderless(role: &str, waiting: u64, standbys: Option<usize>) -> String {
    let waits = match waiting {
        0 => String::new(),
        blocks => format!(", and {}", wait(blocks)),
    };
    let (service, _) = parts_of(role);
    let remedy = match (standbys, service) {
        (None, "ingester") => "no ingester reaches its source, or none runs".to_owned(),
        (None, _) => format!("start one {service}, or look at its log"),
        (Some(0), _) => format!("no {service} answers: start one, or look at its log"),
        // An ingester asks for the lead only while it reaches its source.
        (Some(count), "ingester") => format!("{}, and one leads once it reaches its source", stand_by(count)),
        (Some(count), _) => format!("{}, and one takes over within a second", stand_by(count)),
    };
    format!("no process leads as {role}{waits}; {remedy}")
}

fn stand_by(count: usize) -> String {
    match count {
        1 => "1 process stands by".to_owned(),
        count => format!("{count} processes stand by"),
    }
}

/// Says that the queue of a zkVM is held, for one task or for all.
pub fn held(zkvm: &ZkvmId, held: &HeldQueue) -> String {
    let error = held.error.lines().next().unwrap_or_default();
    match &held.task {
        None => format!(
            "the queue of zkVM {zkvm} has been held: no attempt has succeeded in that time. One task at a time is tried. \
             Last error: {error}"
        ),
        Some(task) => format!(
            "the queue of zkVM {zkvm} has been held for one task: {} alone fails, no other attempt has succeeded in that \
             time, and other tasks go on. Last error: {error}",
            task.task_in_words()
        ),
    }
}

/// Says that no prover, or no verifier, of a zkVM is heard that pipelines with so many blocks before their output need.
/// Which of these blocks wait for that zkVM is not known.
pub fn unserved(zkvm: &ZkvmId, role: Role, lags: &BTreeMap<&str, u64>) -> String {
    let name = match role {
        Role::Prover => "prover",
        Role::Verifier => "verifier",
    };
    let blocks = match lags.values().copied().fold(0, u64::saturating_add) {
        1 => "1 block".to_owned(),
        blocks => format!("{blocks} blocks"),
    };
    let lag = match lags.keys().collect::<Vec<_>>()[..] {
        [pipeline] => format!("pipeline {pipeline}, which needs one, lags by {blocks}"),
        ref pipelines => format!("{} pipelines that need one lag by {blocks}", pipelines.len()),
    };
    format!("no {name} of zkVM {zkvm} is heard, and {lag}: start one (`push0 provers` lists those heard)")
}

/// Returns since when an output stands: `lag` blocks wait, the next one was observed, and none was recorded since.
pub fn stands_since(
    lag: Option<u64>,
    next_observed_at: Option<Timestamp>,
    recorded_at: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    let since = next_observed_at?.max(recorded_at.unwrap_or_default());
    let is_long = lag.is_some_and(|lag| lag > 0) && now.since(since) >= STANDS_AFTER;
    is_long.then_some(since)
}

/// Says that a pipeline's output stands.
pub fn stands(name: &str, next: u64, lag: u64) -> String {
    let wait = wait(lag);
    format!(
        "pipeline {name} stands at block {next}, and {wait}: `push0 block {next} --pipeline {name}` says what for"
    )
}

fn wait(blocks: u64) -> String {
    match blocks {
        1 => "1 block waits".to_owned(),
        blocks => format!("{blocks} blocks wait"),
    }
}

/// Names the troubles of streams: the same trouble of several streams as one, then the waits for room.
pub fn streams(standings: &[(String, Result<Standing, BusError>)]) -> Vec<String> {
    let mut troubles = BTreeMap::<String, Vec<&str>>::new();
    let mut levels: Vec<(&str, Level)> = Vec::new();
    for (name, standing) in standings {
        let trouble = match standing {
            Ok(standing) => {
                levels.push((&standing.stream, standing.level));
                standing.trouble().map(|trouble| trouble.to_string())
            }
            Err(error) => Some(unanswered(error)),
        };
        if let Some(trouble) = trouble {
            troubles.entry(trouble).or_default().push(name);
        }
    }
    let told = troubles.iter().map(|(trouble, names)| match names.len() {
        count if count > 1 && count == standings.len() => format!("all {count} streams: {trouble}"),
        _ => format!("{}: {trouble}", names.join(", ")),
    });
    told.chain(room::waits(&levels)).collect()
}

/// Returns the trouble of a stream with unknown copies. Streams with the same reason are told as one, so their names stay out.
fn unanswered(error: &BusError) -> String {
    let reason = match error {
        BusError::Unavailable { reason, .. } => reason.clone(),
        other => other.to_string(),
    };
    format!("no answer about the copies ({reason}); most of the brokers may be away")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

    fn ago(seconds: u64) -> Timestamp {
        NOW.minus(Duration::from_secs(seconds))
    }

    #[test]
    fn an_output_stands_five_minutes_after_its_last_record_and_its_next_block() {
        let since = |lag, observed, recorded: Option<u64>| {
            stands_since(Some(lag), Some(ago(observed)), recorded.map(ago), NOW)
        };
        assert_eq!(since(1, 299, Some(1_000)), None);
        assert_eq!(since(1, 1_000, Some(299)), None);
        assert_eq!(since(1, 302, Some(301)), Some(ago(301)));
        assert_eq!(since(1, 301, None), Some(ago(301)));
        assert_eq!(since(0, 301, None), None);
        assert_eq!(stands_since(Some(1), None, Some(ago(900)), NOW), None);
        assert_eq!(stands_since(None, Some(ago(900)), None, NOW), None);
    }

    #[test]
    fn one_trouble_of_every_stream_is_told_without_their_names() {
        let away = || {
            let (what, reason) = ("stream".to_owned(), "request timed out".to_owned());
            Err(BusError::Unavailable { what, reason })
        };
        let of = |names: &[&str]| {
            let standings: Vec<_> = names.iter().map(|name| ((*name).to_owned(), away())).collect();
            streams(&standings)
        };
        assert!(of(&["A", "B"])[0].starts_with("all 2 streams: no answer"));
        assert!(of(&["A"])[0].starts_with("A: no answer"));
    }

    #[test]
    fn a_queue_held_for_one_task_names_the_task_and_says_that_others_go_on() {
        let of = |task: Option<&str>| {
            let queue = HeldQueue {
                since: NOW,
                failures: 5,
                error: "no key\nmore".into(),
                task: task.map(|task| task.to_owned().try_into().unwrap()),
            };
            held(&"vm".parse().unwrap(), &queue)
        };
        let one = of(Some("vm.demo.17-0a1b2c3d.main.prove.0.5"));
        assert!(
            one.contains("stage main.prove of block 17 of pipeline demo alone fails")
                && one.contains("other tasks go on"),
            "{one}"
        );
        let all = of(None);
        assert!(
            all.contains("One task at a time is tried. Last error: no key"),
            "{all}"
        );
        assert!(all.ends_with("no key") && one.ends_with("no key"));
    }

    #[test]
    fn a_role_is_named_with_what_waits_for_it_and_who_may_take_it() {
        assert_eq!(
            roles([("a", true), ("b", false)]),
            [
                "dispatcher",
                "watchdog",
                "ingester.a",
                "collector.a",
                "collector.b"
            ]
        );
        assert!(leaderless("dispatcher", 1, Some(0)).contains("1 block waits; no dispatcher answers"));
        assert!(
            leaderless("collector.a", 0, Some(2))
                .ends_with("collector.a; 2 processes stand by, and one takes over within a second")
        );
        assert!(leaderless("ingester.a", 2, None).contains("2 blocks wait; no ingester reaches its source"));
    }
}
