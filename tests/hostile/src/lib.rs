//! An attacker's client, which speaks the protocol of NATS by hand and so sends what no good client would, and the
//! deployment that it attacks.
#![expect(
    clippy::panic,
    reason = "the crate runs inside tests, where a panic is how a failure is reported"
)]

mod client;

pub use client::{Client, Heard};

use push0_domain::{message::Role, subject::ROOT};
use push0_harness::{Broker, Deployment, NatsCluster};
use std::time::Duration;

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long an attack may take to show.
pub const SOON: Duration = Duration::from_millis(300);
/// Control users, as their seed files are called.
pub const CONTROL: [&str; 7] = [
    "ingester",
    "dispatcher",
    "collector",
    "watchdog",
    "provision",
    "operator",
    "gateway",
];
/// Provers and verifiers: name, role, zkVM. `p1` is the attacker's neighbour in each row.
pub const MEMBERS: [(&str, Role, &str); 4] = [
    ("p0", Role::Prover, "mock"),
    ("p1", Role::Prover, "mock"),
    ("p2", Role::Prover, "miden"),
    ("v0", Role::Verifier, "mock"),
];
/// The tokens of an attempt, without its zkVM.
pub const ATTEMPT: &str = "demo.7-00000000.p.prove.0.1";

/// Starts brokers as shipped with a pipeline of each zkVM and every user, and no service: rows are about the broker.
pub async fn brokers(count: usize) -> Deployment<NatsCluster> {
    let mut builder = Deployment::builder().shipped_settings();
    for zkvm in ["mock", "miden"] {
        builder = builder.pipeline(&format!(
            "name = \"{zkvm}\"\nsource = {{ kind = \"external\" }}\n[[proof]]\ntype = \"main\"\nzkvm = \"{zkvm}\"\n\
             [[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"1s\"\n"
        ));
    }
    for (name, role, zkvm) in MEMBERS {
        builder = builder.member(name, role, zkvm);
    }
    builder.start_cluster(count).await
}

/// Returns a client with the key of this user, on broker `index` modulo the number of brokers.
///
/// # Panics
/// The broker does not take the user.
pub async fn client_of<B: Broker>(deployment: &Deployment<B>, user: &str, index: usize) -> Client {
    let seed = deployment.seed(user).expect("a deployment with accounts");
    let seed = std::fs::read_to_string(seed).expect("a seed");
    let servers = deployment.nats.servers();
    let client = Client::connect(&servers[index % servers.len()].url(), &seed, None).await;
    client.unwrap_or_else(|refusal| panic!("{user}: {refusal}"))
}

/// Returns the public key of a user.
///
/// # Panics
/// The deployment has no such user.
pub fn key_of<B: Broker>(deployment: &Deployment<B>, user: &str) -> String {
    let seed = deployment.seed(user).expect("a deployment with accounts");
    let seed = std::fs::read_to_string(seed).expect("a seed");
    let pair = nkeys::KeyPair::from_seed(seed.trim()).expect("a seed");
    pair.public_key()
}

/// Returns the subject of a check or a result by a prover with this key.
pub fn report(kind: &str, zkvm: &str, name: &str, key: &str) -> String {
    format!("{ROOT}.{kind}.{zkvm}.{name}.{ATTEMPT}.{key}")
}

/// Returns the subject of a verdict by a verifier.
pub fn verdict(zkvm: &str, name: &str) -> String {
    format!("{ROOT}.verdict.{zkvm}.{name}.{ATTEMPT}")
}

/// Returns the subject of orders to a member.
pub fn control(zkvm: &str, name: &str) -> String {
    format!("{ROOT}.control.{zkvm}.{name}")
}

/// Returns the subject of the name of a member.
pub fn presence(zkvm: &str, name: &str) -> String {
    format!("{ROOT}.presence.{zkvm}.{name}")
}

/// Returns the stream of blobs, and the subject of a part that a member writes.
pub fn blob(zkvm: &str, name: &str) -> (&'static str, String) {
    let hash = "0".repeat(64);
    (
        "PUSH0_BLOBS",
        format!("{ROOT}.blob.{zkvm}.{name}.demo.7.{hash}.0"),
    )
}
