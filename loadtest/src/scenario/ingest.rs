//! Speed of catching up with an existing chain. The comparison is a plain client that fetches the same blocks
//! over the same number of kept connections and discards them.
//!
//! The node is a real one. Two ingesters run, as many as ship, but without accounts and without other
//! services: blocks are fetched from the node, checked, and stored with their facts.

use crate::{record::Context, stats::round};
use anyhow::{Context as _, ensure};
use push0_bus::{Limits, Stream};
use push0_harness::{Anvil, Deployment, Process};
use serde_json::json;
use std::time::Duration;
use tokio::{task::JoinSet, time::Instant};

/// Most connections of an ingester to a node that answers.
const CONNECTIONS_MAX: u64 = 4;
const EVERY: Duration = Duration::from_millis(20);
/// Longest time without a new block.
const PATIENCE: Duration = Duration::from_secs(30);
const INGESTERS: [&str; 2] = ["ingester-1", "ingester-2"];

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let blocks = context.profile.pick(5_000, 20_000);
    let anvil = Anvil::of_blocks(blocks).await;
    let before = fetch(anvil.url(), blocks).await?;

    let builder = Deployment::builder()
        .limits(Limits {
            store_bytes: 4 << 30,
            ..Limits::default()
        })
        .env("PUSH0_TELEMETRY__LOG", "warn,push0_runtime=info");
    let builder = INGESTERS.into_iter().fold(builder, |builder, label| {
        builder.service(Process::program("ingester").label(label))
    });
    let deployment = builder.start().await;
    let began = Instant::now();
    deployment.apply(&pipeline(anvil.url())).await;
    stored(&deployment, blocks).await?;
    let took = began.elapsed();

    let after = fetch(anvil.url(), blocks).await?;
    let mut opened = 0;
    for label in INGESTERS {
        // The standby also opened a connection, to check whether it can reach the node. The larger
        // count is judged.
        opened = opened.max(connections(deployment.service(label)).await?);
    }
    let per_second = |took: Duration| round(blocks as f64 / took.as_secs_f64());
    context
        .record("ingest")
        .with("blocks", blocks)
        .with("blocks_per_s", per_second(took))
        .with("plain_blocks_per_s", per_second((before + after) / 2))
        .ratio("ratio", "blocks_per_s", "plain_blocks_per_s")
        .with("connections_opened", opened)
        .publish()?;
    ensure!(
        opened <= CONNECTIONS_MAX,
        "{opened} connections to one node: expected at most {CONNECTIONS_MAX}"
    );
    Ok(())
}

fn pipeline(url: &str) -> String {
    format!(
        "name = \"load\"\n[source]\nkind = \"ethereum\"\nrpc_url = \"{url}\"\nstart = 1\n[[proof]]\n\
         type = \"main\"\nzkvm = \"mock\"\n[[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"60s\"\n"
    )
}

/// Waits until the broker holds this many blocks.
async fn stored(deployment: &Deployment, blocks: u64) -> anyhow::Result<()> {
    let (mut last, mut grown_at) = (0, Instant::now());
    loop {
        let there = deployment.bus().level(Stream::Blocks).await?.messages;
        if there >= blocks {
            return Ok(());
        }
        if there > last {
            (last, grown_at) = (there, Instant::now());
        }
        ensure!(grown_at.elapsed() < PATIENCE, "{there} blocks of {blocks} came");
        tokio::time::sleep(EVERY).await;
    }
}

/// Fetches blocks 1 to `blocks` over as many kept connections as an ingester may open.
async fn fetch(url: &str, blocks: u64) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut fetchers = JoinSet::new();
    for first in 1..=CONNECTIONS_MAX {
        let url = url.to_owned();
        fetchers.spawn(async move {
            let client = reqwest::Client::new();
            for number in (first..=blocks).step_by(CONNECTIONS_MAX as usize) {
                let params = json!([format!("{number:#x}"), false]);
                let asked =
                    json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber", "params": params });
                let answer = client.post(&url).json(&asked).send().await?.error_for_status()?;
                answer.bytes().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(fetched) = fetchers.join_next().await {
        fetched??;
    }
    Ok(began.elapsed())
}

/// Returns the number of connections that an ingester has opened to its node.
async fn connections(ingester: &Process) -> anyhow::Result<u64> {
    let metrics = ingester.metrics().await;
    let series = "push0_ingester_connections_opened_total{pipeline=\"load\"} ";
    let opened = metrics.lines().find_map(|line| line.strip_prefix(series));
    Ok(opened.context("the count of connections")?.parse()?)
}
