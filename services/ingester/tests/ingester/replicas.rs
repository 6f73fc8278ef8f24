//! Two ingesters as deployed: when the leader fails, the other one continues.

use crate::observed::{
    PATIENCE, ethereum, id,
    node_proxy::{NodeProxy, Reply, asks_for},
    not_ready_of, numbers, outcome, published_up_to,
};
use push0_bus::{Kept, Stream};
use push0_domain::{message::BlockEvent, subject};
use push0_harness::{Anvil, Deployment, Process, Proxy, wait_for};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// The leader when a test begins.
const FIRST: &str = "first";
const SECOND: &str = "second";
/// Longest allowed time between two blocks of a chain with one block per second.
const GAP_MAX: Duration = Duration::from_secs(5);

/// Returns how often a process won the lead.
fn wins(deployment: &Deployment, label: &str) -> usize {
    deployment.service(label).log().matches("leading").count()
}

/// Starts two ingesters of one chain. The first one leads, and reaches the broker through the proxy.
async fn two(url: &str) -> (Deployment, Proxy) {
    let pipeline = ethereum("demo", url, "start = 1");
    let mut deployment = Deployment::builder().pipeline(&pipeline).start().await;
    let wire = Proxy::to(&deployment.nats.first().url());
    let first = Process::program("ingester").label(FIRST);
    deployment.start_service(first.env("PUSH0_NATS__URL", wire.url()));
    wait_for("the first lead", PATIENCE, async || wins(&deployment, FIRST) == 1).await;
    deployment.start_service(Process::program("ingester").label(SECOND));
    deployment.ready().await;
    (deployment, wire)
}

/// Returns the longest time between two blocks, as stored by the broker.
async fn longest_gap(deployment: &Deployment) -> Duration {
    let subject = subject::block(&id("demo"));
    let kept: Vec<Kept<BlockEvent>> = deployment
        .bus()
        .scan(Stream::Blocks, &subject, 1, usize::MAX)
        .await
        .expect("the blocks are read");
    let gaps = kept
        .windows(2)
        .map(|two| two[1].stored_at.since(two[0].stored_at));
    gaps.max().unwrap_or_default()
}

/// Asserts that blocks arrive while the leader has a fault, and after the fault is healed.
async fn goes_on(fault: impl FnOnce(&Process, &Proxy), heal: impl FnOnce(&mut Process, &Proxy)) {
    let anvil = Anvil::start(Some(Duration::from_secs(1))).await;
    let (mut deployment, wire) = two(anvil.url()).await;
    published_up_to(&deployment, "demo", 2).await;
    fault(deployment.service(FIRST), &wire);
    let head = anvil.head().await + 4;
    published_up_to(&deployment, "demo", head).await;
    let gap = longest_gap(&deployment).await;
    println!("{} ms between two blocks", gap.as_millis());
    assert!(gap < GAP_MAX, "{gap:?}");
    heal(deployment.service_mut(FIRST), &wire);
    deployment.ready().await;
    let head = anvil.head().await + 2;
    let published = published_up_to(&deployment, "demo", head).await;
    let (wanted, cancels) = outcome(&published);
    assert!(cancels.is_empty() && wanted.len() >= usize::try_from(head).expect("a small number"));
    assert_eq!(wins(&deployment, SECOND), 1);
}

#[tokio::test]
async fn a_standby_goes_on_when_the_leader_is_killed() {
    goes_on(|leader, _| leader.kill(), |leader, _| leader.restart()).await;
}

#[tokio::test]
async fn a_standby_goes_on_when_the_leader_is_frozen() {
    goes_on(|leader, _| leader.pause(), |leader, _| leader.resume()).await;
}

#[tokio::test]
async fn a_standby_goes_on_when_the_leader_is_cut_off_from_the_broker() {
    goes_on(|_, wire| wire.cut(), |_, wire| wire.heal()).await;
}

/// A proxy in front of a node, with a switch that blocks all data of one process.
struct Gate {
    url: String,
    cut: watch::Sender<Option<u32>>,
    _tasks: JoinSet<()>,
}

