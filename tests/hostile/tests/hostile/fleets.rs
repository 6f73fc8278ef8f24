//! Fleets: replicas enrol by one credential, each gets a name and the rights of that name alone, and one or all can be
//! revoked at once.

use push0_accounts::{Book, enrol};
use push0_domain::{PipelineId, message::Lease, subject::ROOT};
use push0_harness::{Broker, Deployment, DeploymentBuilder, Process, assert_complete_in_order, wait_for};
use push0_hostile::{Client, PATIENCE, control, presence, report};
use std::{collections::BTreeSet, path::Path, time::Duration};

/// How long blocks and processes may take.
const LONG: Duration = Duration::from_secs(60);
const FLEET: &str = "mock-provers";

fn builder() -> DeploymentBuilder {
    let enrollers = ["enroller-1", "enroller-2"].map(|label| Process::program("enroller").label(label));
    let pipeline = "name = \"demo\"\nsource = { kind = \"external\" }\n[[proof]]\ntype = \"main\"\nzkvm = \"mock\"\n\
                    verify = \"off\"\n[[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"20s\"\n";
    let builder = Deployment::builder()
        .as_shipped()
        .pipeline(pipeline)
        .fleet(FLEET, "mock");
    enrollers.into_iter().fold(builder, DeploymentBuilder::service)
}

fn replica(label: &str, credential: &Path) -> push0_harness::ProcessBuilder {
    Process::program("prover-mock")
        .label(label)
        .env("PUSH0_PROVER__ENROL", credential.display())
        .env("PUSH0_MOCK__TIME", "20ms")
}

/// Returns the names of the provers whose heartbeats came within a second.
async fn alive<B: Broker>(deployment: &Deployment<B>) -> BTreeSet<String> {
    let leases = [format!("{ROOT}.lease.>")];
    let mut leases = deployment.bus().listen(leases).await.expect("it listens");
    let mut names = BTreeSet::new();
    let listening = async {
        while let Ok(lease) = leases.next().await {
            names.insert(lease.body::<Lease>().expect("a lease").prover.to_string());
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), listening).await;
    names
}

async fn sign_in<B: Broker>(
    deployment: &Deployment<B>,
    enrolment: &enrol::Enrolment,
) -> Result<Client, String> {
    let url = deployment.nats.servers()[0].url();
    Client::connect(&url, &enrolment.seed, Some(&enrolment.word)).await
}

fn enrolled(credential: &Path) -> enrol::Enrolment {
    let credential = std::fs::read_to_string(credential).expect("a credential");
    enrol::enrol(&credential).expect("a credential enrols")
}

/// Returns how many enrollers the operator's command lists.
async fn enrollers_in_status(deployment: &Deployment) -> usize {
    let command = deployment.command().arg("status").arg("--json").start();
    command.wait_exit(LONG).await;
    let status: serde_json::Value = serde_json::from_str(command.log().trim()).expect("JSON");
    let services = status["services"].as_array().expect("a list");
    services.iter().filter(|one| one["name"] == "enroller").count()
}

async fn replicas_prove<B: Broker>(deployment: &mut Deployment<B>) {
    let credential = deployment.seed(FLEET).expect("accounts");
    for label in ["r1", "r2", "r3"] {
        deployment.start_service(replica(label, &credential));
    }
    deployment.ready().await;
    let demo: PipelineId = "demo".parse().expect("a name");
    deployment.submit_blocks(&demo, 1..=12).await;
    deployment.wait_emitted(&demo, 12, LONG).await;
    assert_complete_in_order(&deployment.emissions(&demo).await, 1..=12);
    let names = alive(deployment).await;
    assert_eq!(names.len(), 3, "three replicas, three names: {names:?}");
    assert!(
        names
            .iter()
            .all(|name| name.len() == "mock-".len() + enrol::NAME_TAIL),
        "{names:?}"
    );
}

#[tokio::test]
async fn three_replicas_with_one_credential_prove_under_three_names() {
    let mut deployment = builder().start().await;
    replicas_prove(&mut deployment).await;
    assert_eq!(enrollers_in_status(&deployment).await, 2);
    // The enrollers are needed to sign in, and for nothing else.
    for label in ["enroller-1", "enroller-2"] {
        deployment.service(label).kill();
    }
    let demo: PipelineId = "demo".parse().expect("a name");
    deployment.submit_blocks(&demo, 13..=16).await;
    deployment.wait_emitted(&demo, 16, LONG).await;
    for label in ["enroller-1", "enroller-2"] {
        deployment.service_mut(label).restart();
    }
    // One replica is revoked: it alone goes.
    let names = alive(&deployment).await;
    let gone = names.first().expect("a name").clone();
    deployment.revoke(&gone);
    wait_for("two replicas", LONG, async || {
        let names = alive(&deployment).await;
        if names.len() == 2 && !names.contains(&gone) {
            Ok(())
        } else {
            Err(names)
        }
    })
    .await;
    deployment.submit_blocks(&demo, 17..=20).await;
    deployment.wait_emitted(&demo, 20, LONG).await;
    // The whole fleet is revoked.
    deployment.revoke(FLEET);
    wait_for("no replica", LONG, async || {
        let names = alive(&deployment).await;
        if names.is_empty() { Ok(()) } else { Err(names) }
    })
    .await;
    deployment.expect_refusals();
}

