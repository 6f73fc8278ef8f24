//! The adapter's contract with programs, tested with small shell scripts.
#![expect(clippy::unwrap_used, reason = "a failing test panics, in its helpers as well")]

use push0_domain::{
    Announcement, BlockHash, BlockRef, Timestamp,
    message::{BlockContext, BlockFacts, FailureClass, KnownBlock, StageKind, TaskHeader},
    task::StageKey,
};
use push0_harness::wait_for;
use push0_prover_exec::{Config, Exec};
use push0_prover_sdk::{Progress, Prove, ProveError, Role, Statement, Verify, Work};
use push0_runtime::HasRuntimeConfig;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

fn config(toml: &str) -> Config {
    let config: Config = toml::from_str(&format!("[exec]\n{toml}")).unwrap();
    assert_eq!(config.validate(), Ok(()));
    config
}

/// Returns a prover made of a shell script; `$1` is its input file and `$2` its output file.
fn script(text: &str, more: &str) -> Exec {
    let toml = format!(
        "program = '/bin/sh'\nargs = ['-c', '''{text}''', 'script', '{{input}}', '{{output}}']\n{more}"
    );
    Exec::new(&config(&toml).exec, Role::Prover).unwrap()
}

fn work(kind: StageKind, inputs: &[&str]) -> Work {
    let stage = StageKey {
        pipeline: "p".parse().unwrap(),
        block: BlockRef {
            number: 7,
            hash: BlockHash([0xab; 32]),
        },
        first: None,
        proof_type: "main".parse().unwrap(),
        stage: "prove".parse().unwrap(),
    };
    Work {
        header: TaskHeader {
            id: stage.task(3),
            attempt: 2,
            hedge_of: None,
            zkvm: "exec".parse().unwrap(),
            context: BlockContext {
                amends: false,
                revision: 1,
                parent_hash: BlockHash([0xcd; 32]),
                announcement: Announcement(1),
                stored_at: Timestamp::default(),
                first_announcement: None,
                deadline_at: None,
                facts: BlockFacts::default(),
            },
            kind,
            of: 1,
            timeout_ms: 10_000,
            hedge_after_ms: None,
            attempts_max: 3,
            give_up_at: None,
            check: false,
            program_id: None,
            busy_us: 0,
        },
        inputs: inputs.iter().map(|input| input.as_bytes().to_vec()).collect(),
        released_at: Timestamp::default(),
        stop: CancellationToken::new(),
        progress: Progress::default(),
        trace: push0_domain::trace::TraceContext::default(),
    }
}

async fn proved(exec: &Exec, kind: StageKind, inputs: &[&str]) -> Vec<String> {
    let outputs = exec.prove(work(kind, inputs)).await.unwrap();
    outputs
        .into_iter()
        .map(|output| String::from_utf8(output).unwrap())
        .collect()
}

async fn failed(exec: &Exec) -> ProveError {
    exec.prove(work(StageKind::Map, &["7"])).await.unwrap_err()
}

