//! The cost of viewers of the live page, and how soon they see a change.
//!
//! Blocks come at a rate at which the gateway hears some thousand messages a second. Windows with a hundred viewers and
//! without any alternate. All viewers read the whole stream of changes; a few of them are timed, because decoding it a
//! hundred times would measure the load test.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::{Times, Windows, round},
};
use anyhow::{Context as _, bail};
use push0_bus::now;
use push0_harness::{Process, ProcessBuilder, wait_for};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet, time::timeout};

const VIEWERS: usize = 100;
/// How many of the viewers are timed.
const TIMED: usize = 4;
/// Blocks a second. The gateway hears about four messages of each.
const RATE: f64 = 260.0;
/// How long timed viewers wait for the last block.
const LAST: Duration = Duration::from_secs(10);
/// The longest that 99 of 100 changes may take to a viewer, in milliseconds.
const EVENT_P99_MAX_MS: f64 = 250.0;
/// The most memory of the gateway, in megabytes.
const RSS_MAX_MB: f64 = 64.0;

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let builder = stand::services()
        .service(stand::prover("p1", 256, Duration::ZERO))
        .service(gateway());
    let mut stand = Stand::start(builder, &stand::single(false)).await?;
    let url = page(stand.deployment.service("gateway")).await;
    let count = (RATE * context.profile.pick(5.0, 15.0)) as u64;
    stand.run(count, Arrivals::AtOnce).await?;
    let (mut alone, mut viewed, mut latency) = (Windows::default(), Windows::default(), Times::default());
    let (mut messages, mut seconds) = (0, 0.0);
    for window in 0..context.profile.pick(3, 5) {
        let arrivals = Arrivals::Rate {
            per_second: RATE,
            seed: context.seed.wrapping_add(window),
        };
        alone.push(stand::overheads(&stand.run(count, arrivals).await?)?);
        let viewers = Viewers::open(&url).await?;
        let (before, began) = (heard(&stand).await, Instant::now());
        let records = stand.run(count, arrivals).await?;
        messages += heard(&stand).await - before;
        seconds += began.elapsed().as_secs_f64();
        viewed.push(stand::overheads(&records)?);
        let last = records.last().context("a record")?;
        let stored: BTreeMap<u64, u64> = records
            .iter()
            .map(|kept| Ok((stand::proved(kept)?.last.number, kept.stored_at.0)))
            .collect::<anyhow::Result<_>>()?;
        for seen in viewers.seen_until(stand::proved(last)?.last.number).await? {
            for (number, stored_at) in &stored {
                let seen_at = seen
                    .get(number)
                    .with_context(|| format!("block {number} was not shown"))?;
                latency.add(seen_at.saturating_sub(*stored_at));
            }
        }
    }
    let rss = stand.deployment.service("gateway").peak_rss_mb();
    let p99 = latency.ms(0.99);
    let record = context
        .record("gateway")
        .with("viewers", VIEWERS)
        .with("events_per_s", (messages as f64 / seconds).round())
        .with("event_p50_ms", latency.ms(0.5))
        .with("event_p99_ms", p99)
        .with("rss_mb", round(rss));
    viewed
        .put("viewed_", alone.put("alone_", record))
        .ratio("overhead_ratio", "viewed_p50_ms", "alone_p50_ms")
        .with("blocks", viewed.len())
        .publish()?;
    if p99 > EVENT_P99_MAX_MS || rss > RSS_MAX_MB {
        bail!("the gateway took {p99} ms to its viewers at p99 and {rss:.1} MB");
    }
    Ok(())
}

fn gateway() -> ProcessBuilder {
    Process::program("gateway").env("PUSH0_GATEWAY__LISTEN", "127.0.0.1:0")
}

/// Returns the URL of the page, from the gateway's log.
async fn page(gateway: &Process) -> String {
    wait_for("the address of the page", Duration::from_secs(20), async || {
        let log = gateway.log();
        let line = log.lines().rfind(|line| line.contains("the page is served"))?;
        let url = &line[line.find("http://")?..];
        let end = url.find(['"', ' ']).unwrap_or(url.len());
        Some(url[..end].trim_end_matches('/').to_owned())
    })
    .await
}

/// Returns how many messages the gateway has heard.
async fn heard(stand: &Stand) -> u64 {
    let text = stand.deployment.service("gateway").metrics().await;
    let lines = text
        .lines()
        .filter(|line| line.starts_with("push0_gateway_messages_total"));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum()
}

/// When a viewer first saw each block proved, in microseconds since 1970.
type Seen = BTreeMap<u64, u64>;

/// Open streams of changes, all of which are read. Dropping the value closes them.
struct Viewers {
    timed: JoinSet<anyhow::Result<Seen>>,
    _others: JoinSet<()>,
    /// The number of the last block, once it is known.
    last: watch::Sender<Option<u64>>,
}

impl Viewers {
    async fn open(url: &str) -> anyhow::Result<Self> {
        let (client, last) = (reqwest::Client::new(), watch::Sender::new(None));
        let (mut timed, mut others) = (JoinSet::new(), JoinSet::new());
        for at in 0..VIEWERS {
            let answer = client.get(format!("{url}/api/v1/events")).send().await?;
            let mut answer = answer.error_for_status()?;
            if at < TIMED {
                timed.spawn(watch_blocks(answer, last.subscribe()));
            } else {
                others.spawn(async move { while let Ok(Some(_)) = answer.chunk().await {} });
            }
        }
        Ok(Self {
            timed,
            _others: others,
            last,
        })
    }

    /// Waits until every timed viewer has seen this block, and returns the sightings of each.
    async fn seen_until(mut self, last: u64) -> anyhow::Result<Vec<Seen>> {
        self.last.send_replace(Some(last));
        let mut all = Vec::new();
        while let Some(seen) = timeout(LAST, self.timed.join_next()).await? {
            all.push(seen??);
        }
        Ok(all)
    }
}

/// Reads a stream of changes until it has shown the last block.
async fn watch_blocks(
    mut answer: reqwest::Response,
    mut last: watch::Receiver<Option<u64>>,
) -> anyhow::Result<Seen> {
    let (mut seen, mut text) = (Seen::new(), Vec::new());
    loop {
        let is_over = last
            .borrow_and_update()
            .is_some_and(|last| seen.contains_key(&last));
        if is_over {
            return Ok(seen);
        }
        tokio::select! {
            told = last.changed() => told?,
            chunk = answer.chunk() => {
                text.extend_from_slice(&chunk?.context("the gateway ended the stream")?);
                let at = now().0;
                while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    for number in proved_in(&line) {
                        seen.entry(number).or_insert(at);
                    }
                }
            }
        }
    }
}

/// Returns the numbers of the blocks that a line of the stream shows as proved.
fn proved_in(line: &[u8]) -> Vec<u64> {
    let Some(data) = line.strip_prefix(b"data: ") else {
        return Vec::new();
    };
    let change: Value = serde_json::from_slice(data).unwrap_or_default();
    let blocks = change["blocks"].as_array().into_iter().flatten();
    let proved = blocks.filter(|block| block["state"] == "proved");
    proved.filter_map(|block| block["number"].as_u64()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_proved_blocks_are_seen() {
        let line =
            br#"data: {"at":1,"blocks":[{"number":7,"state":"proved"},{"number":8,"state":"proving"}]}"#;
        assert_eq!(proved_in(line), [7]);
        assert!(proved_in(b"event: change").is_empty());
    }
}
