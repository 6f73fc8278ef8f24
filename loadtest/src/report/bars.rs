//! Performance targets, compared with the measurements.

use super::results::{Line, Results, has, lines, number};

/// Upper or lower limit of a target.
#[derive(Clone, Copy)]
enum Limit {
    Most(f64),
    Least(f64),
}
use Limit::{Least, Most};

/// Label, scenario, values that select the result, measured field, and limit.
type Bar = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
    Limit,
);

const AT_20: &[(&str, &str)] = &[("rate", "20"), ("verify", "false"), ("added_rtt_ms", "0")];
const AT_100: &[(&str, &str)] = &[("rate", "100"), ("verify", "false"), ("added_rtt_ms", "0")];

const BARS: &[Bar] = &[
    (
        "overhead at 20/s, p50 over the floor's",
        "overhead",
        AT_20,
        "ratio_p50",
        Most(1.3),
    ),
    (
        "overhead at 20/s, p50 in ms",
        "overhead",
        AT_20,
        "p50_ms",
        Most(3.0),
    ),
    (
        "overhead at 20/s, p99 over the floor's",
        "overhead",
        AT_20,
        "ratio_p99",
        Most(2.0),
    ),
    (
        "overhead at 20/s, p99 in ms",
        "overhead",
        AT_20,
        "p99_ms",
        Most(8.0),
    ),
    (
        "overhead at 100/s, p50 over the floor's",
        "overhead",
        AT_100,
        "ratio_p50",
        Most(1.3),
    ),
    (
        "overhead at 100/s, p50 in ms",
        "overhead",
        AT_100,
        "p50_ms",
        Most(3.0),
    ),
    (
        "overhead at 100/s, p99 over the floor's",
        "overhead",
        AT_100,
        "ratio_p99",
        Most(2.0),
    ),
    (
        "overhead at 100/s, p99 in ms",
        "overhead",
        AT_100,
        "p99_ms",
        Most(8.0),
    ),
    (
        "task ready → prover starts, p50 over a bare hop's",
        "ready",
        &[("rate", "20")],
        "ratio_p50",
        Most(1.15),
    ),
    (
        "throughput over the floor's",
        "throughput",
        &[],
        "ratio",
        Least(0.6),
    ),
    (
        "blocks a second, 0 ms provers",
        "throughput",
        &[],
        "blocks_per_s",
        Least(4000.0),
    ),
    (
        "32 provers, 1 s",
        "scaling",
        &[("provers", "32"), ("prove_ms", "1000"), ("ahead", "auto")],
        "efficiency",
        Least(0.997),
    ),
    (
        "32 provers, 100 ms",
        "scaling",
        &[("provers", "32"), ("prove_ms", "100")],
        "efficiency",
        Least(0.98),
    ),
    (
        "32 provers, 10 ms",
        "scaling",
        &[("provers", "32"), ("prove_ms", "10")],
        "efficiency",
        Least(0.85),
    ),
    (
        "1,024 provers, 7 s",
        "scaling",
        &[("provers", "1024"), ("prove_ms", "7000")],
        "efficiency",
        Least(0.99),
    ),
    // The limit is the ideal time.
    (
        "burst of 300, in s",
        "burst",
        &[("queued", "300")],
        "drain_s",
        Most(3.0),
    ),
    (
        "dispatcher at 100/s, MB",
        "memory",
        &[("service", "dispatcher"), ("load", "100/s")],
        "rss_mb",
        Most(15.0),
    ),
    (
        "collector at 100/s, MB",
        "memory",
        &[("service", "collector"), ("load", "100/s")],
        "rss_mb",
        Most(15.0),
    ),
    (
        "watchdog at 100/s, MB",
        "memory",
        &[("service", "watchdog"), ("load", "100/s")],
        "rss_mb",
        Most(15.0),
    ),
    (
        "dispatcher, 100,000 queued, MB",
        "memory",
        &[("service", "dispatcher"), ("load", "backlog 100,000")],
        "rss_mb",
        Most(40.0),
    ),
    (
        "collector, 100,000 queued, MB",
        "memory",
        &[("service", "collector"), ("load", "backlog 100,000")],
        "rss_mb",
        Most(40.0),
    ),
    (
        "watchdog, 100,000 queued, MB",
        "memory",
        &[("service", "watchdog"), ("load", "backlog 100,000")],
        "rss_mb",
        Most(40.0),
    ),
    (
        "dispatcher while blocks wait, MB",
        "backlog",
        &[("service", "dispatcher")],
        "rss_mb_peak",
        Most(40.0),
    ),
    (
        "dispatcher killed while blocks wait → its standby serves, in s",
        "backlog",
        &[("service", "dispatcher")],
        "takeover_s",
        Most(5.0),
    ),
    (
        "watchdog while blocks wait, MB",
        "backlog",
        &[("service", "watchdog")],
        "rss_mb_peak",
        Most(40.0),
    ),
    (
        "watchdog killed while blocks wait → its standby serves, in s",
        "backlog",
        &[("service", "watchdog")],
        "takeover_s",
        Most(5.0),
    ),
    (
        "dispatcher, a stage of 100,000 tasks, MB over idle",
        "memory",
        &[("service", "dispatcher"), ("load", "stage of 100,000")],
        "over_idle_mb",
        Most(10.0),
    ),
    (
        "the demo's block of steps, in s",
        "multistep",
        &[],
        "block_s_p50",
        Most(8.1),
    ),
    (
        "a task of a block 4,000 wide over one of 10",
        "fanout",
        &[("wide", "4000")],
        "cost_ratio",
        Most(1.2),
    ),
    (
        "share of proofs in time, off the model",
        "realtime",
        &[],
        "off_model",
        Most(0.03),
    ),
    (
        "results behind a hole: the most that a collector takes, in MB",
        "hole",
        &[],
        "rss_mb_peak",
        Most(40.0),
    ),
    (
        "results behind a hole: leader killed → the hole's block out, in s",
        "hole",
        &[],
        "takeover_s",
        Most(5.0),
    ),
    ("inversions of priority", "priority", &[], "inversions", Most(0.0)),
    (
        "a program's task over starting it, in ms",
        "exec",
        &[],
        "per_task_over_fork_ms",
        Most(3.0),
    ),
    (
        "a dead prover's task starts elsewhere, p99 in ms",
        "recovery",
        &[],
        "reassign_ms_p99",
        Most(1000.0),
    ),
    (
        "a join of 10,000 with the collector killed, in ms over without",
        "recovery",
        &[],
        "join_over_ms",
        Most(500.0),
    ),
    (
        "dispatcher killed → next block out, in ms",
        "recovery",
        &[],
        "dispatcher_recovery_ms",
        Most(500.0),
    ),
    (
        "broker killed → next block out, in ms",
        "recovery",
        &[],
        "broker_recovery_ms",
        Most(2000.0),
    ),
    ("chaos: blocks lost", "chaos", &[], "lost", Most(0.0)),
    (
        "chaos: blocks emitted twice",
        "chaos",
        &[],
        "duplicates",
        Most(0.0),
    ),
    (
        "chaos: blocks out of order",
        "chaos",
        &[],
        "inversions",
        Most(0.0),
    ),
    (
        "ingest: connections to one node",
        "ingest",
        &[],
        "connections_opened",
        Most(4.0),
    ),
    (
        "soak: trend of the dispatcher's memory",
        "soak",
        &[("what", "dispatcher-1 rss_mb"), ("profile", "full")],
        "slope_per_hour",
        Most(0.0),
    ),
    (
        "soak: trend of the overhead's p99",
        "soak",
        &[("what", "overhead p99_ms"), ("profile", "full")],
        "slope_per_hour",
        Most(0.0),
    ),
];

