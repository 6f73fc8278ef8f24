//! The adapter's process, tested on a real broker.
#![expect(clippy::panic, reason = "a failing test panics, in its helpers as well")]
#![expect(dead_code, reason = "the rig serves the tests of all adapters")]

#[path = "../../prover-mock/tests/rig/mod.rs"]
mod rig;

use push0_bus::Stream;
use push0_domain::{
    message::{FailureClass, ResultEvent},
    subject::{self, Kind},
};
use push0_harness::{Process, ProcessBuilder, wait_for};
use rig::{PATIENCE, Rig, class, failure, output};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Configuration of a prover that fails for every block but block 1, and of a verifier.
const CONFIG: &str = r#"
[prover]
id = "a"
zkvm = "script"
[exec]
program = "/bin/sh"
args = ["-c", '[ "$(cat "$1")" = 1 ] || { echo "not block 1" >&2; exit 4; }; echo proof of "$3" > "$2"', "x", "{input}", "{output}", "{block_number}"]
exit_codes.fatal = [4]
verify_program = "/bin/sh"
verify_args = ["-c", '[ "$(cat "$1")" = "proof of $2" ] || { echo push0: invalid: not of block "$2"; exit 65; }', "x", "{proof}", "{block_number}"]
"#;

#[tokio::test]
async fn a_program_proves_and_another_verifies() {
    let prover = Process::program("prover-exec").config(CONFIG);
    let verifier = Process::program("prover-exec")
        .label("verifier")
        .config(CONFIG)
        .env("PUSH0_PROVER__ID", "v")
        .arg("--verify");
    let rig = Rig::start("script", vec![prover, verifier]).await;
    let mut task = rig.task(1);
    task.header.check = true;
    rig.publish(&task).await;
    let result = rig.result(&task).await;
    assert_eq!(output(rig.bus(), &result).await, b"proof of 1\n");
    let verdict = result.verdict.expect("verified");
    assert_eq!((verdict.verifier.as_str(), verdict.invalid), ("v", None));
    rig.acknowledged(&task).await;

    let task = rig.task(2);
    rig.publish(&task).await;
    let result = rig.result(&task).await;
    assert_eq!(class(&result), FailureClass::Fatal);
    let message = &failure(&result).message;
    let (said, log) = message.split_once("\nwhole output: ").expect("a log");
    assert_eq!(said, "the program exited with code 4: not block 1");
    // HOST:PATH
    let (_, path) = log.split_once(':').expect("a host");
    let log = std::fs::read_to_string(path).expect("a log");
    assert!(log.contains("\nnot block 1\n"), "{log}");
}

/// Waits until a script has written the process ids in its file, one a line.
async fn pids(file: &Path, count: usize) -> Vec<String> {
    wait_for("the program", PATIENCE, async || {
        let text = std::fs::read_to_string(file).ok()?;
        let pids: Vec<String> = text.lines().map(str::to_owned).collect();
        (pids.len() == count).then_some(pids)
    })
    .await
}

fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // An orphan may stay a zombie if process 1 does not reap.
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn scratch_folders(parent: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).expect("it is there");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.is_dir()).collect()
}

/// A prover whose program writes its own pid and those of two more processes: one that left its group and
/// one that ignores SIGTERM.
fn endless(folder: &Path) -> ProcessBuilder {
    let script = r#"echo $$ >> "$1/pids"
        setsid sh -c "echo \$\$ >> $1/pids; sleep 600; sleep 600" &
        (trap "" TERM; sh -c "echo \$\$ >> $1/pids; sleep 600; sleep 600") &
        trap "touch $1/cleaned; exit 1" TERM
        while :; do sleep 0.1; done"#;
    let toml = format!(
        "[prover]\nid = \"a\"\nzkvm = \"script\"\ngrace = \"100ms\"\n[exec]\nprogram = \"/bin/sh\"\ngrace = \"500ms\"\n\
         work_dir = {0:?}\nlog_dir = {1:?}\nargs = [\"-c\", '''{script}''', \"x\", {0:?}]\n",
        folder,
        folder.join("logs"),
    );
    Process::program("prover-exec").config(&toml)
}

