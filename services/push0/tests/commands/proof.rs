//! Proofs as files: fetched, and verified against the facts of their blocks.

use crate::rig::{Deployment, proved, stderr, stdout};
use push0_domain::{BlockHash, Payload};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[tokio::test]
async fn a_proof_is_fetched_and_verified_against_what_the_ingester_saw() {
    let deployment = Deployment::start().await;
    let large = vec![0x5a; 200_000];
    let payload = deployment
        .bus
        .blobs()
        .of_service(push0_bus::Service::Operator, &"demo".parse().expect("a name"), 3)
        .payload(&large)
        .await
        .expect("stored");
    deployment.emit(3, proved(Some("v"), payload)).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("proof");
    deployment.ok(&["proof", "get", "3", "-o", file.to_str().expect("it is text")]);
    assert_eq!(std::fs::read(&file).expect("a file"), large);
    assert_eq!(deployment.push0(&["proof", "get", "3"]).stdout, large);
    assert_eq!(deployment.push0(&["proof", "get", "4"]).status.code(), Some(1));

    let verifier = dir.path().join("verifier");
    let script = "#!/bin/sh\n[ \"$1\" = verify-file ] || exit 64\n[ \"$(wc -c <\"$3\")\" = 200000 ] || exit 66\n\
                  shift 3\nif [ \"$*\" = \"$(cat \"$0.wanted\")\" ]; then echo push0: valid; else echo \"push0: invalid: not $*\"; exit 65; fi\n";
    std::fs::write(&verifier, script).expect("a file");
    std::fs::set_permissions(&verifier, PermissionsExt::from_mode(0o755)).expect("an executable");
    let (hash, parent) = (BlockHash([3; 32]), BlockHash([9; 32]));
    let wanted = format!("--block-number 3 --block-hash {hash} --parent-hash {parent} --program-id 0xabc\n");
    std::fs::write(dir.path().join("verifier.wanted"), &wanted).expect("a file");
    let args = [
        "proof",
        "verify",
        "3",
        "--verifier",
        verifier.to_str().expect("it is text"),
    ];
    assert!(deployment.ok(&args).contains("the fast proof is valid"));
    std::fs::write(dir.path().join("verifier.wanted"), "something else").expect("a file");
    let refused = deployment.push0(&args);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("the proof is not valid: not --block-number 3"),
        "{}",
        stderr(&refused)
    );
}

#[tokio::test]
async fn a_proof_is_verified_by_the_adapter_that_provers_toml_names() {
    let deployment = Deployment::start().await;
    deployment
        .emit(3, proved(Some("v"), Payload::Inline(vec![1])))
        .await;
    let dir = tempfile::tempdir().expect("a directory");
    let adapter = dir.path().join("prover-other");
    std::fs::write(
        &adapter,
        "#!/bin/sh\n[ \"$MARK\" = here ] && echo \"push0: valid\"\n",
    )
    .expect("a file");
    std::fs::set_permissions(&adapter, PermissionsExt::from_mode(0o755)).expect("an executable");
    let provers = "[[prover]]\nzkvm = \"vm\"\nadapter = \"other\"\nenv = { MARK = \"here\" }\n";
    std::fs::write(dir.path().join("provers.toml"), provers).expect("a file");
    let verified = Command::new(env!("CARGO_BIN_EXE_push0"))
        .args(["proof", "verify", "3", "--nats", &deployment.nats.url(), "--dir"])
        .arg(dir.path().join("state"))
        .env("PUSH0_BIN_DIR", dir.path())
        .output()
        .expect("push0 runs");
    assert!(
        stdout(&verified).contains("proof is valid"),
        "{}",
        stderr(&verified)
    );
}
