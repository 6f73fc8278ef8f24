//! Values of the broker's buckets: definitions, facts, cursors, keys. The first byte chooses the type.
#![no_main]

use libfuzzer_sys::fuzz_target;
use push0_domain::{
    codec::{Encoding, encode},
    pipeline::Pipeline,
};
use push0_fuzz::{
    body::{STATES, read_chosen},
    seeds,
};

/// Returns the definitions that push0 ships, as their bucket stores them.
fn definitions() -> Vec<Vec<u8>> {
    let shipped = seeds::PIPELINES.iter();
    let read = shipped.filter_map(|text| Pipeline::from_toml("pipeline", text).ok());
    let stored = read.filter_map(|pipeline| encode(&pipeline, Encoding::Json).ok());
    stored
        .map(|body| [vec![chosen("Pipeline")], body].concat())
        .collect()
}

/// Returns a value of each type that the protocol does not show, because only push0 reads it.
fn own() -> Vec<Vec<u8>> {
    let hex = "00".repeat(32);
    let texts = [
        format!(r#"{{"first": 1, "block": {{"number": 7, "hash": "0x{hex}"}}}}"#),
        r#"{"from": 7, "refused": null}"#.to_owned(),
        r#"{"since": 1, "failures": 2, "error": "no", "task": "vm.demo.17-0a1b2c3d.main.prove.0.5"}"#.to_owned(),
        format!(r#"{{"newest": "0x{hex}", "older": ["0x{hex}"]}}"#),
    ];
    let kinds = ["Position", "Reset", "HeldQueue", "SealKeys"];
    let inputs = kinds.into_iter().zip(texts);
    inputs
        .map(|(kind, text)| [vec![chosen(kind)], text.into_bytes()].concat())
        .collect()
}

/// Returns the byte that chooses a type.
fn chosen(name: &str) -> u8 {
    let position = STATES.iter().position(|kind| kind.name == name);
    position
        .and_then(|at| u8::try_from(at).ok())
        .expect("the type is listed")
}

fuzz_target!(
    init: seeds::write(seeds::bodies(STATES, false).into_iter().chain(definitions()).chain(own())),
    |input: &[u8]| read_chosen(STATES, Encoding::Json, input)
);
