//! Every user and every action: actions in the table of rights are permitted, and all else is refused.

use futures::future::join_all;
use push0_accounts::{Control, Rights, rights_of_control, rights_of_member};
use push0_domain::subject::ROOT;
use push0_hostile::{
    ATTEMPT, CONTROL, MEMBERS, brokers, client_of, control, key_of, presence, report, verdict,
};

/// Actions that the table must grant to control services only.
fn forbidden_to_members() -> Vec<String> {
    let mut actions = vec![
        format!("{ROOT}.block.demo"),
        format!("{ROOT}.cancel.demo"),
        format!("{ROOT}.task.mock.{ATTEMPT}"),
        format!("{ROOT}.stage.mock.{ATTEMPT}"),
        format!("{ROOT}.ended.demo"),
        format!("{ROOT}.proof.demo.7"),
        format!("{ROOT}.dead.demo.x"),
        format!("{ROOT}.event._.quarantine-begun"),
        format!("{ROOT}.leader.dispatcher"),
        control("miden", "p2"),
        presence("miden", "nobody"),
        format!("{ROOT}.lease.mock.nobody"),
        report("result", "zisk", "p0", "_"),
        report("result", "mock", "p0", "_"),
        verdict("miden", "v0"),
        "$KV.push0_state.leader.dispatcher".into(),
        "$KV.push0_state.quarantine.p0".into(),
        "$KV.push0_blocks.demo.7-00000000".into(),
        "$KV.push0_pipelines.demo.current".into(),
        "$KV.push0_seals.key".into(),
        "$JS.ACK.PUSH0_RESULTS.collector-demo.1.1.1.1.0".into(),
        "$JS.ACK.PUSH0_TASKS.prover-zisk.1.1.1.1.0".into(),
        "$SYS.REQ.USER.AUTH".into(),
        "$SYS.REQ.SERVER.PING".into(),
        "$SRV.PING".into(),
        "$SRV.STATS.push0-dispatcher".into(),
    ];
    for prefix in ["$JS.API", push0_accounts::API_PREFIX] {
        let calls = [
            "INFO",
            "STREAM.NAMES",
            "STREAM.LIST",
            "STREAM.INFO.PUSH0_TASKS",
            "STREAM.CREATE.MIRROR",
            "STREAM.UPDATE.PUSH0_RESULTS",
            "STREAM.DELETE.PUSH0_TASKS",
            "STREAM.PURGE.PUSH0_RESULTS",
            "STREAM.MSG.DELETE.PUSH0_RESULTS",
            "STREAM.MSG.GET.PUSH0_PROOFS",
            "STREAM.MSG.GET.KV_push0_state",
            "STREAM.MSG.GET.KV_push0_seals",
            "STREAM.LEADER.STEPDOWN.PUSH0_TASKS",
            "DIRECT.GET.PUSH0_RESULTS",
            "DIRECT.GET.PUSH0_PROOFS",
            "DIRECT.GET.KV_push0_seals",
            "DIRECT.GET.KV_push0_seals.$KV.push0_seals.key",
            "CONSUMER.CREATE.PUSH0_RESULTS",
            "CONSUMER.CREATE.OBJ_push0_blobs",
            "CONSUMER.CREATE.OBJ_push0_blobs.spy",
            "CONSUMER.CREATE.PUSH0_TASKS.prover-mock",
            "CONSUMER.DURABLE.CREATE.PUSH0_TASKS.prover-mock",
            "CONSUMER.DELETE.PUSH0_TASKS.prover-mock",
            "CONSUMER.PAUSE.PUSH0_TASKS.prover-mock",
            "CONSUMER.UNPIN.PUSH0_TASKS.prover-mock",
            "CONSUMER.LIST.PUSH0_TASKS",
            "CONSUMER.MSG.NEXT.PUSH0_RESULTS.collector-demo",
            "CONSUMER.MSG.NEXT.PUSH0_TASKS.prover-zisk",
        ];
        actions.extend(calls.map(|call| format!("{prefix}.{call}")));
    }
    actions
}

