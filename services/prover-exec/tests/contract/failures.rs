//! Classes of failures, and the limits that end a program.

use crate::{PATIENCE, config, exec, failed, proved, script};
use push0_domain::message::{FailureClass, StageKind};
use push0_harness::wait_for;
use push0_prover_exec::Exec;
use push0_prover_sdk::Role;
use std::time::Instant;

#[tokio::test]
async fn exit_codes_and_signals_have_their_class() {
    let codes = "[exec.exit_codes]\nfatal = [3, 4]\nout_of_memory = [5]\nsurroundings = [75]";
    for (text, class, message) in [
        (
            "echo no luck >&2; exit 1",
            FailureClass::Retryable,
            "the program exited with code 1: no luck",
        ),
        (
            "exit 4",
            FailureClass::Fatal,
            "the program exited with code 4 and wrote nothing to stderr or stdout",
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
        (
            "kill -SEGV $$",
            FailureClass::Retryable,
            "was ended by signal 11 (SIGSEGV)",
        ),
        (
            "sh -c \"kill -ABRT \\$\\$\"; exit $?",
            FailureClass::Retryable,
            "exited with code 134, as after signal 6 (SIGABRT)",
        ),
        (
            "exit 75",
            FailureClass::Surroundings,
            "the program exited with code 75",
        ),
        (
            "kill -TERM $$",
            FailureClass::Surroundings,
            "was ended by signal 15 (SIGTERM), told to by a signal that this adapter did not send",
        ),
        (
            "sh -c \"kill -INT \\$\\$\"; exit $?",
            FailureClass::Surroundings,
            "exited with code 130",
        ),
        // As the stop of a whole service: the program catches the signal that its keeper gets as well.
        (
            "trap \"exit 1\" TERM; kill -TERM $PPID $$; sleep 9",
            FailureClass::Surroundings,
            "exited with code 1, told to",
        ),
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
        (r#"mkdir "$2""#, "output file: expected a regular file"),
        (r#"echo 12345678901 > "$2""#, "larger than 10 bytes"),
    ] {
        let error = failed(&script(text, "output_bytes_max = 10")).await;
        assert!(error.message.contains(message), "{text}: {error}");
        assert_eq!(error.class, FailureClass::Retryable, "{text}: {error}");
    }
    let missing = exec(&config("program = 'no-such-program-anywhere'"), Role::Prover).unwrap();
    let error = failed(&missing).await;
    assert!(
        error
            .message
            .contains("no-such-program-anywhere did not start: No such file"),
        "{error}"
    );
    assert_eq!(error.class, FailureClass::Surroundings);
}

#[tokio::test]
async fn a_failure_of_the_surroundings_is_not_the_tasks() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    std::fs::write(&program, "#!/bin/sh\n").unwrap();
    let toml = format!("program = '{}'", program.display());
    let prover = exec(&config(&toml), Role::Prover).unwrap();
    let not_executable = failed(&prover).await;
    std::fs::remove_file(&program).unwrap();
    let moved = failed(&prover).await;
    let scratch = folder.path().join("scratch");
    let no_scratch = failed(&script("exit 0", &format!("work_dir = '{}'", scratch.display()))).await;
    // The device on which every write finds the disk full.
    let full = failed(&script(r#"cat "$1" > /dev/full"#, "")).await;
    for (error, message) in [
        (not_executable, "Permission denied"),
        (moved, "No such file or directory"),
        (no_scratch, "scratch: No such file or directory"),
        (full, "No space left on device"),
    ] {
        assert_eq!(error.class, FailureClass::Surroundings, "{error}");
        assert!(error.message.contains(message), "{error}");
    }
}

#[tokio::test]
async fn a_gpu_out_of_memory_is_out_of_memory_whatever_the_exit_code() {
    for text in [
        r#"echo "cudaErrorMemoryAllocation: out of memory" >&2; exit 101"#,
        r#"echo "CUDA error: out of memory"; kill -ABRT $$"#,
    ] {
        let error = failed(&script(text, "")).await;
        assert_eq!(error.class, FailureClass::OutOfMemory, "{error}");
    }
    let panic = failed(&script("echo thread main panicked >&2; exit 101", "")).await;
    assert_eq!(panic.class, FailureClass::Retryable);
    let own = "[exec.patterns]\nfatal = ['^bad witness']\nsurroundings = ['(?i)rpc .* is away']";
    for (text, class) in [
        ("echo hello; echo bad witness 7; exit 1", FailureClass::Fatal),
        (
            "echo The RPC of the chain is away >&2; exit 1",
            FailureClass::Surroundings,
        ),
    ] {
        assert_eq!(failed(&script(text, own)).await.class, class);
    }
}

#[tokio::test]
async fn each_limit_ends_the_program_and_is_the_reason_told() {
    for (limit, text, class, message) in [
        (
            "file_bytes = 10000",
            "head -c 100000 /dev/zero > \"$2\"",
            FailureClass::Retryable,
            "(SIGXFSZ: a file grew too large, see exec.limits.file_bytes)",
        ),
        (
            "memory_bytes = 200000000",
            "dd if=/dev/zero of=\"$2\" bs=1G count=1",
            FailureClass::OutOfMemory,
            "memory exhausted",
        ),
        (
            "cpu_seconds = 1",
            "while :; do :; done",
            FailureClass::Retryable,
            "(SIGXCPU: its processor time is used up, see exec.limits.cpu_seconds)",
        ),
    ] {
        let error = failed(&script(text, &format!("limits.{limit}"))).await;
        assert!(error.message.contains(message), "{limit}: {error}");
        assert_eq!(error.class, class, "{limit}: {error}");
    }
}

/// Returns a cgroup of version 2 below which this process may make others with limits, if there is one.
fn delegated() -> Option<std::path::PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
    let mut mounts = mounts.lines().map(|line| line.split(' '));
    let mount = mounts.find_map(|mut line| line.nth(1).filter(|_| line.next() == Some("cgroup2")))?;
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let own = std::path::Path::new(mount).join(own);
    let is_usable = |cgroup: &std::path::Path| {
        let enabled = std::fs::read_to_string(cgroup.join("cgroup.subtree_control")).unwrap_or_default();
        let tried = cgroup.join(format!("push0-test-{}", std::process::id()));
        ["memory", "cpu"]
            .iter()
            .all(|needed| enabled.split_whitespace().any(|name| name == *needed))
            && std::fs::create_dir(&tried).is_ok()
            && std::fs::remove_dir(&tried).is_ok()
    };
    let mut above = own.ancestors().take_while(|cgroup| cgroup.starts_with(mount));
    above.find(|cgroup| is_usable(cgroup)).map(ToOwned::to_owned)
}

#[tokio::test]
async fn the_memory_of_a_cgroup_is_that_of_all_its_processes() {
    let Some(cgroup) = delegated() else {
        println!("skipped: no cgroup of version 2 is delegated to this process");
        return;
    };
    let limits = format!(
        "limits.cgroup = '{}'\nlimits.memory_bytes = 67108864\nlimits.cpu_millis = 1000",
        cgroup.display()
    );
    // `tail` keeps as much as it is to print.
    let text = "head -c 300000000 /dev/zero | tail -c 300000000 > /dev/null; exit 1";
    let error = failed(&script(text, &limits)).await;
    assert_eq!(error.class, FailureClass::OutOfMemory, "{error}");
    let fine = script("cat \"$1\" > \"$2\"", &limits);
    assert_eq!(proved(&fine, StageKind::Map, &["7"]).await, ["7"]);
    let missing = config(&format!("program = 'no-such-program-anywhere'\n{limits}"));
    failed(&exec(&missing, Role::Prover).unwrap()).await;
    wait_for("the end of all cgroups", PATIENCE, async || {
        is_without_programs(&cgroup)
    })
    .await;
}

fn is_without_programs(cgroup: &std::path::Path) -> bool {
    let names = std::fs::read_dir(cgroup)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    names
        .into_iter()
        .all(|name| !name.to_string_lossy().starts_with("prover-exec-"))
}

#[tokio::test]
async fn a_keeper_that_does_not_start_leaves_no_cgroup() {
    let folder = tempfile::tempdir().unwrap();
    // Without limits, a directory serves as a cgroup until a program enters it.
    let toml = format!(
        "program = '/bin/sh'\nlimits.cgroup = '{}'",
        folder.path().display()
    );
    let exec = Exec::new(&config(&toml), Role::Prover, Some("/bin/nowhere".into())).unwrap();
    let error = failed(&exec).await;
    assert_eq!(error.class, FailureClass::Surroundings, "{error}");
    assert!(is_without_programs(folder.path()));
}

#[tokio::test]
async fn the_reason_is_told_from_whichever_stream_it_was_written_to() {
    let error = failed(&script("echo ERROR guest panicked at block 7; exit 1", "")).await;
    assert_eq!(
        error.message,
        "the program exited with code 1; stdout: ERROR guest panicked at block 7"
    );
    let text = r#"printf "\\033[31mred\\033[0m alert"; echo no luck >&2; exit 1"#;
    let error = failed(&script(text, "")).await;
    assert_eq!(
        error.message,
        "the program exited with code 1: no luck\nstdout: red alert"
    );
    let text = "yes out | head -c 9000; yes err | head -c 9000 >&2; exit 1";
    let error = failed(&script(text, "")).await;
    let share = |word: &str| error.message.matches(word).count() * (word.len() + 1);
    assert!(share("out") > 1500 && share("err") > 1500 && error.message.len() <= 4096);
}

#[tokio::test]
async fn an_output_that_is_no_regular_file_is_refused_at_once() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "the seed").unwrap();
    let link = format!("ln -s {} \"$2\"", secret.path().display());
    for text in [link.as_str(), "mkfifo \"$2\"", "mkdir \"$2\""] {
        let began = Instant::now();
        let error = failed(&script(text, "")).await;
        assert_eq!(error.class, FailureClass::Retryable, "{text}: {error:?}");
        assert!(
            !error.message.contains("the seed") && began.elapsed() < PATIENCE,
            "{error:?}"
        );
    }
}
