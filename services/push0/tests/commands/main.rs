//! The commands as run by an operator, tested on a real broker.

mod auth;
mod dead;
mod proof;
mod rig;
mod seeing;
mod work;

use push0_bus::{Bucket, Stream};
use push0_domain::message::{BlockEvent, EmissionOutcome, EndReason};
use push0_domain::{Payload, subject};
use push0_harness::NatsServer;
use rig::{Deployment, PIPELINE, good, proved, push0, stderr, stdout};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_broker_that_is_not_there_is_an_error_within_3_s() {
    let since = Instant::now();
    let output = push0(&["status", "--nats", "nats://user:secret@127.0.0.1:9"]);
    assert!(since.elapsed() < Duration::from_secs(3));
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("no broker answers at ***@127.0.0.1:9 (Connection refused")
            && said.contains("start one with `push0 up`"),
        "{said}"
    );
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn wrong_usage_and_wrong_files_exit_with_64() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("bad.toml");
    std::fs::write(&file, PIPELINE.replace("1s", "soon")).expect("a file");
    let file = file.to_str().expect("it is text");
    let cases: [(&[&str], &str); 7] = [
        (&["nothing"], "unrecognized subcommand"),
        (&["cancel", "9..3", "--note", "x"], "9 comes after 3"),
        (&["dead", "drop"], "required"),
        (&["provision", "--replicas", "2"], "expected 1 or 3"),
        (&["pipeline", "check", "/nonexistent.toml"], "cannot be read"),
        (
            &["pipeline", "check", file],
            "bad.toml:11: timeout = \"soon\": expected a duration",
        ),
        (
            &["pipeline", "check", file, "--set", "no.where=1"],
            "--set no.where: the file has no `no` there",
        ),
    ];
    for (args, reason) in cases {
        let output = push0(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(reason), "{args:?}: {}", stderr(&output));
    }
    let good = dir.path().join("good.toml");
    std::fs::write(&good, PIPELINE).expect("a file");
    let good = good.to_str().expect("it is text");
    let set = push0(&["pipeline", "check", good, "--set", "source.rpc_url=http://node"]);
    assert_eq!(set.status.code(), Some(64));
    assert!(
        stderr(&set).contains("--set brings this about"),
        "{}",
        stderr(&set)
    );
    let fixed = push0(&["pipeline", "check", file, "--set", "proof.0.stage.0.timeout=2s"]);
    assert!(
        stdout(&fixed).contains("timeout 2s"),
        "{}{}",
        stdout(&fixed),
        stderr(&fixed)
    );
}

#[test]
fn every_pipeline_that_is_shipped_is_good() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/pipelines");
    let mut checked = 0;
    for entry in std::fs::read_dir(folder).expect("it is there") {
        let file = entry.expect("it is readable").path();
        let output = push0(&["pipeline", "check", file.to_str().expect("it is text")]);
        assert!(output.status.success(), "{}", stderr(&output));
        checked += 1;
    }
    assert!(checked >= 6);
}

#[tokio::test]
async fn a_broker_without_streams_is_provisioned_once_and_again() {
    let nats = NatsServer::start().await;
    let url = nats.url();
    let missing = push0(&["status", "--nats", &url]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        stderr(&missing).contains("run `push0 provision`"),
        "{}",
        stderr(&missing)
    );
    for _ in 0..2 {
        let done = push0(&["provision", "--store-bytes", "1073741824", "--nats", &url]);
        assert!(done.status.success(), "{}", stderr(&done));
    }
    // A limit that is not named stays as it is.
    let kept = push0(&["provision", "--keep", "2h", "--json", "--nats", &url]);
    let kept = [
        stdout(&kept),
        stdout(&push0(&["provision", "--json", "--nats", &url])),
    ];
    for told in kept {
        assert!(
            told.contains("\"store_bytes\":1073741800") && told.contains("\"keep_s\":7200"),
            "{told}"
        );
    }
    let status = push0(&["status", "--nats", &url]);
    assert!(stdout(&status).contains("PUSH0_BLOCKS") && stdout(&status).contains("provers: none"));
    let check = push0(&["status", "--check", "--nats", &url]);
    assert_eq!(
        (check.status.code(), stdout(&check).lines().count()),
        (Some(1), 1)
    );
    assert!(
        stdout(&check).starts_with("NOT OK: no process leads as dispatcher"),
        "{}",
        stdout(&check)
    );
    let none = push0(&["blocks", "--nats", &url]);
    assert_eq!(none.status.code(), Some(64));
    assert!(
        stderr(&none).contains("there are none: `push0 pipeline apply FILE` adds one"),
        "{}",
        stderr(&none)
    );
}

