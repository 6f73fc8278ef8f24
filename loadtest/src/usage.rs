//! Resources used by processes, as reported by the system.

use crate::{record::Record, stand::Stand, stats::round};
use push0_harness::Process;
use std::fs;

/// Resources of a process at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Resident memory in megabytes (2^20 bytes).
    pub(crate) rss_mb: f64,
    /// Number of open files, connections included.
    pub(crate) files: u64,
}

impl Usage {
    /// Returns the usage of a process; `None` if the process has ended.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: f64 = resident.split_whitespace().next()?.parse().ok()?;
        let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        Some(Self {
            rss_mb: kib / 1024.0,
            files: files as u64,
        })
    }
}

/// Measures a run's stored messages and processor time.
pub(crate) struct Meter {
    stored: u64,
    groups: Vec<(&'static str, Vec<u32>)>,
    cpu_us: Vec<u64>,
}

impl Meter {
    /// Starts to measure a stand with these provers.
    pub(crate) async fn start(stand: &Stand, provers: &[String]) -> Self {
        let pid = |label: &str| stand.deployment.service(label).pid();
        let all = |program| stand.deployment.instances(program).map(Process::pid).collect();
        let groups = vec![
            ("ingester", all("ingester")),
            ("dispatcher", all("dispatcher")),
            ("collector", all("collector")),
            ("watchdog", all("watchdog")),
            ("provers", provers.iter().map(|label| pid(label)).collect()),
            ("broker", vec![stand.deployment.nats.first().pid()]),
        ];
        Self {
            stored: stored(stand).await,
            cpu_us: cpu_us(&groups),
            groups,
        }
    }

    /// Adds the cost of each block since the start of the meter to a record.
    pub(crate) async fn put(self, stand: &Stand, blocks: u64, record: Record) -> Record {
        let per_block = |total: u64| round(total as f64 / blocks as f64);
        let record = record.with("stored_per_block", per_block(stored(stand).await - self.stored));
        let cpu = cpu_us(&self.groups);
        let each = self.groups.iter().zip(self.cpu_us.iter().zip(cpu));
        each.fold(record, |record, ((name, _), (before, after))| {
            let name = format!("{name}_cpu_us_per_block");
            record.with(&name, per_block(after.saturating_sub(*before)))
        })
    }
}

/// Returns the number of messages ever stored in push0's streams, without the facts.
async fn stored(stand: &Stand) -> u64 {
    let seen = stand.deployment.nats.first().monitor("/jsz?streams=true").await;
    let accounts = seen["account_details"].as_array().into_iter().flatten();
    let streams = accounts
        .filter_map(|account| account["stream_detail"].as_array())
        .flatten();
    streams
        .filter(|stream| {
            stream["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("PUSH0_"))
        })
        .filter_map(|stream| stream["state"]["last_seq"].as_u64())
        .sum()
}

/// Returns the processor time of each group so far, in microseconds.
fn cpu_us(groups: &[(&'static str, Vec<u32>)]) -> Vec<u64> {
    /// Value of `sysconf(_SC_CLK_TCK)` on every Linux that Rust supports.
    const TICKS_A_SECOND: u64 = 100;
    let of = |pid: &u32| -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold spaces. After it, user and system time are the 12th and 13th field.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some((user + system) * 1_000_000 / TICKS_A_SECOND)
    };
    groups
        .iter()
        .map(|(_, pids)| pids.iter().filter_map(of).sum())
        .collect()
}
