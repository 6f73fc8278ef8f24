//! The bus against a real broker: one test for each documented promise.

mod blobs;
mod brokers;
mod connection;
mod copies;
mod delivery;
mod duty;
mod facts;
mod leadership;
mod log;
mod presence;
mod provision;
mod publish;
mod pull;
mod refusal;
mod services;
mod signals;
mod standing;

use push0_bus::{Bus, Limits, Message, NatsConfig};
use push0_domain::{BlockHash, BlockRef, ZkvmId, subject::AttemptKey, task::StageKey, trace::TraceContext};
use push0_harness::NatsServer;
use serde::Serialize;
use std::{fmt::Debug, time::Duration};

/// Limit for an operation that should take milliseconds; generous, for a busy machine.
const SOON: Duration = Duration::from_secs(5);
/// How long a test waits to see that nothing happens.
const A_WHILE: Duration = Duration::from_millis(200);

struct Broker {
    bus: Bus,
    server: NatsServer,
}

impl Broker {
    /// Starts and provisions a broker.
    async fn start() -> Self {
        Self::with_limits(&Limits {
            store_bytes: 1 << 30,
            ..Limits::default()
        })
        .await
    }

    async fn with_limits(limits: &Limits) -> Self {
        let server = NatsServer::start().await;
        let bus = connect(&server).await;
        bus.provision(limits).await.expect("provisioned");
        bus.provision_zkvm(&mock()).await.expect("provisioned");
        Self { bus, server }
    }

    /// Opens another connection, as another process would.
    async fn another(&self) -> Bus {
        connect(&self.server).await
    }

    /// Returns a bare client, for operations push0 itself never performs.
    async fn jetstream(&self) -> async_nats::jetstream::Context {
        let client = async_nats::connect(self.server.url()).await.expect("connected");
        async_nats::jetstream::new(client)
    }
}

async fn connect(server: &NatsServer) -> Bus {
    let config = NatsConfig {
        url: server.url(),
        ..NatsConfig::default()
    };
    let bus = Bus::connect(&config, "test").await.expect("a valid URL");
    bus.connected().await;
    bus
}

fn mock() -> ZkvmId {
    ZkvmId::new("mock").expect("a name")
}

fn attempt(block: u64, index: u32) -> AttemptKey {
    let stage = StageKey {
        pipeline: "demo".parse().expect("a name"),
        block: BlockRef {
            number: block,
            hash: BlockHash([7; 32]),
        },
        first: None,
        proof_type: "main".parse().expect("a name"),
        stage: "prove".parse().expect("a name"),
    };
    AttemptKey::of(&mock(), &stage.task(index).attempt(1))
}

fn trace() -> TraceContext {
    TraceContext {
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        tracestate: Some("a=1,b=2".into()),
    }
}

fn message<T: Serialize>(subject: String, body: &T) -> Message {
    Message::new(subject, body, &trace()).expect("it can be written")
}

/// Waits for an operation that should take milliseconds.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what)
        .await
        .expect("it takes milliseconds")
}

/// Checks that a future does not complete within [`A_WHILE`].
async fn never<T: Debug>(what: impl Future<Output = T>) {
    if let Ok(value) = tokio::time::timeout(A_WHILE, what).await {
        assert!(A_WHILE.is_zero(), "this should not have come: {value:?}");
    }
}
