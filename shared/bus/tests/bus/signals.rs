use crate::{Broker, SOON, soon};
use push0_bus::{Bus, Message, Signals};
use push0_domain::{
    ProverId, ZkvmId,
    subject::{self, Kind},
    trace::TraceContext,
};
use push0_harness::wait_for;

fn zkvm() -> ZkvmId {
    "mock".parse().expect("a name")
}

fn prover(name: &str) -> ProverId {
    name.parse().expect("a name")
}

async fn say(bus: &Bus, subject: String, bytes: usize) {
    let body = "x".repeat(bytes);
    let message = Message::new(subject, &body, &TraceContext::default()).expect("it can be written");
    bus.signal(message).await.expect("sent");
}

async fn listening(broker: &Broker, kind: Kind) -> Signals {
    let signals = broker.bus.listen([subject::all(kind)]).await;
    broker.bus.flush().await;
    signals.expect("listening")
}

async fn dropped(signals: &Signals, least: u64) {
    wait_for("messages to be dropped", SOON, async || {
        let dropped = signals.dropped();
        if dropped >= least { Ok(()) } else { Err(dropped) }
    })
    .await;
}

/// 1,280 large leases took 474 MB of a dispatcher.
#[tokio::test]
async fn a_flood_of_one_sender_is_dropped_at_its_limit_and_others_are_heard() {
    let broker = Broker::start().await;
    let mut signals = listening(&broker, Kind::Lease).await;
    let hostile = broker.another().await;
    let (large, many) = (500_usize << 10, 100_u64);
    for _ in 0..many {
        say(&hostile, subject::lease(&zkvm(), &prover("hostile")), large).await;
    }
    let kept = (8_u64 << 20) / large as u64;
    dropped(&signals, many - kept).await;
    say(&hostile, subject::lease(&zkvm(), &prover("honest")), 10).await;
    let mut flood = 0;
    loop {
        let heard = soon(signals.next()).await.expect("connected");
        if heard.subject().ends_with(".honest") {
            break;
        }
        flood += heard.bytes().len();
    }
    assert!(flood <= 8 << 20, "{flood} bytes waited");
}

#[tokio::test]
async fn a_message_that_its_stream_would_not_take_is_not_heard() {
    let broker = Broker::start().await;
    let mut signals = listening(&broker, Kind::Result).await;
    let of = |block| subject::result(&prover("p1"), &crate::attempt(block, 0), None);
    say(&broker.bus, of(1), 300 << 10).await;
    say(&broker.bus, of(2), 200 << 10).await;
    let heard = soon(signals.next()).await.expect("connected");
    assert_eq!(heard.subject(), of(2));
    assert_eq!(signals.dropped(), 1);
}
