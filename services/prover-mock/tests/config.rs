//! Accepted and refused configurations, and the commands that need no broker.
#![expect(clippy::unwrap_used, reason = "a failing test panics, in its helpers as well")]

use push0_prover_mock::Config;
use push0_runtime::HasRuntimeConfig;
use std::process::{Command, Output};

fn refused(mock: &str) -> String {
    let config: Config = toml::from_str(&format!("[mock]\n{mock}")).unwrap();
    config
        .validate()
        .map_or_else(|invalid| invalid.key, |()| "accepted".into())
}

#[test]
fn one_way_to_say_the_time_is_accepted() {
    for fine in [
        "",
        "time = '10ms'",
        "time_min = '1s'\ntime_max = '4s'",
        "lognormal_mean = '7s'\nlognormal_p95 = '11s'",
        "per_gas = 200",
        "split = 10\nfailure_class = 'out-of-memory'\nfailure_rate = 0.5",
    ] {
        assert_eq!(refused(fine), "accepted", "{fine}");
    }
    for (wrong, key) in [
        ("time = '10ms'\nper_gas = 1", "mock"),
        ("time_min = '1s'", "mock.time_max"),
        ("time_min = '2s'\ntime_max = '1s'", "mock.time_max"),
        ("lognormal_mean = '7s'", "mock.lognormal_p95"),
        (
            "lognormal_mean = '7s'\nlognormal_p95 = '6s'",
            "mock.lognormal_p95",
        ),
        (
            "lognormal_mean = '0s'\nlognormal_p95 = '6s'",
            "mock.lognormal_p95",
        ),
        ("failure_rate = 1.1", "mock.failure_rate"),
        ("crash_rate = nan", "mock.crash_rate"),
        ("split = 0", "mock.split"),
    ] {
        assert_eq!(refused(wrong), key, "{wrong}");
    }
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_prover-mock"))
        .args(args)
        .output();
    let Output {
        status,
        stdout,
        stderr,
    } = output.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn the_command_line_is_that_of_every_service() {
    let version = concat!("push0-prover-mock ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(run(&["--version"]), (Some(0), version.into(), String::new()));
    let (code, out, _) = run(&["--check-config"]);
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "push0-prover-mock: configuration ok\n")
    );
    let (code, _, err) = run(&["--nope"]);
    assert_eq!(code, Some(64), "{err}");
    let (code, _, err) = run(&["program-id"]);
    assert_eq!(
        (code, err.as_str()),
        (
            Some(64),
            "push0-prover-mock: this adapter has no program of its own\n"
        )
    );
}

#[test]
fn a_proof_in_a_file_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proof");
    std::fs::write(&file, r#"{"block":7,"proof":"0x00","prover":"mock"}"#).unwrap();
    let hash = format!("0x{}", "ab".repeat(32));
    let path = file.to_str().unwrap();
    let about = |path| {
        run(&[
            "verify-file",
            "--proof",
            path,
            "--block-number",
            "7",
            "--block-hash",
            &hash,
            "--parent-hash",
            &hash,
        ])
    };
    let (code, out, err) = about(path);
    assert_eq!(code, Some(65), "{err}");
    assert!(out.starts_with("push0: invalid: "), "{out}");
    assert!(out.contains("not 0x and 64 or more hex digits"), "{out}");
    let (code, _, err) = about("/nowhere");
    assert_eq!(code, Some(2), "{err}");
    assert_eq!(run(&["verify-file", "--proof", path]).0, Some(64));
}
