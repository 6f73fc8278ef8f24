//! A prover takes tasks of its zkVM away: it acknowledges them and gives no result, or made-up ones.

use push0_accounts::API_PREFIX;
use push0_bus::{Bus, Delivery, Membership, Message, NatsConfig, Stream};
use push0_domain::{
    Payload, Payloads, ProverId,
    message::{
        EmissionOutcome, Failure, FailureClass, Held, Lease, Outcome, ProverState, ResultEvent, Role, Task,
        TaskHeader, TaskResult,
    },
    seal::Seal,
    subject,
    trace::TraceContext,
};
use push0_harness::{Deployment, Process, ProcessBuilder, assert_complete_in_order, wait_for};
use push0_hostile::{PATIENCE, key_of};
use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

pub(crate) const THIEF: &str = "thief";
const BLOCKS: u64 = 60;
const STOLEN: usize = 5;

pub(crate) async fn sign_in(deployment: &Deployment) -> Bus {
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

/// Says that the thief is alive and free, so that the dispatcher releases tasks for the thief.
pub(crate) async fn feign(bus: &Bus, slots: usize, held: Vec<Held>) -> Infallible {
    let mut lease = Lease {
        prover: THIEF.parse().expect("a name"),
        zkvm: "mock".parse().expect("a name"),
        role: Role::Prover,
        incarnation: 7,
        origin: None,
        beat: 0,
        slots: slots as u32,
        ahead: 0,
        state: ProverState::Active,
        held,
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

/// Takes as many deliveries of tasks.
pub(crate) async fn take(bus: &Bus, count: usize) -> Vec<Delivery<Task>> {
    let mut puller = bus
        .puller(Stream::Tasks, "prover-mock")
        .await
        .expect("a consumer");
    let mut taken = Vec::new();
    while taken.len() < count {
        let task = puller.next::<Task>(count - taken.len()).await;
        taken.push(task.expect("a task"));
    }
    taken
}

/// Takes tasks away, and returns them.
async fn steal(bus: &Bus) -> Vec<Task> {
    let mut stolen = Vec::new();
    for task in take(bus, STOLEN).await {
        task.ack.done().await;
        stolen.push(task.body);
    }
    stolen
}

/// Returns the end of an attempt of the thief, which nobody signed.
pub(crate) fn unsigned(header: TaskHeader, task: &Task, outcome: Outcome) -> TaskResult {
    TaskResult {
        header,
        prover: THIEF.parse().expect("a name"),
        outcome,
        inputs: Some(task.inputs.clone()),
        prove_us: 1,
        transfer_us: 0,
        waited_us: 0,
        signature: None,
        verdict: None,
    }
}

/// Makes up a check and one result after another of stolen tasks, so that each look at a stream finds something.
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
            let (result, check) = (
                subject::result(&thief, &header.key(), Some(key)),
                subject::check(&thief, &header.key(), Some(key)),
            );
            let made_up = |outcome| unsigned(header.clone(), task, outcome);
            let failed = made_up(Outcome::Failed(Failure::new(FailureClass::Retryable, "made up")));
            let completed = made_up(Outcome::Completed {
                outputs: Payloads::one(Payload::empty()),
            });
            let trace = TraceContext::default();
            let messages = [
                Message::new(result, &ResultEvent::Attempt(failed), &trace),
                // No verifier takes the check, so it stays.
                Message::new(check, &completed, &trace),
            ];
            for message in messages {
                // The broker refuses a result while the one before is unread.
                let _ = bus.publish(message.expect("it can be written")).await;
            }
        }
    }
}

const PIPELINE: &str = "name = \"demo\"\nsource = { kind = \"external\" }\n[[proof]]\ntype = \"main\"\nzkvm = \"mock\"\n\
                        verify = \"off\"\n[[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"20s\"\n";

pub(crate) fn honest(name: &str, slots: usize, time: &str) -> ProcessBuilder {
    Process::program("prover-mock")
        .label(name)
        .env("PUSH0_PROVER__ID", name)
        .env("PUSH0_PROVER__SLOTS", slots)
        .env("PUSH0_MOCK__TIME", time)
}

/// Waits until one of the honest provers runs the task of a block, and returns the prover's name.
async fn runs(deployment: &Deployment, block: u64) -> &'static str {
    let zkvm = "mock".parse().expect("a name");
    wait_for("a running attempt", PATIENCE, async || {
        for name in ["p1", "p2"] {
            let subject = subject::lease(&zkvm, &name.parse().expect("a name"));
            let kept = deployment.bus().last::<Lease>(Stream::Leases, &subject).await;
            let lease = kept.ok().flatten().and_then(|kept| kept.body.ok());
            let is_it = |held: &Held| held.running_ms.is_some() && held.header.id.stage.block.number == block;
            if lease.is_some_and(|lease| lease.held.iter().any(is_it)) {
                return Some(name);
            }
        }
        None
    })
    .await
}