/// A target and its measurement.
pub(super) struct Judged {
    pub(super) what: String,
    pub(super) limit: String,
    pub(super) measured: String,
    met: bool,
}

impl Judged {
    pub(super) fn verdict(&self) -> &'static str {
        if self.met { "met" } else { "missed" }
    }
}

/// Returns the targets for which results exist.
pub(super) fn judged(results: &Results) -> Vec<Judged> {
    let judge = |(what, scenario, values, field, limit): &Bar| {
        let line = lines(results, scenario).iter().find(|line| has(line, values))?;
        let measured = number(line, field)?;
        if *scenario == "soak" {
            return Some(trend(what, line, measured));
        }
        let (limit, met) = match limit {
            Most(most) => (format!("≤ {most}"), measured <= *most),
            Least(least) => (format!("≥ {least}"), measured >= *least),
        };
        Some(Judged {
            what: (*what).into(),
            limit,
            measured: measured.to_string(),
            met,
        })
    };
    BARS.iter().filter_map(judge).collect()
}

/// Judges a trend. A trend passes if it falls or cannot be distinguished from zero.
fn trend(what: &str, line: &Line, slope: f64) -> Judged {
    let margin = number(line, "margin_per_hour").unwrap_or_default();
    Judged {
        what: what.into(),
        limit: "0 within its margin, or falling".into(),
        measured: format!("{slope} ± {margin} an hour"),
        met: slope <= margin,
    }
}