#[tokio::test]
async fn a_killed_adapter_takes_its_program_with_it_and_the_next_one_sweeps_its_folder() {
    let folder = tempfile::tempdir().expect("a directory");
    let mut rig = Rig::start("script", vec![endless(folder.path())]).await;
    rig.publish(&rig.task(1)).await;
    let started = pids(&folder.path().join("pids"), 3).await;
    let scratch = || {
        let mut folders = scratch_folders(folder.path());
        folders.retain(|path| !path.ends_with("logs"));
        folders
    };
    let of_the_first = scratch();
    assert_eq!(of_the_first.len(), 1);
    rig.deployment.service("prover-exec").kill();
    for pid in &started {
        wait_for("its end", PATIENCE, async || !is_running(pid)).await;
    }
    assert!(folder.path().join("cleaned").exists());
    std::fs::remove_file(folder.path().join("pids")).expect("it is there");
    rig.deployment.service_mut("prover-exec").restart();
    // The broker gives the task to the new adapter.
    let again = pids(&folder.path().join("pids"), 3).await;
    let of_the_second = scratch();
    assert_eq!(of_the_second.len(), 1, "{of_the_second:?}");
    assert_ne!(of_the_second, of_the_first);

    // In order: nothing is left, and the program has cleaned up before the adapter ends.
    std::fs::remove_file(folder.path().join("cleaned")).expect("it is there");
    let adapter = rig.deployment.service("prover-exec");
    adapter.terminate();
    adapter.wait_exit(PATIENCE).await;
    assert!(folder.path().join("cleaned").exists());
    assert!(again.iter().all(|pid| !is_running(pid)));
    assert_eq!(scratch(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_killed_keeper_takes_the_program_with_it() {
    let folder = tempfile::tempdir().expect("a directory");
    let rig = Rig::start("script", vec![endless(folder.path())]).await;
    let task = rig.task(1);
    rig.publish(&task).await;
    let started = pids(&folder.path().join("pids"), 3).await;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", started[0])).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let keeper = fields.split(' ').nth(1).expect("a parent");
    let name = std::fs::read_to_string(format!("/proc/{keeper}/comm")).expect("it runs");
    assert_eq!(name, "push0-keeper\n");
    let killed = Command::new("kill")
        .args(["-KILL", keeper])
        .status()
        .expect("it runs");
    assert!(killed.success());
    let result = rig.result(&task).await;
    assert_eq!(class(&result), FailureClass::Retryable);
    assert!(failure(&result).message.contains("push0-keeper"), "{result:?}");
    // The keeper's orphans have become the adapter's, and are killed as well.
    let adapter = rig.deployment.service("prover-exec").pid();
    wait_for("the end of all", PATIENCE, async || {
        let children = std::fs::read_to_string(format!("/proc/{adapter}/task/{adapter}/children"));
        let is_alone = children.is_ok_and(|children| children.trim().is_empty());
        is_alone && started.iter().all(|pid| !is_running(pid))
    })
    .await;
}

/// Sends SIGTERM to a process, as a service manager does to each process of a service that it stops.
fn terminate(pid: &str) {
    let status = Command::new("kill").args(["-TERM", pid]).status();
    assert!(status.expect("it runs").success());
}

#[tokio::test]
async fn a_service_that_is_stopped_with_its_programs_hands_the_attempt_back() {
    let folder = tempfile::tempdir().expect("a directory");
    let script =
        r#"echo $PPID >> "$1/pids"; echo $$ >> "$1/pids"; trap "exit 1" TERM; while :; do sleep 0.1; done"#;
    let toml = format!(
        "[prover]\nid = \"a\"\nzkvm = \"script\"\ngrace = \"60s\"\n[exec]\nprogram = \"/bin/sh\"\n\
         args = [\"-c\", '''{script}''', \"x\", {:?}]\n",
        folder.path()
    );
    let prover = Process::program("prover-exec").config(&toml);
    let mut rig = Rig::start("script", vec![prover]).await;
    let task = rig.task(1);
    rig.publish(&task).await;
    let started = pids(&folder.path().join("pids"), 2).await;
    let adapter = rig.deployment.service_mut("prover-exec");
    adapter.terminate();
    wait_for("the adapter's word", PATIENCE, async || {
        adapter.log().contains("taking no more work")
    })
    .await;
    started.iter().for_each(|pid| terminate(pid));
    // The grace is longer.
    adapter.wait_exit(PATIENCE).await;
    std::fs::remove_file(folder.path().join("pids")).expect("it is there");
    adapter.restart();
    pids(&folder.path().join("pids"), 2).await;
    let subject = subject::reports_of_attempt(Kind::Result, &rig::key(&task));
    let told = rig.bus().last::<ResultEvent>(Stream::Results, &subject).await;
    assert!(told.expect("an answer").is_none());
}

#[test]
fn verifying_without_a_verifier_is_refused_at_the_start() {
    let output = Command::new(env!("CARGO_BIN_EXE_prover-exec"))
        .arg("--verify")
        .env("PUSH0_EXEC__PROGRAM", "/bin/sh")
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("exec.verify_program: needed to run as a verifier"),
        "{said}"
    );
}
