//! Helpers for the tests of this crate: a running ingester and the blocks published by it.

pub(crate) mod node_proxy;

use push0_bus::{Bucket, Facts, Stream};
use push0_domain::{
    BlockHash, PipelineId,
    message::{BlockEvent, Cancel, ObservedBlock},
    pipeline::Reset,
    subject,
};
use push0_harness::{Deployment, Process, wait_for};
use std::{collections::BTreeMap, time::Duration};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Returns a pipeline file with this source.
pub(crate) fn pipeline(name: &str, source: &str) -> String {
    format!(
        "name = \"{name}\"\n[source]\n{source}\n[[proof]]\ntype = \"main\"\nzkvm = \"mock\"\n\
         [[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"10s\"\n"
    )
}

pub(crate) fn ethereum(name: &str, url: &str, more: &str) -> String {
    let source = format!("kind = \"ethereum\"\nrpc_url = \"{url}\"\npoll = \"50ms\"\n{more}");
    pipeline(name, &source)
}

/// Starts a broker with these pipelines and one ingester.
pub(crate) async fn deploy(pipelines: &[String]) -> Deployment {
    let ingester = Process::program("ingester").env("PUSH0_SUBMIT__LISTEN", "127.0.0.1:0");
    let with = |builder: push0_harness::DeploymentBuilder, toml: &String| builder.pipeline(toml);
    let builder = pipelines.iter().fold(Deployment::builder(), with);
    builder.service(ingester).start().await
}

pub(crate) fn id(name: &str) -> PipelineId {
    name.parse().expect("a name")
}

/// Returns all events of a pipeline, in the order of the stream.
pub(crate) async fn events(deployment: &Deployment, pipeline: &str) -> Vec<BlockEvent> {
    let pipeline = id(pipeline);
    let mut all = Vec::new();
    for subject in [subject::block(&pipeline), subject::cancel(&pipeline)] {
        let kept = deployment
            .bus()
            .scan(Stream::Blocks, &subject, 1, usize::MAX)
            .await;
        all.extend(kept.expect("the blocks are read"));
    }
    all.sort_by_key(|kept| kept.sequence);
    all.into_iter().map(|kept| kept.body.expect("a block")).collect()
}

/// Returns the blocks still wanted, and all cancellations. Panics if a published block is not the child
/// of the one before, or replaces a block without a cancellation.
pub(crate) fn outcome(events: &[BlockEvent]) -> (Vec<ObservedBlock>, Vec<Cancel>) {
    let mut wanted: BTreeMap<u64, ObservedBlock> = BTreeMap::new();
    let mut cancels = Vec::new();
    for event in events {
        match event {
            BlockEvent::Observed(block) => {
                let number = block.block.number;
                if let Some((_, first)) = wanted.first_key_value()
                    && first.block.number < number
                {
                    let parent = wanted.get(&(number - 1)).map(|before| before.block.hash);
                    assert_eq!(
                        parent,
                        Some(block.parent_hash),
                        "{number} is not on top of its parent"
                    );
                }
                let there = wanted.insert(number, block.clone());
                assert!(
                    there.is_none_or(|t| t.block == block.block),
                    "{number} was not cancelled"
                );
            }
            BlockEvent::Cancelled(cancel) => {
                let gone = |hash: &BlockHash| cancel.hashes.contains(hash);
                // Without hashes, everything under these numbers is cancelled.
                let all = |number| cancel.hashes.is_empty() && (cancel.first..=cancel.last).contains(&number);
                wanted.retain(|number, block| !gone(&block.block.hash) && !all(*number));
                cancels.push(cancel.clone());
            }
        }
    }
    (wanted.into_values().collect(), cancels)
}

/// Waits until the wanted blocks reach `last`, and returns all events.
pub(crate) async fn published_up_to(deployment: &Deployment, pipeline: &str, last: u64) -> Vec<BlockEvent> {
    wait_for(&format!("block {last} of {pipeline}"), PATIENCE, async || {
        let events = events(deployment, pipeline).await;
        let tip = outcome(&events).0.last().map(|block| block.block.number);
        if tip >= Some(last) { Ok(events) } else { Err(tip) }
    })
    .await
}

/// Returns the numbers of the wanted blocks.
pub(crate) fn numbers(events: &[BlockEvent]) -> Vec<u64> {
    outcome(events).0.iter().map(|block| block.block.number).collect()
}

/// Waits until the ingester's `/health/ready` answers not ready, with this text in the reason.
pub(crate) async fn not_ready(deployment: &Deployment, reason: &str) {
    not_ready_of(deployment, "ingester", reason).await;
}

/// Like [`not_ready`], for the process of this label.
pub(crate) async fn not_ready_of(deployment: &Deployment, label: &str, reason: &str) {
    let ingester = deployment.service(label);
    wait_for(&format!("`{reason}` in the readiness"), PATIENCE, async || {
        let address = ingester.http_address().ok_or_else(|| "no address".to_owned())?;
        let url = format!("http://{address}/health/ready");
        let response = reqwest::get(url).await.map_err(|e| e.to_string())?;
        let (status, body) = (
            response.status().as_u16(),
            response.text().await.unwrap_or_default(),
        );
        if status == 503 && body.contains(reason) {
            Ok(())
        } else {
            Err(body)
        }
    })
    .await;
}

/// Stores an operator's wish, and returns the reason of a refusal; `None` once the wish is carried out.
pub(crate) async fn reset(deployment: &Deployment, from: u64) -> Option<String> {
    let wishes: Facts<Reset> = deployment.bus().facts(Bucket::State).await.expect("the bucket");
    let key = Reset::key(&id("demo"));
    let wish = Reset { from, refused: None };
    wishes.put(&key, &wish).await.expect("stored");
    wait_for("an answer to the wish", PATIENCE, async || {
        match wishes.get(&key).await.expect("read").and_then(|fact| fact.value) {
            None => Ok(None),
            Some(Reset {
                refused: Some(reason),
                ..
            }) => Ok(Some(reason)),
            Some(wish) => Err(wish),
        }
    })
    .await
}
