//! `push0 report`: prints the acceptance report of a run.

use crate::audit::{Audit, percentile};
use crate::context::Context;
use crate::failure::Failure;
use crate::options::Of;
use crate::progress::Progress;
use crate::record::{self, Record};
use crate::records;
use crate::{output, probe, table};
use clap::Args;
use push0_bus::{Bus, Pipelines};
use push0_domain::{PipelineId, ProofType, message::Emission, pipeline::Verify};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;
use tokio::time::Instant;

/// Poll interval while the report waits for records.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    of: Of,
    /// Number of blocks that must be emitted. The report covers the newest N.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    blocks: u32,
    /// Time to wait for these blocks.
    #[arg(long, default_value = "10m", value_name = "DURATION")]
    wait: humantime::Duration,
}

/// The report as JSON, printed as the last line of output.
#[derive(Debug, Serialize)]
struct Report {
    blocks: u32,
    emitted: usize,
    proved: usize,
    verified: usize,
    unchecked: usize,
    missing: u64,
    inversions: usize,
    duplicates: usize,
    overhead_ms_p50: Option<f64>,
    overhead_ms_p99: Option<f64>,
    prove_ms_p50: Option<f64>,
    prove_ms_p99: Option<f64>,
    rss_mb: BTreeMap<String, f64>,
    complaints: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: &ReportArgs) -> Result<(), Failure> {
    let until = Instant::now() + *args.wait;
    let bus = context.broker_within(*args.wait).await?;
    patiently(until, async || Ok(bus.check_provisioned().await?)).await?;
    let pipeline = patiently(until, async || context.pipeline(&bus, &args.of).await).await?;
    let unchecked = patiently(until, async || unchecked(&bus, &pipeline).await).await?;
    let mut found = collect(&bus, &pipeline, args, until).await?;
    // Later records belong to the next report.
    found.truncate(cut(&found, args.blocks as usize));
    let audit = Audit::of(&found, &unchecked);
    let report = Report::new(args.blocks, &audit, &found, resident(context).await);
    if !context.json {
        let rows: Vec<Vec<String>> = found.iter().map(record::row).collect();
        output::line(&table::render(&record::COLUMNS, &rows))?;
    }
    output::json(&report)?;
    match report.complaints.is_empty() {
        true => Ok(()),
        false => Err(Failure::failed(format!(
            "{pipeline}: {}",
            report.complaints.join(", ")
        ))),
    }
}

/// Reads until the broker answers or the time is over: the broker may restart during a long wait.
async fn patiently<T>(until: Instant, read: impl AsyncFn() -> Result<T, Failure>) -> Result<T, Failure> {
    loop {
        match read().await {
            Err(failure) if failure.is_brokers_absence() && Instant::now() < until => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            answer => return answer,
        }
    }
}

