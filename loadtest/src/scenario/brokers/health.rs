//! Checks that every stream still takes messages and every copy is up to date.

use push0_harness::NatsCluster;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

/// Time limit for the copies to catch up.
const CATCH_UP: Duration = Duration::from_secs(30);
/// Most messages that a copy may lag behind a copy queried a moment later.
const BEHIND_MAX: u64 = 100;
/// Streams that take messages for every block, or continuously. The facts of the blocks are written
/// before the fault.
const BUSY: [&str; 7] = [
    "PUSH0_BLOCKS",
    "PUSH0_TASKS",
    "PUSH0_CHECKS",
    "PUSH0_RESULTS",
    "PUSH0_LEASES",
    "PUSH0_PROOFS",
    "KV_push0_state",
];

/// The newest sequence of each stream, by server.
pub(super) struct Positions(BTreeMap<String, Vec<u64>>);

impl Positions {
    /// Queries the positions of all servers.
    pub(super) async fn of(cluster: &NatsCluster) -> Self {
        let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for at in 0..cluster.size() {
            let seen = cluster.server(at).monitor("/jsz?streams=true").await;
            for stream in streams(&seen) {
                let name = stream["name"].as_str().unwrap_or_default();
                let last = stream["state"]["last_seq"].as_u64().unwrap_or_default();
                found.entry(name.to_owned()).or_default().push(last);
            }
        }
        Self(found)
    }

    /// Returns the number of streams that have taken no message since although they should, or have a copy
    /// that does not catch up. Each unhealthy server counts as well.
    pub(super) async fn wedged(&self, cluster: &NatsCluster) -> u64 {
        let end = Instant::now() + CATCH_UP;
        loop {
            let now = Self::of(cluster).await;
            let mut wrong: BTreeSet<String> = self.since(&now, cluster.size());
            for at in 0..cluster.size() {
                let health = cluster.server(at).monitor("/healthz").await;
                if health["status"] != "ok" {
                    wrong.insert(format!("n{at}: {health}"));
                }
            }
            if wrong.is_empty() {
                return 0;
            }
            if Instant::now() > end {
                eprintln!("streams or servers still wrong after {CATCH_UP:?}: {wrong:?}");
                return wrong.len() as u64;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn since(&self, now: &Self, copies: usize) -> BTreeSet<String> {
        let mut wrong = BTreeSet::new();
        for (name, before) in &self.0 {
            let Some(copies_now) = now.0.get(name).filter(|there| there.len() == copies) else {
                wrong.insert(name.clone());
                continue;
            };
            let (least, most) = (copies_now.iter().min(), copies_now.iter().max());
            let (least, most) = (least.copied().unwrap_or(0), most.copied().unwrap_or(0));
            let stands = BUSY.contains(&name.as_str()) && before.iter().max() >= Some(&most);
            if stands || most - least > BEHIND_MAX {
                wrong.insert(name.clone());
            }
        }
        wrong
    }
}

fn streams(seen: &Value) -> impl Iterator<Item = &Value> {
    let accounts = seen["account_details"].as_array().into_iter().flatten();
    accounts
        .filter_map(|account| account["stream_detail"].as_array())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(copies: &[u64]) -> Positions {
        Positions(BTreeMap::from([("PUSH0_PROOFS".to_owned(), copies.to_vec())]))
    }

    #[test]
    fn a_stream_is_wedged_that_stands_or_whose_copy_is_missing_or_behind() {
        let before = positions(&[10, 10, 10]);
        assert!(before.since(&positions(&[300, 299, 300]), 3).is_empty());
        for wrong in [&[10, 10, 10][..], &[300, 300], &[300, 10, 300]] {
            assert_eq!(before.since(&positions(wrong), 3).len(), 1, "{wrong:?}");
        }
    }
}