#[tokio::test]
async fn the_demo_is_called_with_its_long_flags() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("prover");
    // Another process writes the file: a file that any process has open for writing cannot be executed.
    let made = std::process::Command::new("/bin/sh")
        .args(["-c", r#"printf '%s\n' '#!/bin/sh' '[ "$1 $3" = "--input-path --output-path" ] || exit 9' 'echo "{\"block\":$(cat "$2"),\"proof\":\"0x00\",\"prover\":\"sh\"}" > "$4"' > "$0"; chmod +x "$0""#])
        .arg(&program)
        .status()
        .unwrap();
    assert!(made.success());
    let exec = Exec::new(
        &config(&format!("program = '{}'", program.display())).exec,
        Role::Prover,
    )
    .unwrap();
    let outputs = proved(&exec, StageKind::Map, &["7"]).await;
    assert_eq!(outputs, ["{\"block\":7,\"proof\":\"0x00\",\"prover\":\"sh\"}\n"]);
}

#[tokio::test]
async fn inputs_come_as_the_stage_has_them() {
    let copy = script(r#"cat "$1" > "$2""#, "");
    assert_eq!(
        proved(&copy, StageKind::Map, &[" not JSON "]).await,
        [" not JSON "]
    );
    assert_eq!(
        proved(&copy, StageKind::Join, &[r#"{"a": 1}"#, "2"]).await,
        [r#"[{"a": 1},2]"#]
    );
    let bad = copy.prove(work(StageKind::Join, &["1", "x"])).await.unwrap_err();
    assert_eq!(bad.class, FailureClass::Fatal);
    assert!(bad.message.contains("input 1 is not JSON"), "{bad}");

    let wrapped = script(r#"cat "$1" > "$2""#, "input = 'step-proofs'");
    let expected = r#"[{"data":1,"task_id":0,"group_id":7},{"data":2,"task_id":1,"group_id":7}]"#;
    assert_eq!(proved(&wrapped, StageKind::Join, &["1", "2"]).await, [expected]);
    assert_eq!(proved(&wrapped, StageKind::Map, &["1"]).await, ["1"]);

    let described = script(r#"cat "$1" > "$2""#, "input = 'json'");
    let text = proved(&described, StageKind::Map, &["\u{1}"]).await.remove(0);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["inputs"], serde_json::json!(["0x01"]));
    assert_eq!(
        (json["block_number"].as_u64(), json["attempt"].as_u64()),
        (Some(7), Some(2))
    );
    assert_eq!(json["parent_hash"], format!("0x{}", "cd".repeat(32)));
}

#[tokio::test]
async fn a_split_writes_one_output_per_element() {
    let split = script(r#"echo '[ {"step_id": 0},1, "x" ]' > "$2""#, "");
    assert_eq!(
        proved(&split, StageKind::Split, &["7"]).await,
        [r#"{"step_id": 0}"#, "1", r#""x""#]
    );
    let split = script(r#"echo '{}' > "$2""#, "");
    let error = split.prove(work(StageKind::Split, &["7"])).await.unwrap_err();
    assert!(error.message.contains("must be a JSON array"), "{error}");
}

#[tokio::test]
async fn exit_codes_and_signals_have_their_class() {
    let codes = "[exec.exit_codes]\nfatal = [3, 4]\nout_of_memory = [5]";
    for (text, class, message) in [
        (
            "echo no luck >&2; exit 1",
            FailureClass::Retryable,
            "the program exited with code 1: no luck",
        ),
        (
            "exit 4",
            FailureClass::Fatal,
            "the program exited with code 4 and wrote nothing to stderr",
        ),
        (
            "exit 5",
            FailureClass::OutOfMemory,
            "the program exited with code 5",
        ),
        (
            "kill -KILL $$",
            FailureClass::OutOfMemory,
            "was killed with SIGKILL",
        ),
        ("kill -SEGV $$", FailureClass::Retryable, "was ended by signal 11"),
    ] {
        let error = failed(&script(text, codes)).await;
        assert_eq!(error.class, class, "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
    }
}

#[tokio::test]
async fn an_output_that_cannot_be_used_is_a_clear_failure() {
    for (text, message) in [
        ("exit 0", "wrote no output file, or an empty one"),
        (r#": > "$2""#, "wrote no output file, or an empty one"),
        (r#"mkdir "$2""#, "output file: Is a directory"),
        (r#"echo 12345678901 > "$2""#, "larger than 10 bytes"),
    ] {
        let error = failed(&script(text, "output_bytes_max = 10")).await;
        assert!(error.message.contains(message), "{text}: {error}");
    }
    let missing = Exec::new(&config("program = 'no-such-program-anywhere'").exec, Role::Prover).unwrap();
    let error = failed(&missing).await;
    assert!(
        error.message.contains("no-such-program-anywhere: No such file"),
        "{error}"
    );
}

#[tokio::test]
async fn a_program_that_floods_stderr_is_neither_blocked_nor_kept_whole() {
    let exec = script(
        "yes some words | head -c 50000000 >&2; echo the last line >&2; exit 1",
        "",
    );
    let error = tokio::time::timeout(PATIENCE, failed(&exec)).await.unwrap();
    assert!(error.message.ends_with("the last line"), "{error}");
    assert!(error.message.len() < 4096 + 100, "{}", error.message.len());
}

#[tokio::test]
async fn a_process_that_left_the_group_does_not_hold_up_the_result() {
    let exec = script(r#"setsid sleep 3 & echo 1 > "$2""#, "");
    let begun = Instant::now();
    proved(&exec, StageKind::Map, &["7"]).await;
    assert!(begun.elapsed() < Duration::from_secs(2));
}

fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // An orphan may stay a zombie if process 1 does not reap.
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[tokio::test]
async fn a_stopped_attempt_takes_its_whole_process_group_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    let text = format!(
        "sh -c 'sleep 100 & echo $! $$ > {0}.new; mv {0}.new {0}; wait' & wait",
        pids.display()
    );
    let text = text
        .replace('\'', "\"")
        .replace("$!", "\\$!")
        .replace("$$", "\\$\\$");
    let exec = script(&text, "");
    let running = exec.prove(work(StageKind::Map, &["7"]));
    let started = wait_for("the grandchild", PATIENCE, async || {
        std::fs::read_to_string(&pids).ok()
    });
    let started = tokio::select! {
        ended = running => unreachable!("{ended:?}"),
        started = started => started,
    };
    // The attempt has been dropped here, as at a timeout or a stop order.
    let pids: Vec<&str> = started.split_whitespace().collect();
    assert_eq!(pids.len(), 2, "{started}");
    for pid in pids {
        wait_for("its end", PATIENCE, async || !is_running(pid)).await;
    }
}

#[tokio::test]
async fn what_a_program_leaves_running_is_killed_with_its_end() {
    let exec = script(r#"sleep 100 & echo $! > "$2""#, "");
    let pid = proved(&exec, StageKind::Map, &["7"]).await.remove(0);
    wait_for("its end", PATIENCE, async || !is_running(pid.trim())).await;
}

#[tokio::test]
async fn every_attempt_has_a_directory_that_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let more = format!(
        "work_dir = '{}'\n[exec.env]\nNAME = 'value'",
        folder.path().display()
    );
    let exec = script(r#"echo "$1 $NAME $PUSH0_CONFIG" > "$2""#, &more);
    let (first, second) = (
        proved(&exec, StageKind::Map, &["7"]).await.remove(0),
        proved(&exec, StageKind::Map, &["7"]).await.remove(0),
    );
    assert_ne!(first, second);
    assert!(
        first.starts_with(folder.path().to_str().unwrap()) && first.ends_with("IN.json value \n"),
        "{first}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_verifiers_exit_code_is_its_verdict() {
    let verifier = |text: &str| {
        let toml = format!(
            "verify_program = '/bin/sh'\n\
             verify_args = ['-c', '''{text}''', 'x', '{{proof}}', '{{block_number}}', '{{block_hash}}', '{{program_id}}']"
        );
        Exec::new(&config(&toml).exec, Role::Verifier).unwrap()
    };
    let verify = async |text: &str| {
        let statement = Statement {
            block: KnownBlock {
                block: work(StageKind::Map, &[]).header.id.stage.block,
                parent_hash: BlockHash([0xcd; 32]),
                revision: 1,
                observed_at: Timestamp::default(),
                announced_after: Announcement::default(),
                facts: BlockFacts::default(),
            },
            first: None,
            program_id: Some("0x01".into()),
            header: None,
        };
        verifier(text).verify(statement, b"proof".to_vec()).await
    };
    let told = r#"[ "$(cat "$1") $2 $4" = "proof 7 0x01" ] || { echo "$2 $3 $4" >&2; exit 1; }"#;
    assert_eq!(verify(told).await.unwrap(), None);
    assert_eq!(
        verify("echo no >&2; exit 1").await.unwrap().as_deref(),
        Some("no")
    );
    assert!(verify("exit 1").await.unwrap().is_some());
    let error = verify("echo oops >&2; exit 3").await.unwrap_err();
    assert!(error.message.contains("exited with code 3: oops"), "{error}");
}

#[test]
fn a_configuration_without_the_program_that_its_role_needs_is_refused() {
    let prover = config("program = '/bin/sh'").exec;
    assert!(Exec::new(&prover, Role::Prover).is_ok());
    let error = Exec::new(&prover, Role::Verifier).unwrap_err().to_string();
    assert_eq!(
        error,
        "exec.verify_program: needed to run as a verifier: expected a program"
    );
    let error = Exec::new(&config("program = '/bin/nowhere'").exec, Role::Prover).unwrap_err();
    assert_eq!(error.to_string(), "exec.program: /bin/nowhere does not exist");
    let wrong: Config = toml::from_str("[exec]\nargs = ['{inptu}']").unwrap();
    assert_eq!(wrong.validate().unwrap_err().key, "exec.args[0]");
}

/// Measures the cost of an attempt beyond starting the program and waiting for its end.
#[tokio::test]
async fn the_overhead_over_a_bare_process_is_small() {
    const RUNS: u32 = 100;
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let exec = Exec::new(
        &config("program = '/bin/cp'\nargs = ['{input}', '{output}']").exec,
        Role::Prover,
    )
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    std::fs::write(&from, "7").unwrap();
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let begun = Instant::now();
        let status = tokio::process::Command::new("/bin/cp")
            .args([&from, &to])
            .status()
            .await;
        bare.push(begun.elapsed());
        assert!(status.unwrap().success());
        let begun = Instant::now();
        proved(&exec, StageKind::Map, &["7"]).await;
        ours.push(begun.elapsed());
    }
    let (bare, ours) = (median(bare), median(ours));
    println!("bare {bare:?}, as an attempt {ours:?}");
    // The target is 3 ms on an idle machine; the limit allows for tests running in parallel.
    assert!(
        ours < bare + Duration::from_millis(15),
        "bare {bare:?}, as an attempt {ours:?}"
    );
}
