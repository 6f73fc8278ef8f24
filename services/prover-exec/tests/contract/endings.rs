//! Ends of programs: by themselves, stopped, and with all that they started.

use crate::{PATIENCE, proved, script, work};
use push0_domain::message::StageKind;
use push0_harness::wait_for;
use push0_prover_exec::Exec;
use push0_prover_sdk::Prove;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_process_that_left_the_group_does_not_hold_up_the_result() {
    let exec = script(
        r#"setsid sh -c "trap : TERM; sleep 100; sleep 100" & echo $! > "$2""#,
        "grace = '1s'",
    );
    let begun = Instant::now();
    let pid = proved(&exec, StageKind::Map, &["7"]).await.remove(0);
    assert!(begun.elapsed() < Duration::from_secs(1));
    wait_for("its end", PATIENCE, async || !is_running(pid.trim())).await;
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

/// Runs an attempt until `file` exists, then drops it as at a timeout or a stop order.
async fn stopped(exec: &Exec, file: &std::path::Path) -> String {
    let running = exec.prove(work(StageKind::Map, &["7"]));
    let started = wait_for("its start", PATIENCE, async || {
        std::fs::read_to_string(file)
            .ok()
            .filter(|text| text.ends_with('\n'))
    });
    tokio::select! {
        ended = running => unreachable!("{ended:?}"),
        started = started => started,
    }
}

#[tokio::test]
async fn a_stopped_program_cleans_up_before_the_next_one_starts() {
    let folder = tempfile::tempdir().unwrap();
    let (lock, started) = (folder.path().join("gpu.lock"), folder.path().join("started"));
    let text = format!(
        r#"mkdir {0} || {{ echo container name in use >&2; exit 1; }}
        trap "sleep 0.3; rmdir {0}; exit 1" INT TERM
        [ "$(cat "$1")" = 7 ] || {{ rmdir {0}; echo 1 > "$2"; exit 0; }}
        sleep 60 & echo $$ > {1}; wait"#,
        lock.display(),
        started.display()
    );
    let exec = script(&text, "");
    stopped(&exec, &started).await;
    // With one slot, the next program waits until the stopped one has cleaned up.
    assert_eq!(proved(&exec, StageKind::Map, &["8"]).await, ["1\n"]);
    assert!(!lock.exists());
}

#[tokio::test]
async fn a_program_that_ignores_sigterm_is_killed_after_the_grace_with_all_that_left_its_group() {
    let folder = tempfile::tempdir().unwrap();
    let started = folder.path().join("started");
    let text = format!(
        r#"trap "" TERM
        setsid sh -c "echo \$\$ > {0}.new; setsid sleep 100; sleep 100" &
        until [ -s {0}.new ]; do sleep 0.05; done
        echo $$ $(cat {0}.new) > {0}; sleep 100; sleep 100"#,
        started.display()
    );
    let exec = script(&text, "grace = '500ms'");
    let pids = stopped(&exec, &started).await;
    let begun = Instant::now();
    for pid in pids.split_whitespace() {
        wait_for("its end", PATIENCE, async || !is_running(pid)).await;
    }
    let took = begun.elapsed();
    assert!(
        took > Duration::from_millis(400) && took < Duration::from_secs(3),
        "{took:?}"
    );
}

#[tokio::test]
async fn a_program_whose_keeper_stands_still_ends_and_frees_its_slot() {
    let folder = tempfile::tempdir().unwrap();
    let started = folder.path().join("started");
    let text = format!(
        r#"[ "$(cat "$1")" = 7 ] || {{ echo 1 > "$2"; exit 0; }}
        kill -STOP $PPID; echo $$ > {}; sleep 100"#,
        started.display()
    );
    let exec = script(&text, "grace = '500ms'");
    let pid = stopped(&exec, &started).await;
    assert_eq!(proved(&exec, StageKind::Map, &["8"]).await, ["1\n"]);
    assert!(!is_running(pid.trim()));
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
    let text = r#"echo "$1 $NAME $PUSH0_CONFIG" > "$2"
        [ "$PWD/IN.json $TMPDIR" = "$1 $PWD" ] || exit 9"#;
    let exec = script(text, &more);
    let (first, second) = (
        proved(&exec, StageKind::Map, &["7"]).await.remove(0),
        proved(&exec, StageKind::Map, &["7"]).await.remove(0),
    );
    assert_ne!(first, second);
    drop(exec);
    assert!(
        first.starts_with(folder.path().to_str().unwrap()) && first.ends_with("IN.json value \n"),
        "{first}"
    );
    wait_for("the folders' end", PATIENCE, async || {
        std::fs::read_dir(folder.path()).unwrap().count() == 0
    })
    .await;
}