/// Returns a subject that a row permits.
fn one_of(row: &str) -> String {
    row.replace('*', "x").replace('>', "x.y")
}

/// Returns whether a row includes a subject.
fn includes(row: &str, subject: &str) -> bool {
    let (row, subject): (Vec<&str>, Vec<&str>) = (row.split('.').collect(), subject.split('.').collect());
    let all = row.last() == Some(&">");
    let fixed = if all { row.len() - 1 } else { row.len() };
    let fits = if all {
        subject.len() > fixed
    } else {
        subject.len() == fixed
    };
    fits && row
        .iter()
        .zip(&subject)
        .take(fixed)
        .all(|(token, word)| *token == "*" || token == word)
}

fn may(rights: &Rights, subject: &str) -> bool {
    let any = |rows: &[String]| rows.iter().any(|row| includes(row, subject));
    any(&rights.publish) && !any(&rights.deny)
}

/// Every user with its rights, and every action of any of them.
async fn every_user_and_every_action(count: usize) {
    let deployment = brokers(count).await;
    let mut users: Vec<(String, Rights)> = Vec::new();
    for user in Control::ALL.into_iter().filter(|user| *user != Control::Enroller) {
        assert!(CONTROL.contains(&user.as_str()));
        let (key, operator) = (
            key_of(&deployment, user.as_str()),
            key_of(&deployment, "operator"),
        );
        users.push((
            user.as_str().to_owned(),
            rights_of_control(user, &key, Some(&operator)),
        ));
    }
    for (name, role, zkvm) in MEMBERS {
        let (zkvm, id) = (zkvm.parse().expect("a name"), name.parse().expect("a name"));
        users.push((
            name.to_owned(),
            rights_of_member(role, &zkvm, &id, &key_of(&deployment, name)),
        ));
    }
    let rows = |rights: &Rights| {
        rights
            .publish
            .iter()
            .chain(&rights.deny)
            .map(|row| one_of(row))
            .collect::<Vec<_>>()
    };
    let mut actions: Vec<String> = users.iter().flat_map(|(_, rights)| rows(rights)).collect();
    let forbidden = forbidden_to_members();
    actions.extend(forbidden.clone());
    actions.sort();
    actions.dedup();
    let members = MEMBERS.map(|(name, ..)| name);
    let tried = users.iter().enumerate().map(async |(at, (user, rights))| {
        let mut client = client_of(&deployment, user, at).await;
        let mut wrong = Vec::new();
        for action in &actions {
            let refused = client.publish(action, "", &[], b"").await;
            let is_refused = refused
                .iter()
                .any(|error| error.contains("Permissions Violation for Publish"));
            if is_refused == may(rights, action) {
                wrong.push(format!(
                    "{user} {} {action}",
                    if is_refused { "may not" } else { "may" }
                ));
            }
            if members.contains(&user.as_str()) && forbidden.contains(action) && !is_refused {
                wrong.push(format!("{user} may {action}, which no member may"));
            }
        }
        wrong
    });
    let wrong: Vec<String> = join_all(tried).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (user, ..) in MEMBERS {
        let mut client = client_of(&deployment, user, 0).await;
        for subject in [">", "_INBOX.>", "push0.>", "$JS.>", "$SYS.>", "$KV.>"] {
            let refused = client.subscribe(subject).await;
            assert!(!refused.is_empty(), "{user} hears {subject}");
        }
    }
    deployment.expect_refusals();
}

#[tokio::test]
async fn every_user_does_what_its_rights_have_and_nothing_else() {
    every_user_and_every_action(1).await;
}

#[tokio::test]
async fn every_user_does_what_its_rights_have_and_nothing_else_on_three_brokers() {
    every_user_and_every_action(3).await;
}