#[tokio::test]
async fn pipelines_come_and_go() {
    let deployment = Deployment::start().await;
    assert!(deployment.ok(&["pipeline", "list"]).contains("oldest-first"));
    assert!(deployment.ok(&["pipeline", "show", "demo"]).contains("└─ prove"));
    assert_eq!(deployment.json(&["pipeline", "show", "demo"])["revision"], 1);
    let removed = deployment.ok(&["pipeline", "remove", "demo"]);
    assert!(removed.contains("demo: removed"), "{removed}");
    let again = deployment.push0(&["pipeline", "remove", "demo"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(deployment.ok(&["pipeline", "list"]).contains("no pipelines"));
    // Records of a removed pipeline can still be read.
    deployment.emit(1, good()).await;
    assert!(
        deployment
            .ok(&["blocks", "--pipeline", "demo"])
            .contains("proved")
    );
}

#[tokio::test]
async fn emitted_blocks_are_listed_and_reported() {
    let deployment = Deployment::start().await;
    for number in 7..12 {
        deployment.emit(number, good()).await;
    }
    let table = deployment.ok(&["blocks", "--last", "3"]);
    let rows: Vec<&str> = table
        .lines()
        .skip(1)
        .map(|row| row.split_whitespace().next().unwrap_or(""))
        .collect();
    assert_eq!(rows, ["9", "10", "11"], "{table}");
    assert!(
        table.contains("0x0b0b0b0b") && table.contains("vm-verifier-1") && table.contains("880.0"),
        "{table}"
    );

    let report = deployment.ok(&["report", "--blocks", "5", "--wait", "5s"]);
    let last: serde_json::Value =
        serde_json::from_str(report.lines().last().expect("a line")).expect("it is JSON");
    assert_eq!(
        (&last["emitted"], &last["verified"], &last["inversions"]),
        (&5.into(), &5.into(), &0.into())
    );
    // One second passed between "stored" and "emitted", 0.9 s of it inside the prover and the verifier.
    let overhead = last["overhead_ms_p50"].as_f64().expect("a number");
    assert!((99.0..1_000.0).contains(&overhead), "{last}");

    let short = deployment.push0(&["report", "--blocks", "6", "--wait", "300ms"]);
    assert_eq!(short.status.code(), Some(1));
    assert!(stderr(&short).contains("1 not emitted"), "{}", stderr(&short));

    let block = deployment.ok(&["block", "9"]);
    for part in [
        "hash          0x0909",
        "verified by vm-verifier-1",
        "880 ms proving, 20 ms verifying",
        "push0; by vm-1, checked by vm-verifier-1",
        "trace         0af7651916cd43dd8448eb211c80319c",
    ] {
        assert!(block.contains(part), "{block}");
    }
    assert_eq!(deployment.push0(&["block", "99"]).status.code(), Some(1));
}

#[tokio::test]
async fn a_report_waits_for_a_broker_that_is_away() {
    let mut deployment = Deployment::start().await;
    deployment.emit(1, good()).await;
    deployment.nats.kill();
    let mut report = Command::new(env!("CARGO_BIN_EXE_push0"));
    report
        .args([
            "--dir",
            "/nonexistent/push0",
            "report",
            "--blocks",
            "1",
            "--wait",
            "60s",
        ])
        .args(["--nats", &deployment.nats.url()]);
    report
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut report = report.spawn().expect("push0 runs");
    let mut said = String::new();
    let mut stderr = BufReader::new(report.stderr.take().expect("it is piped"));
    stderr.read_line(&mut said).expect("it is read");
    assert!(
        said.contains("no broker answers at") && said.contains("waiting"),
        "{said}"
    );
    deployment.nats.restart().await;
    stderr.read_to_string(&mut said).expect("it is read");
    assert!(report.wait().expect("it ends").success(), "{said}");
}

#[tokio::test]
async fn a_report_fails_for_every_broken_promise() {
    for (numbers, complaint) in [
        (&[1, 2, 4][..], "1 missing in between"),
        (&[1, 3, 2], "1 out of order"),
        (&[1, 2, 2, 3], "1 emitted twice"),
    ] {
        let deployment = Deployment::start().await;
        for number in numbers {
            deployment.emit(*number, good()).await;
        }
        let output = deployment.push0(&["report", "--blocks", "3", "--wait", "1s"]);
        assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
        assert!(
            stderr(&output).contains(complaint),
            "{complaint}: {}",
            stderr(&output)
        );
    }
    let deployment = Deployment::start().await;
    deployment.emit(1, proved(None, Payload::empty())).await;
    deployment
        .emit(2, EmissionOutcome::Abandoned(EndReason::DeadlinePassed))
        .await;
    let output = deployment.push0(&["report", "--blocks", "2", "--wait", "1s"]);
    assert!(
        stderr(&output).contains("1 not proved, 1 not verified"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn keys_of_an_rpc_provider_are_not_printed() {
    let deployment = Deployment::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("keyed.toml");
    let source = "[source]\nkind = \"ethereum\"\nrpc_url = \"https://node.example/v3/secret\"";
    let text = PIPELINE.replace("\"demo\"", "\"keyed\"");
    std::fs::write(&file, text.replace("[source]\nkind = \"http\"", source)).expect("a file");
    let file = file.to_str().expect("it is text");
    deployment.ok(&["pipeline", "apply", file]);
    for args in [
        &["pipeline", "list"][..],
        &["pipeline", "show", "keyed"],
        &["pipeline", "check", file],
    ] {
        for form in [&[][..], &["--json"]] {
            let said = deployment.ok(&[args, form].concat());
            assert!(said.contains("keyed") && !said.contains("secret"), "{said}");
        }
    }
    let asked = deployment.ok(&["pipeline", "show", "keyed", "--json", "--secrets"]);
    assert!(asked.contains("https://node.example/v3/secret"), "{asked}");
}

#[test]
fn help_prints_no_password() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_push0"));
    let said = command
        .env("PUSH0_NATS__URL", "nats://me:secretpw@node")
        .arg("--help")
        .output();
    assert!(!stdout(&said.expect("push0 runs")).contains("secretpw"));
}

#[tokio::test]
async fn an_unreadable_record_is_passed_over_and_a_definition_is_overwritten() {
    let deployment = Deployment::start().await;
    for number in [1, 2, 4] {
        deployment.emit(number, EmissionOutcome::Proved(Vec::new())).await;
    }
    let demo = "demo".parse().expect("a name");
    for number in [3, 5] {
        deployment.publish(subject::proof(&demo, number), &7).await;
    }
    let blocks = deployment.push0(&["blocks", "--json"]);
    assert_eq!(stdout(&blocks).lines().count(), 3, "{}", stderr(&blocks));
    assert!(
        stderr(&blocks).contains(&subject::proof(&demo, 3)),
        "{}",
        stderr(&blocks)
    );

    let definitions = deployment
        .bus
        .facts::<u8>(Bucket::Pipelines)
        .await
        .expect("a bucket");
    for key in ["demo.current", "demo.1"] {
        definitions.put(key, &7).await.expect("it is stored");
    }
    let repair = deployment.push0(&["repair"]);
    assert_eq!(repair.status.code(), Some(1));
    assert!(
        stdout(&repair).contains("push0_pipelines demo.current"),
        "{}",
        stdout(&repair)
    );
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("demo.toml");
    std::fs::write(&file, PIPELINE).expect("a file");
    let applied = deployment.ok(&["pipeline", "apply", file.to_str().expect("it is text")]);
    assert_eq!(applied, "demo: revision 2\n");
    let kept = dir.path().join("kept");
    // The current definition is of another revision, so only an operator can put the first one back.
    let repair = deployment.push0(&["repair", "--apply", "--keep", kept.to_str().expect("it is text")]);
    assert_eq!(repair.status.code(), Some(1), "{}", stdout(&repair));
    assert!(stdout(&repair).contains("by hand"), "{}", stdout(&repair));
    let file = file.to_str().expect("it is text");
    let back = deployment.ok(&["pipeline", "apply", file, "--revision", "1"]);
    assert_eq!(back, "demo: revision 1 is back\n");
    let again = deployment.push0(&[
        "pipeline",
        "apply",
        file,
        "--revision",
        "2",
        "--set",
        "deadline=9s",
        "--set",
        "policy=deadline",
    ]);
    assert!(
        !again.status.success() && stderr(&again).contains("never changes"),
        "{}",
        stderr(&again)
    );
    let mode = std::fs::metadata(&kept).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(deployment.ok(&["repair"]), "all stored state can be read\n");
}

#[test]
fn a_missing_command_lists_the_commands_for_people() {
    let said = push0(&["--json"]);
    assert_eq!(said.status.code(), Some(64));
    let said = stderr(&said);
    assert!(said.contains("pipeline") && !said.contains("__child"), "{said}");
}

#[tokio::test]
async fn a_cancellation_reaches_the_dispatchers_stream() {
    let deployment = Deployment::start().await;
    deployment.ok(&["cancel", "7..9", "--note", "wrong fork"]);
    let pipeline = "demo".parse().expect("a name");
    let kept = deployment
        .bus
        .last::<BlockEvent>(Stream::Blocks, &subject::cancel(&pipeline))
        .await;
    let kept = kept.expect("the broker answers").expect("it is stored");
    let Ok(BlockEvent::Cancelled(cancel)) = kept.body else {
        panic!("not a cancellation: {kept:?}")
    };
    assert_eq!((cancel.first, cancel.last, cancel.hashes.len()), (7, 9, 0));
    assert_eq!(
        cancel.reason,
        EndReason::Cancelled {
            note: "wrong fork".into()
        }
    );
}

#[tokio::test]
async fn a_definition_that_cannot_be_read_sends_no_command_to_another_pipeline() {
    let deployment = Deployment::start().await;
    let definitions = deployment
        .bus
        .facts::<u8>(Bucket::Pipelines)
        .await
        .expect("a bucket");
    definitions.put("broken.current", &7).await.expect("it is stored");
    let refused = deployment.push0(&["cancel", "7", "--note", "meant for broken"]);
    assert_eq!(refused.status.code(), Some(64), "{}", stdout(&refused));
    assert!(
        stderr(&refused).contains("which pipeline?") && stderr(&refused).contains("broken, demo"),
        "{}",
        stderr(&refused)
    );
    deployment.ok(&["cancel", "7", "--note", "x", "--pipeline", "broken"]);
    let list = deployment.push0(&["pipeline", "list"]);
    assert!(stdout(&list).contains("demo"), "{}", stdout(&list));
    let show = deployment.push0(&["pipeline", "show", "broken"]);
    assert_eq!(show.status.code(), Some(1));
    for output in [list, show] {
        let said = stderr(&output);
        assert!(
            said.contains("push0_pipelines/broken.current") && said.contains("`push0 repair` mends it"),
            "{said}"
        );
    }
    deployment.ok(&["pipeline", "remove", "broken"]);
    assert_eq!(
        deployment.ok(&["blocks"]),
        "demo: no block has been emitted yet\n"
    );
}

#[tokio::test]
async fn a_mistyped_pipeline_is_no_success() {
    let deployment = Deployment::start().await;
    for args in [
        &["repair", "--pipeline", "nope"][..],
        &["dead", "list", "--pipeline", "nope"],
        &["dead", "list", "--pipeline", "nope", "--json"],
        &["retry", "--since", "1h", "--pipeline", "nope"],
        &["blocks", "--pipeline", "nope"],
    ] {
        let output = deployment.push0(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", stdout(&output));
        let said = stderr(&output);
        assert!(
            said.contains("there is no pipeline `nope`; there are: demo"),
            "{args:?}: {said}"
        );
    }
    let bare = deployment.push0(&["retry"]);
    assert_eq!(bare.status.code(), Some(64));
    assert!(stderr(&bare).contains("--since"), "{}", stderr(&bare));
}
