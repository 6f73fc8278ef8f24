//! The adapter for Miden VM, and the proof that it makes: an Ethereum block hash names a header with
//! a given parent hash. Proofs of consecutive blocks therefore chain.
//!
//! What a proof says about a [`Statement`]: the prover holds a byte string, 259 to 4096 bytes long,
//! such that
//!
//! * its Keccak-256 digest is the block hash;
//! * it is one RLP list with a two-byte length (prefix `f9`) that fills the bytes exactly, and the
//!   first item of the list is a 32-byte string (prefix `a0`);
//! * that string, bytes 4 to 36, is the parent hash.
//!
//! What it does not say: that the block is canonical, that the other header fields are well formed,
//! or that any transaction in the block is valid.
//!
//! Keccak-256 is a Miden precompile, so the digest is not computed inside the STARK. The program
//! logs a request, the request travels in the proof with the header bytes as its calldata, and
//! [`verify`] recomputes the digest and feeds it to the STARK as a public input. Two things follow:
//! the header is **not secret**, and the verifier does one Keccak-256 over it.
//!
//! The security level is the 96 bits (conjectured) that Miden VM 0.23 fixes for every proof.
//!
//! # Threads
//!
//! The prover uses rayon: the pool it is called from, or else the global pool. [`prove`] and
//! [`verify`] block for their whole run. The adapter gives each attempt a pool of its own, so that
//! two slots do not wait for each other's work; an attempt that is stopped lets go of its slot at
//! once, and its threads end with the proof that nobody waits for, 0.2 s later at most.

mod adapter;
mod config;
mod program;
mod prove;
mod statement;
mod verify;

pub use adapter::Miden;
pub use config::{Config, MidenConfig};
pub use program::{PROGRAM_ID, ProgramError, program_id};
pub use prove::{ProveError, prove};
pub use statement::{HeaderError, MAX_HEADER_BYTES, MIN_HEADER_BYTES, Statement, check_header};
pub use verify::{MAX_PROOF_BYTES, VerifyError, verify};