/// Waits until enough blocks are emitted or the time is over, and returns the records. Prints each
/// record's outcome to stderr.
async fn collect(
    bus: &Bus,
    pipeline: &PipelineId,
    args: &ReportArgs,
    until: Instant,
) -> Result<Vec<Record>, Failure> {
    let wanted = args.blocks as usize;
    // The scan starts at the oldest of the newest records and follows the stream, so that records out of
    // order after that point are found too.
    let tail = patiently(until, async || records::tail(bus, pipeline, wanted).await).await?;
    let enough = emitted(&tail) >= wanted;
    let mut next = if enough {
        tail.iter().map(|r| r.sequence).min().unwrap_or(1)
    } else {
        1
    };
    let mut found: Vec<Record> = Vec::new();
    let progress = Progress::towards(wanted as u64, &format!("{pipeline}: blocks emitted"));
    loop {
        let (new, after) = match records::from(bus, pipeline, next).await {
            Ok(found) => found,
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => (Vec::new(), next),
        };
        if after > next {
            next = after;
            for record in &new {
                let outcome = push0_operate::outcome(&record.emission.outcome);
                let Emission { first, last, .. } = &record.emission;
                let numbers = record::numbers(first, last);
                output::note(&format!("{pipeline}: block {numbers} is {outcome}"));
            }
            found.extend(new);
            progress.at(emitted(&found) as u64);
        } else if emitted(&found) >= wanted || Instant::now() >= until {
            return Ok(found);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn emitted(records: &[Record]) -> usize {
    Audit::of(records, &BTreeSet::new()).emitted
}

/// Returns the types of proofs that the pipeline does not verify.
async fn unchecked(bus: &Bus, pipeline: &PipelineId) -> Result<BTreeSet<ProofType>, Failure> {
    let current = Pipelines::bind(bus).await?.current_of(pipeline).await?;
    let proofs = current.iter().flat_map(|definition| &definition.proofs);
    let unchecked = proofs.filter(|proof| proof.verify == Verify::Off);
    Ok(unchecked.map(|proof| proof.proof_type.clone()).collect())
}

/// Returns the number of records up to the one that completes `wanted` blocks, plus records right after it
/// that repeat these blocks.
fn cut(found: &[Record], wanted: usize) -> usize {
    let mut numbers = HashSet::new();
    let last = found.iter().position(|record| {
        if record.emission.amends() {
            return false;
        }
        numbers.extend(record.emission.first.number..=record.emission.last.number);
        numbers.len() >= wanted
    });
    let Some(enough) = last.map(|last| last + 1) else {
        return found.len();
    };
    let highest = found[..enough]
        .iter()
        .map(|r| r.emission.last.number)
        .max()
        .unwrap_or(0);
    let rest = found[enough..]
        .iter()
        .take_while(|r| r.emission.first.number <= highest)
        .count();
    enough + rest
}

async fn resident(context: &Context) -> BTreeMap<String, f64> {
    let mut resident = BTreeMap::new();
    for service in context
        .endpoint()
        .map_or(Vec::new(), |endpoint| endpoint.services)
    {
        if let Some(bytes) = probe::resident_bytes(service.address).await {
            resident.insert(service.name, (bytes / 1e5).round() / 10.0);
        }
    }
    resident
}

impl Report {
    fn new(blocks: u32, audit: &Audit, found: &[Record], rss_mb: BTreeMap<String, f64>) -> Self {
        let proved = || found.iter().filter(|record| !record.proofs().is_empty());
        let mut overhead: Vec<i64> = proved()
            .filter_map(Record::overhead_us)
            .filter_map(|us| i64::try_from(us).ok())
            .collect();
        let mut prove: Vec<i64> = proved()
            .filter_map(Record::prove_us)
            .filter_map(|us| i64::try_from(us).ok())
            .collect();
        let ms = |us: Option<i64>| us.map(|us| us as f64 / 1000.0);
        Self {
            blocks,
            emitted: audit.emitted,
            proved: audit.proved,
            verified: audit.verified,
            unchecked: audit.unchecked,
            missing: audit.missing,
            inversions: audit.inversions,
            duplicates: audit.duplicates,
            overhead_ms_p50: ms(percentile(&mut overhead, 50)),
            overhead_ms_p99: ms(percentile(&mut overhead, 99)),
            prove_ms_p50: ms(percentile(&mut prove, 50)),
            prove_ms_p99: ms(percentile(&mut prove, 99)),
            rss_mb,
            complaints: audit.complaints(blocks as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{proof, record};
    use push0_domain::message::EmissionOutcome;

    fn proved(numbers: &[u64]) -> Vec<Record> {
        let outcome = EmissionOutcome::Proved(vec![proof(Some("v"))]);
        numbers
            .iter()
            .map(|number| record(*number, outcome.clone()))
            .collect()
    }

    #[test]
    fn a_report_is_about_as_many_blocks_as_were_asked_for() {
        assert_eq!(cut(&proved(&[1, 2, 3, 4, 5]), 3), 3);
        assert_eq!(cut(&proved(&[1, 2, 2, 3, 3, 4]), 3), 5);
        assert_eq!(cut(&proved(&[1, 2]), 3), 2);
    }

    #[test]
    fn a_good_run_has_times_and_no_complaints() {
        let found = proved(&[1, 2, 3]);
        let report = Report::new(3, &Audit::of(&found, &BTreeSet::new()), &found, BTreeMap::new());
        assert_eq!(
            (
                report.emitted,
                report.verified,
                report.inversions,
                report.duplicates
            ),
            (3, 3, 0, 0)
        );
        assert_eq!(
            (report.overhead_ms_p50, report.overhead_ms_p99),
            (Some(4.25), Some(4.25))
        );
        assert_eq!(report.prove_ms_p50, Some(1990.0));
        assert!(report.complaints.is_empty());
    }

    #[test]
    fn nothing_emitted_is_a_complaint() {
        let report = Report::new(3, &Audit::of(&[], &BTreeSet::new()), &[], BTreeMap::new());
        assert_eq!(
            (report.overhead_ms_p50, &report.complaints[..]),
            (None, &["3 not emitted".to_owned()][..])
        );
    }
}
