//! What the adapter says before it is started.

use std::process::Command;

#[test]
fn a_program_that_is_missing_is_refused_before_the_start() {
    let refusal = |program: &str| {
        let mut adapter = Command::new(env!("CARGO_BIN_EXE_prover-exec"));
        adapter.env_clear().arg("--check-start");
        let output = adapter.env("PUSH0_EXEC__PROGRAM", program).output();
        let output = output.expect("the adapter runs");
        let said = String::from_utf8(output.stdout).expect("it is text");
        (output.status.code(), said)
    };
    for (program, reason) in [
        (
            "",
            "push0: refused: exec.program: needed to run as a prover: expected a program\n",
        ),
        (
            "/no/prove.sh",
            "push0: refused: exec.program: /no/prove.sh does not exist\n",
        ),
    ] {
        assert_eq!(refusal(program), (Some(64), reason.to_owned()));
    }
    assert_eq!(refusal("sh"), (Some(0), String::new()));
}