#[tokio::test]
async fn three_replicas_with_one_credential_prove_on_three_brokers() {
    let mut deployment = builder().start_cluster(3).await;
    replicas_prove(&mut deployment).await;
    deployment.expect_refusals();
}

#[tokio::test]
async fn a_replica_has_the_rights_of_its_own_name_alone() {
    let deployment = builder().start().await;
    let enrolment = enrolled(&deployment.seed(FLEET).expect("accounts"));
    let name = enrol::name_of(&"mock".parse().expect("a name"), &enrolment.key).expect("a name");
    let (name, other) = (name.as_str(), "mock-aaaaaaaaaaaaaaaa");
    let mut replica = sign_in(&deployment, &enrolment).await.expect("it signs in");
    for (own, foreign) in [
        (
            format!("{ROOT}.lease.mock.{name}"),
            format!("{ROOT}.lease.mock.{other}"),
        ),
        (presence("mock", name), presence("mock", other)),
        (
            report("result", "mock", name, &enrolment.key),
            report("result", "mock", name, "_"),
        ),
        (
            report("check", "mock", name, &enrolment.key),
            report("check", "miden", name, &enrolment.key),
        ),
    ] {
        assert_eq!(
            replica.publish(&own, "", &[], b"x").await,
            Vec::<String>::new(),
            "{own}"
        );
        assert!(
            !replica.publish(&foreign, "", &[], b"x").await.is_empty(),
            "{foreign}"
        );
    }
    assert!(replica.subscribe(&control("mock", name)).await.is_empty());
    assert!(!replica.subscribe(&control("mock", other)).await.is_empty());
    deployment.expect_refusals();
}

#[tokio::test]
async fn nobody_enrols_without_the_credential_and_its_own_key() {
    let mut deployment = builder().start().await;
    let good = enrolled(&deployment.seed(FLEET).expect("accounts"));
    let other = enrolled(&deployment.seed(FLEET).expect("accounts"));
    let (stranger, _) = Book::draw(false);
    let stranger = enrol::enrol(&stranger).expect("a key signs");
    let with = |seed: &str, word: &str| enrol::Enrolment {
        seed: seed.into(),
        key: String::new(),
        word: word.into(),
    };
    let cut: String = good.word.chars().take(good.word.len() - 1).collect();
    for (what, attempt) in [
        ("a credential of nobody", stranger.clone()),
        ("the word for another replica", with(&good.seed, &other.word)),
        ("no word", with(&good.seed, "")),
        ("a word that is cut", with(&good.seed, &cut)),
        ("a word that is a name", with(&good.seed, "mock-provers")),
        (
            "the credential itself",
            with(
                &std::fs::read_to_string(deployment.seed(FLEET).expect("accounts")).expect("a seed"),
                &good.word,
            ),
        ),
    ] {
        assert!(sign_in(&deployment, &attempt).await.is_err(), "{what} signs in");
    }
    assert!(sign_in(&deployment, &good).await.is_ok(), "the honest replica");
    // A revoked fleet enrols no replica, and its replicas' connections end.
    let mut replica = sign_in(&deployment, &other).await.expect("it signs in");
    deployment.revoke(FLEET);
    assert!(
        replica.is_ended(PATIENCE).await,
        "the connection of a revoked replica lives on"
    );
    assert!(
        sign_in(&deployment, &good).await.is_err(),
        "a revoked fleet signs in"
    );
    deployment.expect_refusals();
}

#[tokio::test]
async fn a_stranger_writes_no_line_of_its_own_into_a_log() {
    let deployment = builder().start().await;
    let (seed, _) = Book::draw(false);
    let stranger = enrol::Enrolment {
        seed,
        key: String::new(),
        word: "A\n2026-12-01T00:00:00Z  INFO forged\r\u{202e}.B".into(),
    };
    for _ in 0..2 {
        assert!(
            sign_in(&deployment, &stranger).await.is_err(),
            "a stranger signs in"
        );
    }
    let enrollers = ["enroller-1", "enroller-2"].map(|name| deployment.service(name).log());
    assert!(
        enrollers.concat().contains("a client is refused"),
        "{enrollers:?}"
    );
    let brokers = deployment.nats.servers()[0].log_tail();
    assert!(brokers.contains("no enrolment"), "{brokers}");
    for log in [&enrollers[0], &enrollers[1], &brokers] {
        let is_forged = |line: &str| line.starts_with("2026-12-01T00:00:00Z") || line.contains('\u{202e}');
        assert!(!log.lines().any(is_forged), "{log}");
    }
    deployment.expect_refusals();
}

#[tokio::test]
async fn the_connection_of_a_revoked_prover_ends() {
    let mut deployment = push0_hostile::brokers(1).await;
    let mut prover = push0_hostile::client_of(&deployment, "p0", 0).await;
    let mut other = push0_hostile::client_of(&deployment, "p1", 0).await;
    deployment.revoke("p0");
    assert!(
        prover.is_ended(PATIENCE).await,
        "the connection of a revoked prover lives on"
    );
    assert!(
        other.subscribe(&control("mock", "p1")).await.is_empty(),
        "the other prover stays"
    );
}
