//! The interface against a real broker.

use super::*;
use crate::{
    config::GatewayConfig,
    fixture::{block, demo},
    model::{Output, Reading},
    newest, recall, refresh,
    shared::Shared,
};
use axum::http::StatusCode;
use push0_bus::{Bucket, Bus, DeadLetters, Limits, Message, NatsConfig, Pipelines, Service, Stream, now};
use push0_domain::{
    Announcement, BlockHash, CriticalPath, Payload, Payloads, StageKey,
    message::{
        AttemptRecord, BlockContext, BlockEvent, BlockFacts, Dead, DeadLetter, Emission, EmissionOutcome,
        Failure, FailureClass, KnownBlock, ObservedBlock, Proof, StageReady, TaskRange,
    },
    payload::BLOB_PART_LEN,
    pipeline::Pipeline,
    subject,
    trace::TraceContext,
};
use push0_harness::NatsServer;
use push0_operate::retry::{self, DeadBlock};
use reqwest::{Client, Response as Answer};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

struct Stand {
    bus: Bus,
    shared: Shared,
    url: String,
    client: Client,
    _serving: JoinSet<()>,
    _server: NatsServer,
}

impl Stand {
    async fn start() -> Self {
        let server = NatsServer::start().await;
        let config = NatsConfig {
            url: server.url(),
            ..NatsConfig::default()
        };
        let bus = Bus::connect(&config, "test").await.unwrap();
        bus.connected().await;
        let limits = Limits {
            store_bytes: 1 << 30,
            ..Limits::default()
        };
        bus.provision(&limits).await.unwrap();
        let shared = Shared::new(7);
        let interface = Interface::new(&GatewayConfig::default(), bus.clone(), shared.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api/v1", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, router(interface)));
        Self {
            bus,
            shared,
            url,
            client: Client::new(),
            _serving: serving,
            _server: server,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        let asked = self.client.get(format!("{}/{path}", self.url));
        asked.send().await.unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.json().await.unwrap()
    }

    async fn record(&self, number: u64, outcome: EmissionOutcome) {
        let record = Emission {
            pipeline: demo(),
            first: block(number),
            last: block(number),
            hashes: Vec::new(),
            standing: Vec::new(),
            parent_hash: BlockHash::default(),
            outcome,
            next: number + 1,
            announcement: Announcement(number),
            stored_at: now(),
            order_us: 0,
            facts: BlockFacts::default(),
        };
        let subject = subject::proof(&demo(), number);
        self.publish(subject, &record).await;
    }

    async fn publish(&self, subject: String, body: &impl serde::Serialize) {
        let message = Message::new(subject, body, &TraceContext::default()).unwrap();
        self.bus.publish(message).await.unwrap();
    }

    /// Stores a letter of a block, with inputs as large as a message holds.
    async fn bury(&self, number: u64) -> String {
        let id = format!("letter-{number}");
        let retry = StageReady {
            stage: StageKey {
                pipeline: demo(),
                block: block(number),
                first: None,
                proof_type: "main".parse().unwrap(),
                stage: "prove".parse().unwrap(),
            },
            context: BlockContext {
                revision: 1,
                parent_hash: BlockHash::default(),
                announcement: Announcement(number),
                stored_at: now(),
                first_announcement: None,
                deadline_at: None,
                amends: true,
                facts: BlockFacts::default(),
            },
            zkvm: "mock".parse().unwrap(),
            tasks: TaskRange {
                first: 0,
                count: 1,
                of: 1,
            },
            attempt: 10,
            hedge_of: None,
            failed: 0,
            avoid: Vec::new(),
            inputs: Payloads::one(Payload::Inline(vec![7; 1000])),
            path: CriticalPath::default(),
        };
        let history = (1..10).map(|attempt| AttemptRecord {
            attempt,
            prover: "p1".parse().unwrap(),
            ended_at: now(),
            prove_us: 1,
            failure: Failure::new(FailureClass::Retryable, "no luck ".repeat(1000)),
        });
        let letter = DeadLetter {
            id: id.clone(),
            reason: "9 attempts failed".into(),
            at: now(),
            what: Dead::Task {
                retry,
                history: history.collect(),
            },
        };
        let letters = DeadLetters::new(self.bus.clone());
        letters
            .store(Some(&demo()), &letter, &TraceContext::default())
            .await
            .unwrap();
        id
    }
}

fn proof(payload: Payload, bytes: u64) -> EmissionOutcome {
    EmissionOutcome::Proved(vec![Proof {
        proof_type: "main".parse().unwrap(),
        zkvm: "mock".parse().unwrap(),
        program_id: None,
        prover: "p1".parse().unwrap(),
        verifier: None,
        payload,
        bytes,
        prove_us: 1,
        transfer_us: 1,
        verify_us: 1,
        attempt: 1,
        path: Vec::new(),
        signed: None,
    }])
}

fn blocks_of(letters: &Value) -> Vec<u64> {
    let letters = letters.as_array().unwrap();
    letters
        .iter()
        .map(|letter| letter["block"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn of_very_many_letters_the_newest_are_listed_and_a_block_has_its_own() {
    let stand = Stand::start().await;
    for number in 1..=501 {
        let id = stand.bury(number).await;
        // Letters that were dropped leave gaps.
        if (300..480).contains(&number) {
            let dropped = subject::dead(Some(&demo()), &id);
            stand.bus.purge(Stream::Dead, &dropped).await.unwrap();
        }
    }
    let listed = stand.json("dead-letters").await;
    assert_eq!(listed["total"], 321);
    let newest: Vec<u64> = (480..=501).rev().chain((122..300).rev()).collect();
    assert_eq!(blocks_of(&listed["letters"]), newest);
    let attempts = listed["letters"][0]["attempts"].as_array().unwrap();
    assert_eq!((attempts.len(), &attempts[4]["attempt"]), (5, &9.into()));
    assert!(attempts[0]["message"].as_str().unwrap().len() <= 1024);
    // The same list is not read again, and a new letter is seen.
    stand.bury(600).await;
    let listed = stand.json("dead-letters").await;
    assert_eq!(blocks_of(&listed["letters"])[..2], [600, 501]);

    let outcome = |number| EmissionOutcome::Dead {
        dead_letter: format!("letter-{number}"),
        reason: "9 attempts failed".into(),
    };
    for number in [3, 501] {
        stand.record(number, outcome(number)).await;
        let detail = stand.json(&format!("pipelines/demo/blocks/{number}")).await;
        assert_eq!(detail["state"], "dead");
        assert_eq!(blocks_of(&detail["letters"]), [number]);
    }
}

#[tokio::test]
async fn a_retry_reads_the_letters_of_its_block_alone() {
    let stand = Stand::start().await;
    for number in 1..=20 {
        stand.bury(number).await;
    }
    let of_block = DeadBlock {
        pipeline: demo(),
        first: block(7),
        last: block(7),
    };
    let tasks = retry::tasks_of(&stand.bus, &of_block).await.unwrap();
    let ids: Vec<&str> = tasks.iter().map(|task| task.place.id.as_str()).collect();
    assert_eq!(ids, ["letter-7"]);
    let one = push0_operate::letters::Which::One("letter-8".into());
    let found = push0_operate::letters::find(&stand.bus, &one).await.unwrap();
    assert_eq!((found.len(), found[0].id.as_str()), (1, "letter-8"));
}

#[tokio::test]
async fn a_proof_is_handed_on_part_by_part_and_never_with_wrong_bytes() {
    let stand = Stand::start().await;
    let part = usize::try_from(BLOB_PART_LEN).unwrap();
    let bytes: Vec<u8> = (0..28 * part).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let writer = stand.bus.blobs().of_service(Service::Operator, &demo(), 1);
    let blob = writer.put(&bytes).await.unwrap();
    stand
        .record(1, proof(Payload::Blob(blob.clone()), blob.len))
        .await;
    let get = async || stand.get("pipelines/demo/blocks/1/proofs/main").await;
    // Clients that take nothing hold what they may, and others are told to come back.
    let (first, second, third) = (get().await, get().await, get().await);
    assert_eq!(third.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(third.headers().contains_key("retry-after"));
    let refusal: Value = third.json().await.unwrap();
    assert!(
        refusal["hint"].as_str().unwrap().contains("push0 proof get"),
        "{refusal}"
    );
    // Other questions are answered meanwhile.
    stand.json("dead-letters").await;
    drop(second);
    assert_eq!(first.content_length(), Some(bytes.len() as u64));
    assert!(first.bytes().await.unwrap() == bytes);

    let wrong = writer.name(&bytes[..2 * part]).await;
    stand
        .record(2, proof(Payload::Blob(wrong.clone()), wrong.len))
        .await;
    let missing = stand.get("pipelines/demo/blocks/2/proofs/main").await;
    assert!(missing.bytes().await.is_err(), "no byte of it is there");
}

#[tokio::test]
async fn blocks_that_wait_are_counted_by_their_stream_and_read_when_they_are_near() {
    let stand = Stand::start().await;
    let text = "name = \"demo\"\nsource = { kind = \"external\" }\n[[proof]]\ntype = \"main\"\nzkvm = \"mock\"\n\
                [[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"1s\"\n";
    let pipelines = Pipelines::bind(&stand.bus).await.unwrap();
    let definition = Pipeline::from_toml("demo.toml", text).unwrap();
    pipelines.apply(definition).await.unwrap();
    stand.record(9, proof(Payload::Inline(vec![1]), 1)).await;
    let facts = stand.bus.facts::<KnownBlock>(Bucket::Blocks).await.unwrap();
    for number in 10..=40 {
        let known = KnownBlock {
            block: block(number),
            parent_hash: block(number - 1).hash,
            revision: 1,
            observed_at: now(),
            announced_after: Announcement(number),
            input: None,
            facts: BlockFacts::default(),
        };
        let key = subject::facts::known_block(&demo(), &block(number));
        facts.put(&key, &known).await.unwrap();
        let observed = ObservedBlock {
            pipeline: demo(),
            revision: 1,
            block: block(number),
            parent_hash: known.parent_hash,
            input: Payload::Inline(vec![]),
            observed_at: now(),
            deadline_at: None,
            facts: known.facts,
        };
        stand
            .publish(subject::block(&demo()), &BlockEvent::Observed(observed))
            .await;
    }
    let mut reading = refresh::read(&stand.bus, &pipelines, vec![demo()]).await.unwrap();
    let output = &mut reading.pipelines[0].1;
    assert_eq!((output.next, output.waiting), (Some(10), 31));
    // An external ingester has no cursor.
    output.head = Some(40);
    stand.shared.with(|model| model.read(reading.clone(), now()));
    assert_eq!(recall::fill(&stand.bus, &stand.shared).await.unwrap(), 31);
    recall::recall(&stand.bus, &stand.shared, &reading).await.unwrap();
    let blocks = stand.json("pipelines/demo/blocks").await;
    let numbers = blocks["blocks"].as_array().unwrap().iter();
    let numbers: Vec<u64> = numbers.map(|block| block["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (9..=40).rev().collect::<Vec<_>>());
    // A block that no model holds is shown as it was announced.
    stand.shared.with(std::mem::take);
    let detail = stand.json("pipelines/demo/blocks/33").await;
    assert_eq!(
        (&detail["state"], &detail["number"]),
        (&"waiting".into(), &33.into())
    );
}

#[tokio::test]
async fn the_end_of_a_stream_is_read_backwards() {
    let stand = Stand::start().await;
    let all = subject::all(subject::Kind::Dead);
    let read = async |limit| {
        let sequence = |kept: push0_bus::Kept<DeadLetter>| Some(kept.sequence);
        newest::read(&stand.bus, Stream::Dead, &all, limit, sequence)
            .await
            .unwrap()
    };
    assert_eq!(read(5).await, [0; 0]);
    for number in 1..=9 {
        stand.bury(number).await;
    }
    assert_eq!(read(3).await, [7, 8, 9]);
    assert_eq!(read(100).await, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    for number in 3..=9 {
        let dropped = subject::dead(Some(&demo()), &format!("letter-{number}"));
        stand.bus.purge(Stream::Dead, &dropped).await.unwrap();
    }
    assert_eq!(read(1).await, [2]);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_let_go() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let mut patient = Patient::new(stream, Duration::from_millis(100));
    let answer = vec![7; 64 << 20];
    let soon = Duration::from_secs(5);
    let stalled = tokio::time::timeout(soon, patient.write_all(&answer)).await;
    let stalled = stalled.unwrap().unwrap_err();
    assert_eq!(stalled.kind(), io::ErrorKind::TimedOut);
    // A client that is slow and takes something has its time again.
    let mut taken = vec![0; 1 << 20];
    client.read_exact(&mut taken).await.unwrap();
    let again = patient.write_all(&answer[..1 << 10]);
    tokio::time::timeout(soon, again).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_is_kept_by_no_cache_and_given_to_no_page_of_elsewhere() {
    let stand = Stand::start().await;
    let answer = stand.get("session").await;
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert_eq!(stand.get("nothing").await.headers()["cache-control"], "no-store");
    let foreign = stand.client.get(format!("{}/session", stand.url));
    let foreign = foreign.header("origin", b"http://\xff".as_slice());
    assert_eq!(foreign.send().await.unwrap().status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn long_requests_are_refused() {
    let stand = Stand::start().await;
    let body = serde_json::json!({ "first": 1, "last": 1, "note": "x".repeat(BODY_MAX) });
    let asked = stand.client.post(format!("{}/pipelines/demo/cancel", stand.url));
    let answer = asked.json(&body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn every_refusal_says_why_in_json_and_is_described() {
    let stand = Stand::start().await;
    let asked = [
        ("nothing/here", 404),
        ("../", 404),
        ("pipelines/demo/nothing", 404),
        ("pipelines/demo", 404),
        ("pipelines/demo/blocks?before=x", 400),
        ("pipelines/demo/blocks/5/proofs/main", 404),
        ("pipelines/demo/blocks/x/proofs/main", 400),
        ("pipelines/demo/cancel", 405),
    ];
    for (path, status) in asked {
        let answer = stand.get(path).await;
        assert_eq!(answer.status(), status, "{path}");
        let body: Value = answer.json().await.unwrap();
        assert!(!body["error"].as_str().unwrap().is_empty(), "{path}: {body}");
    }
    let document = stand.json("../../openapi.json").await;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (_, operation) in item.as_object().unwrap() {
            let refusal = &operation["responses"]["503"]["content"]["application/json"]["schema"]["$ref"];
            assert_eq!(refusal, "#/components/schemas/Refusal", "{path}");
            assert_eq!(
                operation["responses"]["404"].is_object(),
                path.contains('{'),
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn a_cancellation_says_of_which_blocks_it_changes_nothing() {
    let stand = Stand::start().await;
    let text = "name = \"demo\"\nsource = { kind = \"external\" }\n[[proof]]\ntype = \"main\"\nzkvm = \"mock\"\n\
                [[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"1s\"\n";
    let definition = Arc::new(Pipeline::from_toml("demo.toml", text).unwrap());
    let output = Output {
        next: Some(9),
        head: Some(20),
        ..Output::default()
    };
    let reading = Reading {
        pipelines: vec![(definition, output)],
        ..Reading::default()
    };
    stand.shared.with(|model| model.read(reading, now()));
    let request = json!({ "first": 7, "last": 10, "note": "why" });
    let asked = stand.client.post(format!("{}/pipelines/demo/cancel", stand.url));
    let answer: Value = asked.json(&request).send().await.unwrap().json().await.unwrap();
    assert_eq!(
        answer["done"],
        "The cancellation of blocks 7 to 10 of demo is stored; 2 of them have their record already and keep it."
    );
}

#[tokio::test]
async fn records_beyond_the_output_are_shown_as_replaced_and_their_proofs_are_not_given() {
    let stand = Stand::start().await;
    for number in [7, 8, 9, 6] {
        stand.record(number, proof(Payload::Inline(vec![1]), 1)).await;
    }
    let text = "name = \"demo\"\nsource = { kind = \"external\" }\n[[proof]]\ntype = \"main\"\nzkvm = \"mock\"\n\
                [[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"1s\"\n";
    let pipelines = Pipelines::bind(&stand.bus).await.unwrap();
    let definition = Pipeline::from_toml("demo.toml", text).unwrap();
    pipelines.apply(definition).await.unwrap();
    let reading = refresh::read(&stand.bus, &pipelines, vec!["gone".parse().unwrap()]).await;
    let reading = reading.unwrap();
    assert_eq!(reading.over, ["gone".parse().unwrap()]);
    assert!(reading.made_at.is_some() && reading.leads.len() == 3);
    stand.shared.with(|model| model.read(reading, now()));
    let state =
        async |number: u64| stand.json(&format!("pipelines/demo/blocks/{number}")).await["state"].clone();
    assert_eq!(
        (state(6).await, state(8).await),
        ("proved".into(), "replaced".into())
    );
    let replaced = stand.get("pipelines/demo/blocks/8/proofs/main").await;
    assert_eq!(replaced.status(), StatusCode::NOT_FOUND);
    let standing = stand.get("pipelines/demo/blocks/6/proofs/main").await;
    assert_eq!(standing.status(), StatusCode::OK);
}
