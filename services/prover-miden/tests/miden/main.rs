//! Proofs of headers, accepted and refused, through the public API, the process and the Miden program itself.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing test panics, in its helpers as well"
)]

mod headers;
mod process;
mod program;
#[expect(dead_code, reason = "the rig serves other tests too")]
#[path = "../../../prover-mock/tests/rig/mod.rs"]
mod rig;
mod round_trip;
