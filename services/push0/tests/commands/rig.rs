//! A deployment for the commands: a broker, a pipeline, and records made by hand.

use push0_bus::{Bucket, Bus, Limits, Message, NatsConfig, Pipelines, now};
use push0_domain::message::{BlockFacts, Emission, EmissionOutcome, KnownBlock, Proof};
use push0_domain::path::{Leg, Parts};
use push0_domain::pipeline::Pipeline;
use push0_domain::trace::TraceContext;
use push0_domain::{Announcement, BlockHash, BlockRef, Payload, Timestamp, subject};
use push0_harness::NatsServer;
use std::process::{Command, Output, Stdio};

pub(crate) const PIPELINE: &str = "name = \"demo\"\n[source]\nkind = \"http\"\n[[proof]]\ntype = \"fast\"\nzkvm = \"vm\"\n\
                        program_id = \"0xabc\"\n[[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"1s\"\n";

pub(crate) fn push0(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_push0"));
    command
        .args(args)
        .env_remove("PUSH0_NATS__URL")
        .stdin(Stdio::null());
    command
        .args(["--dir", "/nonexistent/push0"])
        .output()
        .expect("push0 runs")
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) struct Deployment {
    pub(crate) nats: NatsServer,
    pub(crate) bus: Bus,
}

impl Deployment {
    pub(crate) async fn start() -> Self {
        let nats = NatsServer::start().await;
        let config = NatsConfig {
            url: nats.url(),
            ..NatsConfig::default()
        };
        let bus = Bus::connect(&config, "test").await.expect("a good URL");
        bus.connected().await;
        bus.provision(&Limits {
            store_bytes: 1 << 30,
            ..Limits::default()
        })
        .await
        .expect("it is provisioned");
        let pipeline = Pipeline::from_toml("demo.toml", PIPELINE).expect("a good file");
        Pipelines::bind(&bus)
            .await
            .expect("it is there")
            .apply(pipeline)
            .await
            .expect("it is applied");
        Self { nats, bus }
    }

    pub(crate) fn push0(&self, args: &[&str]) -> Output {
        let url = self.nats.url();
        push0(&[args, &["--nats", &url]].concat())
    }

    /// Returns the output of a command, which must succeed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.push0(args);
        assert!(
            output.status.success(),
            "{args:?}: {}{}",
            stdout(&output),
            stderr(&output)
        );
        stdout(&output)
    }

    pub(crate) fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(&[args, &["--json"]].concat())).expect("it is JSON")
    }

    /// Stores what the ingester knows about a block.
    pub(crate) async fn remember(&self, number: u64, input: Option<Payload>) -> KnownBlock {
        self.remember_block(block(number), input).await
    }

    pub(crate) async fn remember_block(&self, block: BlockRef, input: Option<Payload>) -> KnownBlock {
        let known = KnownBlock {
            block,
            parent_hash: BlockHash([9; 32]),
            revision: 1,
            observed_at: now(),
            announced_after: Announcement::default(),
            input,
            facts: BlockFacts {
                transactions: 5,
                ..BlockFacts::default()
            },
        };
        let facts = self.bus.facts(Bucket::Blocks).await.expect("it is there");
        facts
            .put(
                &subject::facts::known_block(&"demo".parse().expect("a name"), &block),
                &known,
            )
            .await
            .expect("it is stored");
        known
    }

    pub(crate) async fn emit(&self, number: u64, outcome: EmissionOutcome) {
        self.emit_block(block(number), outcome).await;
    }

    pub(crate) async fn emit_block(&self, block: BlockRef, outcome: EmissionOutcome) {
        let number = block.number;
        let known = self.remember_block(block, None).await;
        let stored_at = Timestamp(now().0 - 1_000_000);
        let emission = Emission {
            pipeline: "demo".parse().expect("a name"),
            first: block,
            hashes: Vec::new(),
            standing: Vec::new(),
            last: block,
            parent_hash: known.parent_hash,
            outcome: told_of(outcome, stored_at),
            next: number + 1,
            announcement: Announcement(number),
            stored_at,
            order_us: 0,
            facts: known.facts,
        };
        let subject = subject::proof(&emission.pipeline, number);
        self.publish(subject, &emission).await;
    }

    pub(crate) async fn publish<T: serde::Serialize>(&self, subject: String, body: &T) {
        let trace = TraceContext {
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            tracestate: None,
        };
        let message = Message::new(subject, body, &trace).expect("it encodes");
        self.bus.publish(message).await.expect("it is stored");
    }
}

pub(crate) fn block(number: u64) -> BlockRef {
    BlockRef {
        number,
        hash: BlockHash([u8::try_from(number % 256).expect("a byte"); 32]),
    }
}

pub(crate) fn proved(verifier: Option<&str>, payload: Payload) -> EmissionOutcome {
    EmissionOutcome::Proved(vec![Proof {
        proof_type: "fast".parse().expect("a name"),
        zkvm: "vm".parse().expect("a name"),
        program_id: None,
        prover: "vm-1".parse().expect("a name"),
        verifier: verifier.map(|v| v.parse().expect("a name")),
        bytes: payload.len(),
        payload,
        prove_us: 880_000,
        transfer_us: 0,
        verify_us: 20_000,
        attempt: 1,
        path: Vec::new(),
        signed: None,
    }])
}

/// Lets proofs tell that 0.9 s since `stored_at` passed inside the prover and the verifier.
pub(crate) fn told_of(mut outcome: EmissionOutcome, stored_at: Timestamp) -> EmissionOutcome {
    if let EmissionOutcome::Proved(proofs) = &mut outcome {
        for proof in proofs {
            proof.path = vec![Leg {
                stage: "prove".parse().expect("a name"),
                ready_at: stored_at,
                ended_at: Timestamp(stored_at.0 + 950_000),
                prover: proof.prover.clone(),
                verifier: proof.verifier.clone(),
                failed: 0,
                parts: Parts {
                    prove_us: 880_000,
                    verify_us: 20_000,
                    ..Parts::default()
                },
            }];
        }
    }
    outcome
}

pub(crate) fn good() -> EmissionOutcome {
    proved(Some("vm-verifier-1"), Payload::Inline(b"proof".to_vec()))
}
