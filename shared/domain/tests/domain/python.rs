//! The Python examples must read messages written by push0's own services.

use crate::strategy;
use proptest::{
    collection::vec,
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use push0_domain::{
    Payload,
    codec::{self, Encoding},
};
use serde::Serialize;
use std::{
    io::Write,
    process::{Command, Stdio},
    thread,
};

/// The reader, as the Python examples import it.
const BINCODE: &str = include_str!("../../../../examples/python/push0_bincode.py");
/// Reads lines of a kind and a body in hex, and prints each body as JSON.
const READER: &str = "
import json, sys
for line in sys.stdin:
    kind, body = line.split()
    reader = Bincode(bytes.fromhex(body))
    print(json.dumps(getattr(reader, kind)()))
    reader.end()
";
/// Reads lines with a chunk of payloads in hex, and prints each chunk as Python writes it.
const WRITER: &str = "
import sys
for line in sys.stdin:
    reader = Bincode(bytes.fromhex(line))
    print(write_payloads(reader.list(reader.payload)).hex())
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

/// Runs a program in Python and returns the lines that it prints.
fn run(program: &str, input: String) -> Vec<String> {
    let mut python = Command::new("python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there: scripts/setup needs it too");
    let mut stdin = python.stdin.take().expect("piped");
    let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = python.wait_with_output().expect("it ends");
    writer.join().expect("it does not panic").expect("it reads all");
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).expect("text");
    printed.lines().map(str::to_owned).collect()
}

#[test]
fn the_reader_in_python_reads_tasks_orders_and_records() {
    let mut bodies = samples("task", strategy::task());
    bodies.extend(samples("control", strategy::control()));
    bodies.extend(samples("presence", strategy::presence()));
    bodies.extend(samples("emission", strategy::emission()));
    let input: String = bodies.iter().map(|(line, _)| line.as_str()).collect();
    let read = run(&format!("{BINCODE}\n{READER}"), input);
    assert_eq!(read.len(), bodies.len());
    for (line, (_, expected)) in read.iter().zip(&bodies) {
        let body: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(body, *expected);
    }
}

#[test]
fn the_writer_in_python_writes_chunks_of_payloads() {
    let is_stored = |payload: &Payload| !matches!(payload, Payload::Entry { .. });
    let chunks = vec(
        strategy::payload().prop_filter("a chunk has no entries of chunks", is_stored),
        0..300,
    );
    let mut runner = TestRunner::deterministic();
    let chunk = |_| {
        let chunk = chunks.new_tree(&mut runner).expect("a sample").current();
        hex::encode(codec::encode(&chunk, Encoding::Bincode).expect("a sample is small"))
    };
    let written: Vec<String> = (0..20).map(chunk).collect();
    let input = written.iter().map(|chunk| format!("{chunk}\n")).collect();
    assert_eq!(run(&format!("{BINCODE}\n{WRITER}"), input), written);
}
