//! Commands by which an operator watches a deployment.

use crate::rig::{Deployment, block, good, push0, stderr, stdout};
use push0_bus::now;
use push0_domain::message::{EmissionOutcome, EndReason, Event, Happening, Lease, ProverState, Role};
use push0_domain::subject;

fn cancelled() -> EmissionOutcome {
    EmissionOutcome::Abandoned(EndReason::Cancelled { note: "why".into() })
}

#[tokio::test]
async fn blocks_are_filtered_and_consumers_continue_after_a_sequence() {
    let deployment = Deployment::start().await;
    for number in 1..=6 {
        let outcome = if number % 3 == 0 { cancelled() } else { good() };
        deployment.emit(number, outcome).await;
    }
    let numbers = |args: &[&str]| -> Vec<u64> {
        let text = deployment.ok(&[&["blocks", "--json"], args].concat());
        let rows = text
            .lines()
            .map(|line| -> serde_json::Value { serde_json::from_str(line).expect("JSON") });
        rows.map(|row| row["emission"]["last"]["number"].as_u64().expect("a number"))
            .collect()
    };
    assert_eq!(numbers(&["--outcome", "cancelled"]), [3, 6]);
    assert_eq!(numbers(&["--from", "2", "--to", "4"]), [2, 3, 4]);
    assert_eq!(
        numbers(&["--to", "4", "--last", "2", "--outcome", "proved"]),
        [2, 4]
    );
    assert_eq!(numbers(&["--prover", "vm-1", "--from", "3"]), [4, 5]);
    assert_eq!(numbers(&["--prover", "vm-verifier-1", "--last", "1"]), [5]);
    assert_eq!(numbers(&["--after", "0", "--last", "2"]), [1, 2]);
    assert_eq!(numbers(&["--after", "4"]), [5, 6]);
    assert!(numbers(&["--after", "6"]).is_empty());
    let wrong = deployment.push0(&["blocks", "--outcome", "fine"]);
    assert_eq!(wrong.status.code(), Some(64));
}

#[tokio::test]
async fn a_block_is_named_by_its_hash_and_says_what_it_waits_for() {
    let deployment = Deployment::start().await;
    deployment.emit(7, good()).await;
    deployment.remember(8, None).await;
    let hash = block(7).hash.to_string();
    let shown = deployment.ok(&["block", &hash[..10]]);
    assert!(
        shown.starts_with("block 7 of demo") && shown.contains("emitted"),
        "{shown}"
    );
    let proof = deployment.ok(&["proof", "get", &hash, "-o", "-"]);
    assert_eq!(proof, "proof");
    let waiting = deployment.json(&["block", "8"]);
    let sentence = waiting["waits_for"].as_str().expect("a sentence");
    assert!(sentence.starts_with("No message tells of block 8"), "{sentence}");
    for (wrong, code, said) in [("0xffffff", 1, "no block with a hash"), ("0xf", 64, "hex digits")] {
        let refused = deployment.push0(&["block", wrong]);
        assert_eq!(refused.status.code(), Some(code), "{wrong}");
        assert!(stderr(&refused).contains(said), "{}", stderr(&refused));
    }
}

#[tokio::test]
async fn provers_show_what_they_did_and_do() {
    let deployment = Deployment::start().await;
    deployment.emit(1, good()).await;
    deployment.emit(2, good()).await;
    let lease = Lease {
        prover: "vm-1".parse().expect("a name"),
        zkvm: "vm".parse().expect("a name"),
        role: Role::Prover,
        incarnation: 1,
        origin: None,
        beat: 1,
        slots: 2,
        ahead: 1,
        state: ProverState::Active,
        held: Vec::new(),
    };
    let subject = subject::lease(&lease.zkvm, &lease.prover);
    deployment.publish(subject, &lease).await;
    let provers = deployment.json(&["provers"]);
    assert_eq!(provers.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&provers[0]["id"], &provers[0]["done"]),
        (&"vm-1".into(), &2.into())
    );
    assert_eq!(provers[0]["p95_ms"], 880.0);
    let table = deployment.ok(&["provers"]);
    assert!(table.contains("P95 MS") && table.contains("vm-1"), "{table}");
}

#[tokio::test]
async fn events_are_sentences_and_rewrite_no_screen() {
    let deployment = Deployment::start().await;
    let none = deployment.ok(&["events"]);
    assert!(none.contains("nothing happened"), "{none}");
    let what = Happening::QuarantineEnded {
        prover: "vm-1".parse().expect("a name"),
        reason: "an operator\u{1b}[2J asked".into(),
    };
    deployment.bus.announce(None, what);
    let shown = push0_harness::wait_for("the event", std::time::Duration::from_secs(10), async || {
        let shown = deployment.ok(&["events"]);
        shown.contains("vm-1").then_some(shown.clone()).ok_or(shown)
    })
    .await;
    assert!(
        shown.ends_with("the quarantine of vm-1 ended: an operator asked\n"),
        "{shown:?}"
    );
    let json = deployment.json(&["events"]);
    assert_eq!(json["kind"], "quarantine-ended");
}

#[tokio::test]
async fn more_events_than_one_read_are_shown_to_the_newest() {
    let deployment = Deployment::start().await;
    let event = |number: u64| Event {
        at: now(),
        what: Happening::QuarantineEnded {
            prover: "vm-1".parse().expect("a name"),
            reason: format!("reason {number}"),
        },
    };
    for number in 1..=1_003 {
        deployment
            .publish(subject::event(None, "test"), &event(number))
            .await;
    }
    let shown = deployment.ok(&["events", "--last", "1002"]);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 1_002);
    assert!(lines[0].ends_with("reason 2") && lines[1_001].ends_with("reason 1003"));
}

#[test]
fn completions_and_manual_pages_come_from_the_command_line() {
    let bash = push0(&["completions", "bash"]);
    assert!(
        bash.status.success() && stdout(&bash).contains("provers"),
        "{}",
        stderr(&bash)
    );
    let dir = tempfile::tempdir().expect("a directory");
    let man = push0(&["man", dir.path().to_str().expect("text")]);
    assert!(man.status.success(), "{}", stderr(&man));
    for page in ["push0.1", "push0-status.1", "push0-proof-get.1"] {
        let text = std::fs::read_to_string(dir.path().join(page)).expect(page);
        assert!(text.contains("push0"), "{page}");
    }
    assert!(
        !dir.path().join("push0-__child.1").exists(),
        "hidden commands are not for people"
    );
}