/// The headers of a thousand tasks that others have proved are sealed, and their blocks are emitted. The thief lists them
/// as running, which calls for a thousand orders to stop in each second.
#[tokio::test]
async fn a_lease_of_a_thousand_old_tasks_delays_no_death_of_another() {
    const TASKS: usize = 1000;
    const BLOCK: u64 = TASKS as u64 + 1;
    let demo = "demo".parse().expect("a name");
    let builder = Deployment::builder().as_shipped().pipeline(PIPELINE);
    let builder = builder.member(THIEF, Role::Prover, "mock");
    let mut deployment = builder.service(honest("p1", 64, "1s")).start().await;
    let thief = sign_in(&deployment).await;
    deployment.submit_blocks(&demo, 1..=TASKS as u64).await;
    let taken = tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            taken = take(&thief, TASKS - 64) => taken,
            never = feign(&thief, TASKS, Vec::new()) => match never {},
        }
    })
    .await
    .expect("the thief gets tasks");
    let mut held = Vec::new();
    for task in taken {
        task.ack.give_back(Duration::ZERO).await;
        held.push(Held {
            header: task.body.header,
            sequence: task.sequence,
            running_ms: Some(1),
            ends_soon: false,
            progress_permille: None,
            trace: TraceContext::default(),
        });
    }
    deployment.start_service(honest("p2", 64, "1s"));
    deployment.wait_emitted(&demo, TASKS, 2 * PATIENCE).await;

    let attacked = async {
        let mut copies = Vec::new();
        for block in BLOCK..BLOCK + 3 {
            deployment.submit_blocks(&demo, block..=block).await;
            let dying = runs(&deployment, block).await;
            deployment.service_mut(dying).kill();
            let began = Instant::now();
            deployment.wait_emitted(&demo, block as usize, PATIENCE).await;
            copies.push(began.elapsed());
            deployment.service_mut(dying).restart();
        }
        copies
    };
    let copies = tokio::select! {
        copies = attacked => copies,
        never = feign(&thief, TASKS, held) => match never {},
    };
    // 750 ms of silence, and a second of proving. Without a watchdog the broker's ack wait of 5 s comes first.
    assert!(
        copies.iter().all(|took| *took < Duration::from_secs(5)),
        "{copies:?}"
    );
}

/// Lets the thief take tasks of zkVM `mock` away and make up results of them without end, while the blocks are proved in so
/// many records. Returns how many proofs were begun anew, by the metric `series` of `program`.
async fn others_prove(deployment: &Deployment, records: usize, (program, series): (&str, &str)) -> usize {
    let demo = "demo".parse().expect("a name");
    let thief = sign_in(deployment).await;
    deployment.submit_blocks(&demo, 1..=BLOCKS).await;
    let stolen = tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            stolen = steal(&thief) => stolen,
            never = feign(&thief, STOLEN, Vec::new()) => match never {},
        }
    })
    .await
    .expect("the thief gets tasks");

    let key = key_of(deployment, THIEF);
    let emissions = tokio::select! {
        emissions = deployment.wait_emitted(&demo, records, 2 * PATIENCE) => emissions,
        never = forge(&thief, &key, &stolen) => match never {},
    };
    assert_complete_in_order(&emissions, 1..=BLOCKS);
    for kept in &emissions {
        let outcome = &kept.body.as_ref().expect("a readable record").outcome;
        assert!(matches!(outcome, EmissionOutcome::Proved(_)), "{outcome:?}");
    }
    let mut lost = 0;
    for service in deployment.instances(program) {
        let metrics = service.metrics().await;
        let counts = metrics.lines().filter_map(|line| line.strip_prefix(series));
        lost += counts
            .map(|count| count.trim().parse::<usize>().expect("a number"))
            .sum::<usize>();
    }
    lost
}

#[tokio::test]
async fn what_a_thief_takes_away_is_proved_by_others() {
    let builder = Deployment::builder().as_shipped().pipeline(PIPELINE);
    let builder = builder
        .member(THIEF, Role::Prover, "mock")
        .service(honest("p1", 2, "50ms"));
    let deployment = builder.start().await;
    let series = "push0_watchdog_acts_total{act=\"lost\"}";
    let lost = others_prove(&deployment, BLOCKS as usize, ("watchdog", series)).await;
    assert_eq!(lost, STOLEN);
}

/// The thief proves ranges only, each of which is one task.
#[tokio::test]
async fn what_a_thief_takes_away_of_ranges_is_proved_by_others() {
    const EVERY: u64 = 3;
    let pipeline = PIPELINE.replace("zkvm = \"mock\"", "zkvm = \"blocks\"");
    let ranges = format!(
        "[[proof.stage]]\nname = \"aggregate\"\nkind = \"range\"\nzkvm = \"mock\"\nevery = {EVERY}\nclose_after = \"5s\"\n\
         timeout = \"20s\"\n"
    );
    let builder = Deployment::builder().as_shipped().pipeline(&(pipeline + &ranges));
    let builder = builder
        .member(THIEF, Role::Prover, "mock")
        .service(honest("p1", 2, "50ms"))
        .service(honest("p2", 2, "50ms").env("PUSH0_PROVER__ZKVM", "blocks"));
    let deployment = builder.start().await;
    // Blocks 1 and 2 are the first range, block 60 the last one.
    let records = BLOCKS / EVERY + 1;
    let series = "push0_ranges_lost_total{pipeline=\"demo\"}";
    let lost = others_prove(&deployment, records as usize, ("collector", series)).await;
    // On a busy machine another collector may take over, which asks for ranges without results in any case.
    assert!(lost <= STOLEN, "{lost}");
}
