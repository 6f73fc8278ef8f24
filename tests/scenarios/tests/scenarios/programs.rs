//! Programs behind `prover-exec` that fail in ways of the machine, hang, hold on to it, or lose their
//! adapter: the trials T6, T15, T19, T20 and T39 on the deployment that ships.

use push0_domain::message::{Dead, EmissionOutcome};
use push0_harness::{Process, ProcessBuilder, wait_for};
use push0_scenarios::{PATIENCE, attempts, dead_letters, demo, deploy, outcome, proofs, single};
use std::path::Path;

/// A prover whose program is this script; `$1` is its input, `$2` its output, `$3` the block.
fn program(id: &str, zkvm: &str, folder: &Path, script: &str) -> ProcessBuilder {
    let toml = format!(
        "[exec]\nprogram = \"/bin/sh\"\nexit_codes.fatal = [4]\ngrace = \"1s\"\nwork_dir = {folder:?}\nlog_dir = {:?}\n\
         args = [\"-c\", '''{script}''', \"x\", \"{{input}}\", \"{{output}}\", \"{{block_number}}\"]\n",
        folder.join("logs")
    );
    Process::program("prover-exec")
        .label(id)
        .config(&toml)
        .env("PUSH0_PROVER__ID", id)
        .env("PUSH0_PROVER__ZKVM", zkvm)
}

fn unchecked(stage: &str) -> String {
    single(stage).replace("zkvm = \"mock\"", "zkvm = \"mock\"\nverify = \"off\"")
}

fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // An orphan may stay a zombie if process 1 does not reap.
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[tokio::test]
async fn a_gpu_out_of_memory_is_proved_by_the_larger_prover_at_the_second_try() {
    let folder = tempfile::tempdir().expect("a directory");
    let script = r#"[ "$3" = 1 ] && { echo "cudaErrorMemoryAllocation: out of memory" >&2; exit 101; }
        echo "CUDA error: out of memory"; kill -ABRT $$"#;
    let small = program("small", "mock", folder.path(), script);
    let large = program("large", "mock-large", folder.path(), r#"cp "$1" "$2""#);
    let pipeline = unchecked("timeout = \"10s\"\nattempts = 3\nmore_memory = \"mock-large\"");
    let deployment = deploy(&pipeline, [small, large]).await;
    deployment.submit_blocks(&demo(), 1..=2).await;
    for kept in deployment.wait_emitted(&demo(), 2, PATIENCE).await {
        let [proof] = proofs(&kept) else {
            unreachable!("one proof is wanted: {kept:?}")
        };
        // Numbers 2 and 3 are left to copies on the smaller provers.
        assert_eq!((proof.prover.as_str(), proof.attempt), ("large", 4));
    }
}

#[tokio::test]
async fn a_reason_on_stdout_is_in_the_letter_and_the_whole_output_in_a_log() {
    let folder = tempfile::tempdir().expect("a directory");
    let script = "echo the first line; echo ERROR guest panicked at block $3; exit 4";
    let prover = program("a", "mock", folder.path(), script);
    let deployment = deploy(&unchecked("timeout = \"10s\"\nattempts = 1"), [prover]).await;
    deployment.submit_blocks(&demo(), 1..=1).await;
    let emissions = deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    assert!(matches!(outcome(&emissions[0]), EmissionOutcome::Dead { .. }));
    let letters = dead_letters(deployment.bus()).await;
    let [letter] = letters.as_slice() else {
        unreachable!("one letter is expected: {letters:?}")
    };
    let Dead::Task { history, .. } = &letter.what else {
        unreachable!("a task is dead: {letter:?}")
    };
    let message = &history[0].failure.message;
    assert!(message.contains("ERROR guest panicked at block 1"), "{message}");
    let (_, path) = message.rsplit_once(':').expect("the place of the log");
    let log = std::fs::read_to_string(path).expect("the log");
    assert!(log.contains("the first line\nERROR guest"), "{log}");
}

#[tokio::test]
async fn a_program_that_hangs_gives_back_what_it_holds_and_the_next_blocks_are_proved() {
    let folder = tempfile::tempdir().expect("a directory");
    let lock = folder.path().join("gpu.lock");
    let script = format!(
        r#"mkdir {0} || {{ echo container name in use >&2; exit 1; }}
        trap "rmdir {0}" EXIT; trap "exit 1" INT TERM
        [ "$3" = 2 ] && {{ setsid sleep 600 & echo $! > {0}.pid; sleep 600; }}
        [ "$3" = 3 ] && {{ trap "" TERM; echo $$ > {0}.deaf; rmdir {0}; sleep 600; }}
        cp "$1" "$2""#,
        lock.display()
    );
    let prover = program("a", "mock", folder.path(), &script);
    let deployment = deploy(&unchecked("timeout = \"1s\""), [prover]).await;
    deployment.submit_blocks(&demo(), 1..=6).await;
    wait_for("the proofs of blocks 1, 4, 5 and 6", PATIENCE, async || {
        attempts(deployment.service("a"), "completed").await == 4
    })
    .await;
    for file in ["pid", "deaf"] {
        let pid = std::fs::read_to_string(lock.with_extension(format!("lock.{file}"))).expect("it ran");
        wait_for("its end", PATIENCE, async || !is_running(pid.trim())).await;
    }
}

#[tokio::test]
async fn a_killed_push0_up_takes_the_programs_with_it() {
    let folder = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("it is written");
        path
    };
    write("blocks.txt", "1\n");
    let pipeline = format!(
        "name = \"t\"\nsource = {{ kind = \"file\", path = {:?} }}\n[[proof]]\ntype = \"p\"\nzkvm = \"x\"\nverify = \"off\"\n\
         [[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"60s\"\n",
        folder.path().join("blocks.txt")
    );
    let pipeline = write("t.toml", &pipeline);
    let pids = folder.path().join("pids");
    let script = format!(
        "#!/bin/sh\nsetsid sleep 600 &\necho $$ $! > {0}.new\nmv {0}.new {0}\nsleep 600\n",
        pids.display()
    );
    let script = write("prove.sh", &script);
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, executable).expect("it is executable");
    let provers = format!(
        "[[prover]]\nzkvm = \"x\"\nadapter = \"exec\"\nenv = {{ PUSH0_EXEC__PROGRAM = {script:?}, PUSH0_EXEC__GRACE = \"1s\" }}\n"
    );
    let provers = write("provers.toml", &provers);
    let up = Process::program("push0")
        .arg("up")
        .arg("--dir")
        .arg(folder.path().join("state"))
        .arg("--pipeline")
        .arg(pipeline)
        .arg("--provers")
        .arg(provers)
        .start();
    let started = wait_for("the program", PATIENCE, async || {
        std::fs::read_to_string(&pids).ok()
    })
    .await;
    up.kill();
    for pid in started.split_whitespace() {
        wait_for("its end", PATIENCE, async || !is_running(pid)).await;
    }
    let logs = std::fs::read_dir(folder.path().join("state/attempts")).expect("logs");
    assert_eq!(logs.count(), 1);
}
