//! `push0 provers`: the work that each prover and verifier has done, its times, and the work in hand.

use crate::context::Context;
use crate::failure::Failure;
use crate::record::Record;
use crate::records;
use crate::status::LOST_AFTER;
use crate::table::{self, Align, NONE};
use crate::watch::{self, Watch};
use crate::{audit::percentile, leases, output};
use clap::Args;
use push0_bus::{Bus, Pipelines, now};
use push0_domain::message::{Dead, DeadLetter, Lease, Role};
use push0_operate::letters;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// How many deliveries of a prover are named.
const NAMED_MAX: usize = 3;

#[derive(Args, Debug)]
pub(crate) struct ProversArgs {
    /// Number of newest records of each pipeline from which done work is counted.
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    last: u32,
    #[command(flatten)]
    watch: Watch,
}

/// Work of a prover or verifier, as records and dead letters tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Times of the attempts in records, in microseconds.
    took: Vec<i64>,
    failed: usize,
}

/// A prover or verifier.
#[derive(Debug, Serialize)]
struct Row {
    id: String,
    zkvm: String,
    role: Role,
    /// How many proofs in the records it made, or verified.
    done: usize,
    /// How many of its attempts are in dead letters.
    failed: usize,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
    heard_ms_ago: u64,
    /// The attempts in hand.
    now: Vec<String>,
}

/// A name and whether it verifies: a prover and a verifier may have the same name.
type Who = (String, bool);

pub(crate) async fn run(context: &Context, args: &ProversArgs) -> Result<(), Failure> {
    let bus = context.bus().await?;
    let look = async || text(context, &look(&bus, args.last as usize).await?);
    if args.watch.is_on() {
        return watch::repeat(context, &args.watch, look).await;
    }
    output::text(context.json, &look().await?)
}

async fn look(bus: &Bus, last: usize) -> Result<Vec<Row>, Failure> {
    let mut found = Vec::new();
    for pipeline in Pipelines::bind(bus).await?.current().await? {
        found.extend(records::tail(bus, &pipeline.name, last).await?);
    }
    let mut dead = Vec::new();
    for place in letters::list(bus, None).await? {
        let kept = letters::read(bus, &place).await?;
        dead.extend(kept.and_then(|kept| kept.body.ok()));
    }
    let mut tallies = tally(&found, &dead);
    let mut rows = Vec::new();
    for kept in leases::newest(bus).await? {
        let heard = now().since(kept.stored_at);
        let Ok(lease) = kept.body else { continue };
        let tally = tallies.remove(&(lease.prover.to_string(), lease.role == Role::Verifier));
        rows.push(row(&lease, tally.unwrap_or_default(), heard));
    }
    rows.sort_by(|a, b| (&a.zkvm, &a.id).cmp(&(&b.zkvm, &b.id)));
    Ok(rows)
}

/// Counts the proofs in records, and the failed attempts in dead letters.
fn tally(records: &[Record], dead: &[DeadLetter]) -> BTreeMap<Who, Tally> {
    let mut tallies: BTreeMap<Who, Tally> = BTreeMap::new();
    let mut took = |id: String, verifies: bool, micros: u64| {
        let tally = tallies.entry((id, verifies)).or_default();
        tally.took.push(i64::try_from(micros).unwrap_or(i64::MAX));
    };
    for proof in records.iter().flat_map(Record::proofs) {
        took(proof.prover.to_string(), false, proof.prove_us);
        if let Some(verifier) = &proof.verifier {
            took(verifier.to_string(), true, proof.verify_us);
        }
    }
    for letter in dead {
        let Dead::Task { history, .. } = &letter.what else {
            continue;
        };
        for attempt in history {
            let who = (attempt.prover.to_string(), false);
            tallies.entry(who).or_default().failed += 1;
        }
    }
    tallies
}

