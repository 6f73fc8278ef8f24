//! The adapter's process, tested on a real broker.
#![expect(clippy::panic, reason = "a failing test panics, in its helpers as well")]
#![expect(dead_code, reason = "the rig serves the tests of all adapters")]

#[path = "../../prover-mock/tests/rig/mod.rs"]
mod rig;

use push0_domain::message::FailureClass;
use push0_harness::Process;
use rig::{Rig, class, failure, output};
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
verify_args = ["-c", '[ "$(cat "$1")" = "proof of $2" ]', "x", "{proof}", "{block_number}"]
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
    assert_eq!(
        failure(&result).message,
        "the program exited with code 4: not block 1"
    );
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
