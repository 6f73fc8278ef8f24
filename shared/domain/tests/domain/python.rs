//! The Python adapter in docs/protocol.md must read messages written by push0's own services.

use crate::strategy;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use push0_domain::codec::{self, Encoding};
use serde::Serialize;
use std::{
    io::Write,
    process::{Command, Stdio},
    thread,
};

const PAGE: &str = include_str!("../../../../docs/protocol.md");
/// Reads lines of a kind and a body in hex, and prints each body as JSON.
const READER: &str = "
for line in sys.stdin:
    kind, body = line.split()
    print(json.dumps(getattr(Bincode(bytes.fromhex(body)), kind)()))
";
const SAMPLES: usize = 300;

/// Returns encoded bodies as lines for the reader, each with the expected JSON.
fn samples<T: Serialize>(kind: &str, strategy: impl Strategy<Value = T>) -> Vec<(String, serde_json::Value)> {
    let mut runner = TestRunner::deterministic();
    let one = |_| {
        let body = strategy.new_tree(&mut runner).expect("a sample").current();
        let bincode = codec::encode(&body, Encoding::Bincode).expect("a sample is small");
        let json = serde_json::to_value(&body).expect("it can be written");
        (format!("{kind} {}\n", hex::encode(bincode)), json)
    };
    (0..SAMPLES).map(one).collect()
}

#[test]
fn the_adapter_in_python_reads_tasks_and_orders() {
    let class = PAGE
        .split("class Bincode:")
        .nth(1)
        .and_then(|rest| rest.split("\n\n\n").next());
    let program = format!(
        "import json, sys\nclass Bincode:{}\n{READER}",
        class.expect("the class")
    );
    let mut bodies = samples("task", strategy::task());
    bodies.extend(samples("control", strategy::control()));
    let input: String = bodies.iter().map(|(line, _)| line.as_str()).collect();
    let mut python = Command::new("python3")
        .args(["-c", &program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there: scripts/setup needs it too");
    let mut stdin = python.stdin.take().expect("piped");
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = python.wait_with_output().expect("it ends");
    writer.join().expect("it does not panic").expect("it reads all");
    assert!(output.status.success());
    let read = String::from_utf8(output.stdout).expect("text");
    assert_eq!(read.lines().count(), bodies.len());
    for (line, (_, expected)) in read.lines().zip(&bodies) {
        let body: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(body, *expected);
    }
}