fn row(lease: &Lease, mut tally: Tally, heard: Duration) -> Row {
    let mut of = |percent| percentile(&mut tally.took, percent).map(|us| us as f64 / 1000.0);
    let (p50_ms, p95_ms) = (of(50), of(95));
    let is_silent = heard > LOST_AFTER;
    let held = lease.held.iter().map(|held| {
        let state = if is_silent {
            // The prover may have ended, and another one may have the attempt by now.
            "when last heard".to_owned()
        } else {
            progress(held.running_ms, held.progress_permille)
        };
        format!("{} ({state})", held.header.id)
    });
    Row {
        id: lease.prover.to_string(),
        zkvm: lease.zkvm.to_string(),
        role: lease.role,
        done: tally.took.len(),
        failed: tally.failed,
        p50_ms,
        p95_ms,
        heard_ms_ago: u64::try_from(heard.as_millis()).unwrap_or(u64::MAX),
        now: held.collect(),
    }
}

/// Returns how long an attempt has run, and how far it is.
fn progress(running_ms: Option<u64>, permille: Option<u16>) -> String {
    let running = running_ms.map_or("waits".to_owned(), |ms| table::span(Duration::from_millis(ms)));
    permille.map_or(running.clone(), |permille| {
        format!("{running}, {} %", permille / 10)
    })
}

fn text(context: &Context, rows: &[Row]) -> Result<String, Failure> {
    if context.json {
        return Ok(serde_json::to_string(rows)?);
    }
    if rows.is_empty() {
        return Ok(
            "no prover was heard in the last hour: start one with PUSH0_PROVER__ID and PUSH0_PROVER__ZKVM"
                .into(),
        );
    }
    let columns = [
        ("prover", Align::Left),
        ("zkvm", Align::Left),
        ("role", Align::Left),
        ("done", Align::Right),
        ("failed", Align::Right),
        ("p50 ms", Align::Right),
        ("p95 ms", Align::Right),
        ("heard", Align::Right),
        ("now", Align::Left),
    ];
    let ms = |ms: Option<f64>| ms.map_or(NONE.to_owned(), |ms| format!("{ms:.1}"));
    let cells = |row: &Row| {
        vec![
            row.id.clone(),
            row.zkvm.clone(),
            match row.role {
                Role::Prover => "prover".into(),
                Role::Verifier => "verifier".into(),
            },
            row.done.to_string(),
            row.failed.to_string(),
            ms(row.p50_ms),
            ms(row.p95_ms),
            format!("{} ago", table::span(Duration::from_millis(row.heard_ms_ago))),
            doing(&row.now),
        ]
    };
    Ok(table::render(
        &columns,
        &rows.iter().map(cells).collect::<Vec<_>>(),
    ))
}

/// Returns the first deliveries, and how many more there are.
fn doing(now: &[String]) -> String {
    match now.len() {
        0 => NONE.to_owned(),
        count if count <= NAMED_MAX => now.join(", "),
        count => format!("{} and {} more", now[..NAMED_MAX].join(", "), count - NAMED_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{proof, record};
    use push0_domain::message::EmissionOutcome;

    #[test]
    fn records_tell_what_provers_and_verifiers_have_done() {
        let proved = record(7, EmissionOutcome::Proved(vec![proof(Some("v1"))]));
        let tallies = tally(&[proved.clone(), proved], &[]);
        let of = |id: &str, verifies| {
            tallies
                .get(&(id.to_owned(), verifies))
                .cloned()
                .unwrap_or_default()
        };
        assert_eq!(of("miden-1", false).took, [1_990_000; 2]);
        assert_eq!(of("v1", true).took, [10_000; 2]);
        assert_eq!(of("v1", false), Tally::default());
    }

    #[test]
    fn a_prover_with_many_deliveries_fits_a_line() {
        let now: Vec<String> = (0..5).map(|n| n.to_string()).collect();
        assert_eq!(doing(&now), "0, 1, 2 and 2 more");
        assert_eq!((doing(&now[..2]), doing(&[])), ("0, 1".into(), "-".into()));
    }
}
