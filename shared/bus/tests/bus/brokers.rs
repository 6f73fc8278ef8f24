//! How soon a process recovers when one of three brokers is in trouble.

use crate::message;
use push0_bus::{Bus, Limits, NatsConfig, Replay, Service, Stream};
use push0_domain::subject::{self, Kind};
use push0_harness::{NatsCluster, NatsOptions, wait_for};
use serde_json::Value;
use std::time::{Duration, Instant};

/// An election takes up to 9 s, and longer on a machine busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

async fn provisioned(cluster: &NatsCluster) {
    let limits = Limits {
        replicas: 3,
        store_bytes: 1 << 30,
        ..Limits::default()
    };
    let bus = connect(&cluster.url()).await;
    // A cluster that has just started may not have a place for every copy yet.
    wait_for("the streams", PATIENCE, async || {
        bus.provision(&limits).await.map_err(|error| error.to_string())
    })
    .await;
}

async fn connect(url: &str) -> Bus {
    let config = NatsConfig {
        url: url.to_owned(),
        ..NatsConfig::default()
    };
    let bus = Bus::connect(&config, "test").await.expect("valid URLs");
    bus.connected().await;
    bus
}

/// Returns the index of the server with a client's connection.
async fn server_of_the_client(cluster: &NatsCluster) -> usize {
    wait_for("the client's connection", PATIENCE, async || {
        for at in 0..cluster.size() {
            let seen = cluster.server(at).monitor("/connz").await;
            if seen["num_connections"].as_u64() > Some(0) {
                return Ok(at);
            }
        }
        Err("no connection")
    })
    .await
}

/// Returns the index of the server that calls itself the leader of the consumer.
async fn leader_of_consumer(cluster: &NatsCluster, consumer: &str) -> usize {
    wait_for("a leader of the consumer", PATIENCE, async || {
        for at in 0..cluster.size() {
            let seen = cluster
                .server(at)
                .monitor("/jsz?consumers=true&config=true")
                .await;
            let leads = consumers(&seen)
                .any(|c| c["name"] == consumer && c["cluster"]["leader"].as_str() == Some(&format!("n{at}")));
            if leads {
                return Ok(at);
            }
        }
        Err("no leader")
    })
    .await
}

fn consumers(seen: &Value) -> impl Iterator<Item = &Value> {
    let accounts = seen["account_details"].as_array().into_iter().flatten();
    let streams = accounts.filter_map(|a| a["stream_detail"].as_array()).flatten();
    streams.filter_map(|s| s["consumer_detail"].as_array()).flatten()
}

#[tokio::test]
async fn unacknowledged_messages_come_again_while_the_broker_that_led_their_consumer_stands_still() {
    let cluster = NatsCluster::start(3).await;
    provisioned(&cluster).await;
    let replay = Replay {
        stream: Stream::Blocks,
        consumer: "dispatcher-blocks".into(),
        filters: vec![subject::all(Kind::Block)],
    };
    let demo = "demo".parse().expect("a name");
    let mut took = Vec::new();
    // Each round draws the consumer's leader by lot. Rounds whose draw also leads JetStream or the stream are
    // skipped: no client can shorten their elections.
    for number in 1..=6_u64 {
        let bus = connect(&cluster.url()).await;
        bus.publish_patiently(message(subject::block(&demo), &number), PATIENCE)
            .await
            .expect("stored");
        drop(bus.replay::<u64>(&replay).await.expect("it is made"));
        let victim = leader_of_consumer(&cluster, &replay.consumer).await;
        let (meta, stream) = (
            cluster.meta_leader().await,
            cluster.leader_of(Stream::Blocks.name()).await,
        );
        if victim == meta || victim == stream {
            continue;
        }
        // The predecessor's pull request must end here, or it would take messages from the successor.
        drop(bus);
        let successor = connect(&cluster.server(meta).url()).await;
        cluster.server(victim).pause();
        let began = Instant::now();
        let mut deliveries = successor.replay::<u64>(&replay).await.expect("it is made");
        let delivery = deliveries.next().await.expect("a message");
        took.push(began.elapsed());
        cluster.server(victim).resume();
        assert_eq!(delivery.body, 1, "the oldest that nobody acknowledged");
    }
    println!("all came again after {took:?}");
    assert!(took.iter().all(|t| *t < Duration::from_secs(4)), "{took:?}");
}

#[tokio::test]
async fn a_process_leaves_a_broker_that_stands_still() {
    let cluster = NatsCluster::start(3).await;
    let bus = connect(&cluster.url()).await;
    let victim = server_of_the_client(&cluster).await;
    cluster.server(victim).pause();
    let began = Instant::now();
    tokio::time::timeout(PATIENCE, bus.interrupted())
        .await
        .expect("noticed");
    bus.connected().await;
    let took = began.elapsed();
    cluster.server(victim).resume();
    println!("connected to another broker after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_process_leaves_a_broker_that_is_cut_off_from_its_peers() {
    let cluster = NatsCluster::wired(3, &NatsOptions::default()).await;
    provisioned(&cluster).await;
    let bus = connect(&cluster.url()).await;
    let victim = wait_for("the only connection", PATIENCE, async || {
        // The connection used for provisioning may not have closed yet.
        let at = server_of_the_client(&cluster).await;
        let mut connections = 0;
        for server in 0..cluster.size() {
            let seen = cluster.server(server).monitor("/connz").await;
            connections += seen["num_connections"].as_u64().unwrap_or_default();
        }
        if connections == 1 {
            Ok(at)
        } else {
            Err(connections)
        }
    })
    .await;
    cluster.cut_from_peers(victim);
    let began = Instant::now();
    tokio::time::timeout(PATIENCE, bus.interrupted())
        .await
        .expect("noticed");
    bus.connected().await;
    let took = began.elapsed();
    println!("connected to another broker after {took:?}");
    assert!(took < Duration::from_secs(8), "{took:?}");
    let demo = "demo".parse().expect("a name");
    bus.publish_patiently(message(subject::block(&demo), &1u64), PATIENCE)
        .await
        .expect("the two others store it");
}

#[tokio::test]
async fn a_broker_that_hears_nothing_is_not_believed_about_a_stream() {
    let cluster = NatsCluster::wired(3, &NatsOptions::default()).await;
    provisioned(&cluster).await;
    let deaf = 0;
    let bus = connect(&cluster.server(deaf).url()).await;
    cluster.deafen(deaf);
    wait_for("a refusal", PATIENCE, async || {
        match bus.newest(Stream::Blocks).await {
            Err(error) if error.to_string().contains("knows no leader") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // Each stream notices for itself that its leader is silent. The janitor deletes by these answers.
    let place = bus
        .blobs()
        .of_service(Service::Operator, &"demo".parse().expect("a name"), 1);
    let place = place.name(b"x").await.place;
    wait_for("refusals of what the janitor reads", PATIENCE, async || {
        let keep = bus.keep().await.map(|keep| format!("{keep:?}"));
        let stored = bus.blobs().stored().await.map(|stored| format!("{stored:?}"));
        let at = bus.blobs().at(&place).await.map(|blobs| format!("{blobs:?}"));
        let (keep, stored, at) = (told(keep), told(stored), told(at));
        let all = [keep, stored, at];
        if all.iter().all(|said| said.contains("knows no leader")) {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        }
    })
    .await;
}

/// Returns the words of an answer or an error.
fn told(answer: Result<String, impl std::fmt::Display>) -> String {
    answer.unwrap_or_else(|error| error.to_string())
}
