//! A prover takes tasks of its zkVM away: it acknowledges them and gives no result, or made-up ones.

use push0_accounts::API_PREFIX;
use push0_bus::{Bus, Membership, Message, NatsConfig, Stream};
use push0_domain::{
    ProverId,
    message::{
        EmissionOutcome, Failure, FailureClass, Lease, Outcome, ProverState, ResultEvent, Role, Task,
        TaskHeader, TaskResult,
    },
    seal::Seal,
    subject,
    trace::TraceContext,
};
use push0_harness::{Deployment, Process, assert_complete_in_order};
use push0_hostile::{PATIENCE, key_of};
use std::{convert::Infallible, time::Duration};

const THIEF: &str = "thief";
const BLOCKS: u64 = 60;
const STOLEN: usize = 5;

async fn sign_in(deployment: &Deployment) -> Bus {
    let config = NatsConfig {
        url: deployment.nats.first().url(),
        nkey_seed: deployment.seed(THIEF),
        membership: Some(Membership {
            api_prefix: API_PREFIX.to_owned(),
            consumer: (Stream::Tasks, "prover-mock".to_owned()),
            drawn: None,
        }),
        ..NatsConfig::default()
    };
    let bus = Bus::connect(&config, THIEF).await.expect("a good URL");
    bus.connected().await;
    bus
}

/// Says that the thief is alive and free, so that the dispatcher releases tasks for it.
async fn feign(bus: &Bus) -> Infallible {
    let mut lease = Lease {
        prover: THIEF.parse().expect("a name"),
        zkvm: "mock".parse().expect("a name"),
        role: Role::Prover,
        incarnation: 7,
        origin: None,
        beat: 0,
        slots: STOLEN as u32,
        ahead: 0,
        state: ProverState::Active,
        held: Vec::new(),
    };
    let mut beat = tokio::time::interval(Duration::from_millis(100));
    loop {
        beat.tick().await;
        lease.beat += 1;
        let subject = subject::lease(&lease.zkvm, &lease.prover);
        let message = Message::new(subject, &lease, &TraceContext::default()).expect("it can be written");
        bus.signal(message).await.expect("it is sent");
    }
}

/// Takes tasks away, and returns them.
async fn steal(bus: &Bus) -> Vec<Task> {
    let mut puller = bus
        .puller(Stream::Tasks, "prover-mock")
        .await
        .expect("a consumer");
    let mut stolen = Vec::new();
    for _ in 0..STOLEN {
        let task = puller.next::<Task>(STOLEN).await.expect("a task");
        task.ack.done().await;
        stolen.push(task.body);
    }
    stolen
}

/// Makes up one result after another of stolen tasks, so that each look at a stream finds another one.
async fn forge(bus: &Bus, key: &str, stolen: &[Task]) -> Infallible {
    let thief: ProverId = THIEF.parse().expect("a name");
    let mut pause = tokio::time::interval(Duration::from_millis(10));
    loop {
        pause.tick().await;
        for task in stolen {
            let header = TaskHeader {
                seal: Seal::default(),
                ..task.header.clone()
            };
            let subject = subject::result(&thief, &header.key(), Some(key));
            let result = TaskResult {
                header,
                prover: thief.clone(),
                outcome: Outcome::Failed(Failure::new(FailureClass::Retryable, "made up")),
                inputs: Some(task.inputs.clone()),
                prove_us: 1,
                transfer_us: 0,
                waited_us: 0,
                signature: None,
                verdict: None,
            };
            let result = ResultEvent::Attempt(result);
            let message =
                Message::new(subject, &result, &TraceContext::default()).expect("it can be written");
            // The broker refuses a result while the one before is unread.
            let _ = bus.publish(message).await;
        }
    }
}

#[tokio::test]
async fn what_a_thief_takes_away_is_proved_by_others() {
    let pipeline = "name = \"demo\"\nsource = { kind = \"external\" }\n[[proof]]\ntype = \"main\"\nzkvm = \"mock\"\n\
                    verify = \"off\"\n[[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"20s\"\n";
    let honest = Process::program("prover-mock")
        .label("p1")
        .env("PUSH0_PROVER__ID", "p1")
        .env("PUSH0_PROVER__SLOTS", 2)
        .env("PUSH0_MOCK__TIME", "50ms");
    let builder = Deployment::builder().as_shipped().pipeline(pipeline);
    let builder = builder.member(THIEF, Role::Prover, "mock").service(honest);
    let deployment = builder.start().await;
    let demo = "demo".parse().expect("a name");
    let thief = sign_in(&deployment).await;
    deployment.submit_blocks(&demo, 1..=BLOCKS).await;
    let stolen = tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            stolen = steal(&thief) => stolen,
            never = feign(&thief) => match never {},
        }
    })
    .await
    .expect("the thief gets tasks");

    let key = key_of(&deployment, THIEF);
    let emissions = tokio::select! {
        emissions = deployment.wait_emitted(&demo, BLOCKS as usize, 2 * PATIENCE) => emissions,
        never = forge(&thief, &key, &stolen) => match never {},
    };
    assert_complete_in_order(&emissions, 1..=BLOCKS);
    for kept in &emissions {
        let outcome = &kept.body.as_ref().expect("a readable record").outcome;
        assert!(matches!(outcome, EmissionOutcome::Proved(_)), "{outcome:?}");
    }
    let mut lost = 0;
    for watchdog in deployment.instances("watchdog") {
        let metrics = watchdog.metrics().await;
        let acts = metrics
            .lines()
            .filter_map(|line| line.strip_prefix("push0_watchdog_acts_total{act=\"lost\"} "));
        lost += acts
            .map(|acts| acts.parse::<usize>().expect("a number"))
            .sum::<usize>();
    }
    assert_eq!(lost, STOLEN);
}
