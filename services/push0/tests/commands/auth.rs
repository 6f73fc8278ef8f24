//! `push0 auth`: files, their permissions, and what they say.

use super::{push0, stderr, stdout};
use push0_harness::NatsServer;
use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

fn auth(args: &[&str]) -> String {
    let output = push0(&[&["auth"], args].concat());
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    stdout(&output)
}

fn refused(args: &[&str]) -> String {
    let output = push0(&[&["auth"], args].concat());
    assert_eq!(output.status.code(), Some(64), "{args:?}: {}", stdout(&output));
    stderr(&output)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it exists").permissions().mode() & 0o777
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a file")
}

#[tokio::test]
async fn keys_are_made_rotated_and_revoked() {
    let home = TempDir::new().expect("a directory");
    let keys = home.path().join("keys");
    let dir = keys.to_str().expect("text");
    assert!(refused(&["show", dir]).contains("push0 auth init"));
    let first = auth(&["init", dir, "--zkvm", "mock"]);
    assert!(!first.contains("in place"), "{first}");
    auth(&["add-prover", dir, "gpu-1", "--zkvm", "mock"]);
    auth(&["add-verifier", dir, "v-1", "--zkvm", "mock"]);
    assert_eq!(mode(&keys), 0o700);
    assert_eq!(mode(&keys.join("public")), 0o755);
    let seeds: Vec<_> = std::fs::read_dir(&keys)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "nk"))
        .collect();
    assert_eq!(seeds.len(), 13, "{seeds:?}");
    // The live page has a token from the beginning.
    assert_eq!(mode(&keys.join("gateway-tokens.toml")), 0o600);
    let (configuration, book) = (
        keys.join("public/nats-auth.conf"),
        keys.join("public/accounts.json"),
    );
    let public = text(&configuration) + &text(&book) + &auth(&["show", dir]);
    for seed in &seeds {
        assert_eq!(mode(seed), 0o600, "{}", seed.display());
        assert!(
            !public.contains(text(seed).trim()),
            "{} is public",
            seed.display()
        );
    }
    // The broker takes the configuration.
    let server = NatsServer::options()
        .with_config(&text(&configuration))
        .start()
        .await;
    assert!(server.is_running());

    let before = text(&configuration);
    let again = auth(&["init", dir, "--zkvm", "mock"]);
    assert!(again.contains("Put changed keys in place"), "{again}");
    assert_eq!(text(&configuration), before, "init changes nothing that is there");
    assert!(!again.contains("not in the directory"), "{again}");
    let (seed, away) = (keys.join("gateway.nk"), keys.join("gateway.away"));
    std::fs::rename(&seed, &away).expect("moved");
    let lacking = auth(&["init", dir]);
    let rotate = format!("`push0 auth rotate {dir} gateway`");
    assert!(
        lacking.contains("not in the directory: gateway.") && lacking.contains(&rotate),
        "{lacking}"
    );
    std::fs::rename(&away, &seed).expect("moved back");
    let (old, line) = (text(&keys.join("gpu-1.nk")), auth(&["show", dir]));
    let rotated = auth(&["rotate", dir, "gpu-1"]);
    assert!(
        rotated.contains("Put changed keys in place") && rotated.contains("reload each broker twice"),
        "{rotated}"
    );
    assert_ne!(text(&keys.join("gpu-1.nk")), old);
    assert_ne!(auth(&["show", dir]), line);
    auth(&["revoke", dir, "gpu-1"]);
    assert!(!keys.join("gpu-1.nk").exists() && !text(&configuration).contains("gpu-1"));
    auth(&["revoke", dir, "mock-abcdefghijklmnop"]);
    assert!(auth(&["show", dir]).contains("revoked replica"));
    for wrong in [
        &["revoke", dir, "gpu-1"][..],
        &["revoke", dir, "operator"],
        &["rotate", dir, "nobody"],
        &["add-prover", dir, "v-1", "--zkvm", "mock"],
    ] {
        assert!(refused(wrong).contains("`push0 auth "), "{wrong:?}");
    }
}

#[test]
fn seeds_for_containers_can_be_read_inside_a_directory_that_cannot_be_entered() {
    let home = TempDir::new().expect("a directory");
    let keys = home.path().join("keys");
    let dir = keys.to_str().expect("text");
    auth(&["init", dir, "--containers"]);
    auth(&["add-prover", dir, "gpu-1", "--zkvm", "mock"]);
    assert_eq!(mode(&keys), 0o700);
    for seed in ["operator.nk", "issuer.nk", "gpu-1.nk"] {
        assert_eq!(mode(&keys.join(seed)), 0o644);
    }
}

#[tokio::test]
async fn provision_with_a_seed_that_may_not_create_streams_says_so_at_once() {
    let home = TempDir::new().expect("a directory");
    let keys = home.path().join("keys");
    auth(&["init", keys.to_str().expect("text"), "--zkvm", "mock"]);
    let server = NatsServer::options()
        .with_config(&text(&keys.join("public/nats-auth.conf")))
        .start()
        .await;
    let began = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_push0"))
        .args([
            "provision",
            "--dir",
            "/nonexistent/push0",
            "--nats",
            &server.url(),
        ])
        .env("PUSH0_NATS__NKEY_SEED", keys.join("operator.nk"))
        .stdin(Stdio::null())
        .output()
        .expect("push0 runs");
    let (took, said) = (began.elapsed(), stderr(&output));
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("the broker does not let the user with the public key U"),
        "{said}"
    );
    assert!(said.contains("publish to `$JS.API.STREAM."), "{said}");
    // It waits 30 s for brokers that gather.
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_sign_in_that_the_broker_refuses_is_not_called_a_missing_broker() {
    let home = TempDir::new().expect("a directory");
    let keys = home.path().join("keys");
    auth(&["init", keys.to_str().expect("text"), "--zkvm", "mock"]);
    // The broker asks the enroller about a client without a key, and none runs.
    let accounts = text(&keys.join("public/nats-auth.conf"));
    let password = "authorization { user: a, password: b }".to_owned();
    for (configuration, said) in [
        (password, "refuses the sign-in (authorization violation"),
        (
            accounts,
            "takes the connection and does not answer the sign-in (timed out): check",
        ),
    ] {
        let server = NatsServer::options().with_config(&configuration).start().await;
        let output = push0(&["status", "--nats", &server.url()]);
        assert_eq!(output.status.code(), Some(1));
        let told = stderr(&output);
        assert!(
            told.contains(said) && told.contains("PUSH0_NATS__NKEY_SEED"),
            "{told}"
        );
    }
}
