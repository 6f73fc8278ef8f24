//! The processes of a chaos run.

use crate::stand;
use push0_harness::{Process, ProcessBuilder};
use std::path::Path;

/// Number of a split's outputs. A block has this many proofs, plus the split and the join.
pub(super) const SPLIT: u64 = 3;
/// Start of the names of mock provers.
pub(super) const MOCK: &str = "mock-";
/// All verifiers.
pub(super) const VERIFIERS: [&str; 2] = ["verifier-1", "verifier-2"];

/// Returns the labels of all processes besides the brokers.
pub(super) fn victims() -> Vec<String> {
    let counts = [
        ("ingester", 2),
        ("dispatcher", 2),
        ("collector", 2),
        ("watchdog", 2),
        ("mock", 3),
        ("verifier", 2),
        ("exec", 2),
    ];
    let named = |(name, count)| (1..=count).map(move |n| format!("{name}-{n}"));
    counts.into_iter().flat_map(named).collect()
}

/// Returns a mock prover of this name.
pub(super) fn mock(name: &str, label: &str) -> ProcessBuilder {
    Process::program("prover-mock")
        .label(label)
        .env("PUSH0_PROVER__ID", name)
        .env("PUSH0_PROVER__SLOTS", 8)
        .env("PUSH0_MOCK__TIME_MIN", "200ms")
        .env("PUSH0_MOCK__TIME_MAX", "1000ms")
        .env("PUSH0_MOCK__SPLIT", SPLIT)
}

/// Returns a mock verifier.
pub(super) fn verifier(name: &str) -> ProcessBuilder {
    stand::verifier(name, 4)
}

/// Returns a prover whose program fails while the file `outage` exists.
pub(super) fn exec(name: &str, outage: &Path) -> ProcessBuilder {
    let script = format!("[ ! -e {} ] && cp \"$1\" \"$2\"", outage.display());
    Process::program("prover-exec")
        .label(name)
        .env("PUSH0_PROVER__ID", name)
        .config(&format!(
            "[prover]\nzkvm = \"exec\"\nslots = 2\n[exec]\nprogram = \"/bin/sh\"\n\
             args = ['-c', '''{script}''', 'script', '{{input}}', '{{output}}']\n"
        ))
}
