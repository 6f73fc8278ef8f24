//! A hostile prover beside an honest pipeline: the effect of each attack, and the cost to the honest one.
//!
//! The attacker has the seed of one prover of the honest pipeline's zkVM, and speaks the protocol of NATS by hand. Each
//! attack lasts for one window of honest blocks, after a window without an attack. An attack goes on at a fixed rate:
//! attacker and victim share the cores of one machine here, and a faster loop would measure that.

use crate::{
    compare::Comparison,
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::{Times, round},
};
use anyhow::bail;
use push0_domain::{message::Role, subject::ROOT};
use push0_harness::Broker;
use push0_hostile::Client;
use std::{collections::VecDeque, convert::Infallible, time::Duration};
use tokio::time::{MissedTickBehavior, interval};

/// Name of the attacker, which has an account and no process.
const EVIL: &str = "evil";
/// Honest blocks a second.
const RATE: f64 = 20.0;
/// Time of an honest proof.
const PROVE: Duration = Duration::from_millis(100);
/// Most connections that the attacker holds at once.
const CONNECTIONS: usize = 50;
/// How long the attacker waits for a task.
const TASK: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
enum Attack {
    /// Unreadable results of attempts that were never released.
    Results,
    /// Unreadable checks of such attempts.
    Checks,
    /// Unreadable leases, every second one in the name of a neighbour.
    Leases,
    /// Blobs that no message names, 5 MB a second.
    Blobs,
    /// Records, blocks, cancels, orders, facts, and deleted streams, none of which a prover may write.
    Forgeries,
    /// Headers that guard, replace, schedule and roll up, on its own subjects.
    Headers,
    /// Reads of the blob store.
    Reads,
    /// New connections, up to fifty at once.
    Connections,
    /// Tasks that it takes and leaves undone.
    Hoarding,
}

impl Attack {
    const ALL: [Self; 9] = [
        Self::Results,
        Self::Checks,
        Self::Leases,
        Self::Blobs,
        Self::Forgeries,
        Self::Headers,
        Self::Reads,
        Self::Connections,
        Self::Hoarding,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Results => "results",
            Self::Checks => "checks",
            Self::Leases => "leases",
            Self::Blobs => "blobs",
            Self::Forgeries => "forgeries",
            Self::Headers => "headers",
            Self::Reads => "reads",
            Self::Connections => "connections",
            Self::Hoarding => "hoarding",
        }
    }

    /// Returns the pause between two steps.
    fn pause(self) -> Duration {
        Duration::from_millis(match self {
            Self::Blobs | Self::Connections => 50,
            _ => 5,
        })
    }
}

/// The attacker, and the outcomes of its steps.
struct Attacker {
    url: String,
    seed: String,
    key: String,
    sent: u64,
    refused: u64,
    connections: VecDeque<Client>,
}

impl Attacker {
    fn new(stand: &Stand) -> anyhow::Result<Self> {
        let Some(seed) = stand.deployment.seed(EVIL) else {
            bail!("the stand has no accounts");
        };
        Ok(Self {
            url: stand.deployment.nats.urls(),
            seed: std::fs::read_to_string(seed)?,
            key: push0_hostile::key_of(&stand.deployment, EVIL),
            sent: 0,
            refused: 0,
            connections: VecDeque::new(),
        })
    }

    async fn connect(&self) -> anyhow::Result<Client> {
        let client = Client::connect(&self.url, &self.seed, None).await;
        client.map_err(anyhow::Error::msg)
    }

    /// Attacks until it is dropped.
    async fn attack(&mut self, attack: Attack) -> anyhow::Result<Infallible> {
        let mut client = self.connect().await?;
        let mut tick = interval(attack.pause());
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let refusals = self.step(attack, &mut client).await?;
            self.sent += 1;
            self.refused += u64::from(refusals > 0);
        }
    }

    /// Takes one step, and returns the number of the broker's refusals.
    async fn step(&mut self, attack: Attack, client: &mut Client) -> anyhow::Result<usize> {
        let turn = usize::try_from(self.sent)?;
        let refusals = match attack {
            Attack::Results => {
                client
                    .publish(&self.report("result"), "", &[], &[0xff; 1024])
                    .await
            }
            Attack::Checks => {
                client
                    .publish(&self.report("check"), "", &[], &[0xff; 1024])
                    .await
            }
            Attack::Leases => {
                let name = if turn.is_multiple_of(2) { EVIL } else { "p1" };
                let subject = format!("{ROOT}.lease.mock.{name}");
                client.publish(&subject, "", &[], &[0xff; 1024]).await
            }
            Attack::Blobs => {
                let subject = format!("{ROOT}.blob.mock.{EVIL}.load.1.{turn:064x}.0");
                client.publish(&subject, "", &[], &vec![0; 256 * 1024]).await
            }
            Attack::Forgeries => {
                let forgeries = forgeries();
                let (subject, body) = &forgeries[turn % forgeries.len()];
                client.publish(subject, "", &[], body).await
            }
            Attack::Headers => {
                let header = HEADERS[turn % HEADERS.len()];
                client
                    .publish(&self.report("result"), "", &[header], &[0xff; 64])
                    .await
            }
            Attack::Reads => {
                let request = "$JS.push0.API.STREAM.MSG.GET.PUSH0_BLOBS";
                let body = format!("{{\"last_by_subj\": \"{ROOT}.blob.>\"}}");
                client.request(request, &[], body.as_bytes(), TASK).await;
                Vec::new()
            }
            Attack::Connections => {
                let another = self.connect().await?;
                self.connections.push_back(another);
                if self.connections.len() > CONNECTIONS {
                    self.connections.pop_front();
                }
                Vec::new()
            }
            Attack::Hoarding => {
                let request = "$JS.push0.API.CONSUMER.MSG.NEXT.PUSH0_TASKS.prover-mock";
                let body = br#"{"batch": 1, "group": "work", "expires": 900000000}"#;
                client.request(request, &[], body, TASK).await;
                Vec::new()
            }
        };
        Ok(refusals.len())
    }

    /// Returns the subject of a report on an attempt without a release, which the attacker may publish on.
    fn report(&self, kind: &str) -> String {
        let (number, key) = (self.sent + 1, &self.key);
        format!("{ROOT}.{kind}.mock.{EVIL}.load.{number}-00000000.main.prove.0.1.{key}")
    }
}

