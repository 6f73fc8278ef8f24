//! Unanswered questions leave nothing behind. The test measures the memory of its process, so it has one of its
//! own.

use push0_bus::{Bus, NatsConfig};
use push0_harness::NatsServer;
use std::time::Duration;

const AT_ONCE: usize = 500;
const ROUNDS: usize = 200;
/// 100,000 questions that stay in memory are some 33 MB.
const GROWTH_MAX: u64 = 4 << 20;

/// Returns the resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it is readable");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("a line");
    let kilobytes = line.trim().trim_end_matches(" kB").parse::<u64>();
    kilobytes.expect("a number") * 1024
}

#[tokio::test]
async fn unanswered_questions_leave_nothing_behind() {
    let nats = NatsServer::start().await;
    let config = NatsConfig {
        url: nats.url(),
        ..NatsConfig::default()
    };
    let bus = Bus::connect(&config, "test").await.expect("a good URL");
    bus.connected().await;
    let subject = push0_domain::subject::leader("demo");
    let mut listener = bus.listen([subject.clone()]).await.expect("it listens");
    let listening = async { while listener.next().await.is_ok() {} };
    let ask = async || {
        let questions = (0..AT_ONCE).map(|_| bus.has_no_listener(subject.clone(), Duration::from_millis(1)));
        let answers = futures::future::join_all(questions).await;
        assert!(!answers.contains(&true), "it has a listener");
    };
    let asking = async {
        // The first rounds grow the client's buffers.
        for _ in 0..ROUNDS / 10 {
            ask().await;
        }
        let before = resident();
        for _ in 0..ROUNDS {
            ask().await;
        }
        resident().saturating_sub(before)
    };
    let growth = tokio::select! {
        growth = asking => growth,
        () = listening => unreachable!("the broker goes on"),
    };
    assert!(growth < GROWTH_MAX, "{growth} bytes");
}