impl Gate {
    async fn to(url: &str) -> Self {
        let node = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (cut, seen) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut relays = JoinSet::new();
            while let Ok((client, peer)) = listener.accept().await {
                let server = TcpStream::connect(&node).await.expect("the node listens");
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let ends = [peer.port(), address.port()];
                relays.spawn(pass(from_client, to_server, ends, seen.clone()));
                relays.spawn(pass(from_server, to_client, ends, seen.clone()));
            }
        });
        Self {
            url: format!("http://{address}"),
            cut,
            _tasks: tasks,
        }
    }
}

/// Passes bytes on while the process at the other end of the connection between these ports is not cut off.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    ends: [u16; 2],
    mut cut: watch::Receiver<Option<u32>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let open = |cut: &Option<u32>| cut.is_none_or(|pid| !owns(pid, ends));
        let passes = cut.wait_for(open).await.is_ok();
        if !passes || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
}

/// Returns whether a process has the connection from the first of these local ports to the second.
fn owns(pid: u32, ends: [u16; 2]) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the table of connections");
    // The system gives one local port to several connections, if they lead to different addresses.
    let [local, remote] = ends.map(|port| format!("0100007F:{port:04X}"));
    let inode = table.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let is_here = words.nth(1) == Some(&local) && words.next() == Some(&remote);
        is_here.then(|| words.nth(6).map(str::to_owned))?
    });
    let Some(inode) = inode else { return false };
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"));
    let socket = format!("socket:[{inode}]");
    open.into_iter().flatten().flatten().any(|file| {
        let target = std::fs::read_link(file.path());
        target.is_ok_and(|target| target.as_os_str() == socket.as_str())
    })
}

#[tokio::test]
async fn a_leader_that_does_not_reach_its_node_gives_its_lead_to_one_that_does() {
    let anvil = Anvil::start(Some(Duration::from_secs(1))).await;
    let gate = Gate::to(anvil.url()).await;
    let (deployment, _wire) = two(&gate.url).await;
    published_up_to(&deployment, "demo", 2).await;
    gate.cut.send_replace(Some(deployment.service(FIRST).pid()));
    let head = anvil.head().await + 6;
    published_up_to(&deployment, "demo", head).await;
    let gap = longest_gap(&deployment).await;
    println!("{} ms between two blocks", gap.as_millis());
    // A request without an answer times out after 5 s.
    assert!(gap < Duration::from_secs(5) + GAP_MAX, "{gap:?}");
    not_ready_of(&deployment, FIRST, "no answer within").await;

    // The node is away for both. Each notices, and neither leads until the node is back.
    gate.cut.send_replace(None);
    deployment.service(FIRST).ready(PATIENCE).await;
    anvil.pause();
    for label in [FIRST, SECOND] {
        not_ready_of(&deployment, label, "no answer within").await;
    }
    anvil.resume();
    let head = anvil.head().await + 2;
    let published = published_up_to(&deployment, "demo", head).await;
    assert_eq!(numbers(&published)[..3], [1, 2, 3]);
    deployment.ready().await;
    let wins = wins(&deployment, FIRST) + wins(&deployment, SECOND);
    assert!(wins <= 4, "the lead went to and fro: won {wins} times");
}

#[tokio::test]
async fn a_leader_whose_node_gives_no_block_hands_its_lead_over_and_the_next_one_tries_as_long() {
    let anvil = Anvil::start(None).await;
    anvil.mine(2).await;
    let node = NodeProxy::to(anvil.url()).await;
    let (deployment, _wire) = two(&node.url).await;
    published_up_to(&deployment, "demo", 2).await;
    node.on_question(|question| match asks_for(question, 3) {
        true => Reply::Result(serde_json::Value::Null),
        false => Reply::Node,
    });
    anvil.mine(3).await;
    not_ready_of(&deployment, FIRST, "has no block 3").await;
    wait_for("the second one to lead", PATIENCE, async || {
        wins(&deployment, SECOND) == 1
    })
    .await;
    not_ready_of(&deployment, SECOND, "has no block 3").await;
    let log = deployment.service(FIRST).log();
    assert!(log.contains("resigned: the node answers"), "{log}");
    assert_eq!(wins(&deployment, FIRST), 1);
    node.on_question(|_| Reply::Node);
    assert_eq!(
        numbers(&published_up_to(&deployment, "demo", 5).await),
        [1, 2, 3, 4, 5]
    );
}