const HEADERS: [(&str, &str); 5] = [
    ("Nats-Rollup", "all"),
    ("Nats-Expected-Last-Sequence", "1"),
    ("Nats-TTL", "1s"),
    ("Nats-Schedule", "@every 1s"),
    ("Nats-Msg-Id", "1"),
];

/// Returns messages a prover may not publish.
fn forgeries() -> Vec<(String, &'static [u8])> {
    let api = |call: &str| format!("$JS.API.{call}");
    vec![
        (format!("{ROOT}.proof.load.1"), b"{}"),
        (format!("{ROOT}.block.load"), b"{}"),
        (format!("{ROOT}.cancel.load"), b"{}"),
        (format!("{ROOT}.ended.load"), b"{}"),
        (format!("{ROOT}.control.mock.p1"), b"{}"),
        (format!("{ROOT}.dead.load.x"), b"{}"),
        (
            format!("{ROOT}.result.mock.p1.load.1-00000000.main.prove.0.1._"),
            b"{}",
        ),
        ("$KV.push0_state.leader.dispatcher".into(), b"{}"),
        ("$KV.push0_pipelines.load.current".into(), b"{}"),
        ("$JS.ACK.PUSH0_RESULTS.collector-load.1.1.1.1.0".into(), b"+ACK"),
        (api("STREAM.DELETE.PUSH0_TASKS"), b""),
        (api("STREAM.PURGE.PUSH0_RESULTS"), b""),
        (api("CONSUMER.DELETE.PUSH0_TASKS.prover-mock"), b""),
    ]
}

/// Runs a window of honest blocks, and returns the time from block to record, the proof not included.
async fn window(stand: &mut Stand, blocks: u64, seed: u64) -> anyhow::Result<Times> {
    let arrivals = Arrivals::Rate {
        per_second: RATE,
        seed,
    };
    let records = stand.run(blocks, arrivals).await?;
    let passed = records.iter().map(|kept| {
        let emission = stand::proved(kept)?;
        Ok(kept.stored_at.0.saturating_sub(emission.stored_at.0))
    });
    passed.collect()
}

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let mut builder = stand::services().member(EVIL, Role::Prover, "mock");
    for name in ["p1", "p2", "p3"] {
        builder = builder.service(stand::prover(name, 4, PROVE));
    }
    builder = builder.service(stand::verifier("v1", 4));
    let mut stand = Stand::start(builder, &stand::single(true)).await?;
    stand.deployment.expect_refusals();
    let blocks = context.profile.pick(100, 600);
    let mut seed = 1;
    window(&mut stand, blocks, seed).await?;
    let (mut worst, mut windows) = (0.0_f64, 1);
    for attack in Attack::ALL {
        let quiet = window(&mut stand, blocks, seed).await?;
        let mut attacker = Attacker::new(&stand)?;
        let attacked = tokio::select! {
            attacked = window(&mut stand, blocks, seed) => attacked?,
            failed = attacker.attack(attack) => match failed? {},
        };
        windows += 2;
        seed += 1;
        let slowdown = round(attacked.ms(0.5) / quiet.ms(0.5));
        worst = worst.max(slowdown);
        context
            .record("hostile")
            .with("attack", attack.name())
            .with("sent", attacker.sent)
            .with("refused", attacker.refused)
            .with("quiet_p50_ms", quiet.ms(0.5))
            .with("quiet_p99_ms", quiet.ms(0.99))
            .with("p50_ms", attacked.ms(0.5))
            .with("p99_ms", attacked.ms(0.99))
            .with("honest_slowdown", slowdown)
            .publish()?;
    }
    let name = stand.pipeline.name.clone();
    let harmed = Comparison::of(stand.bus(), &name, 1..=windows * blocks)
        .await?
        .faults();
    context
        .record("hostile")
        .with("attacks", Attack::ALL.len())
        .with("blocks", windows * blocks)
        .with("harmed", harmed)
        .with("honest_slowdown", worst)
        .publish()?;
    if harmed > 0 {
        bail!("{harmed} honest blocks were lost, doubled, given up or out of order");
    }
    Ok(())
}
