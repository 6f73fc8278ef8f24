//! Adapter for Miden VM. Its proof shows for an Ethereum block hash that the header names a given parent
//! hash. Proofs of consecutive blocks therefore chain.
//!
//! A proof of a [`Statement`] shows that the prover holds a byte string, 259 to 4096
//! bytes long, such that
//!
//! * its Keccak-256 digest is the block hash;
//! * the bytes are exactly one RLP list with a two-byte length (prefix `f9`), and the first item of the
//!   list is a 32-byte string (prefix `a0`);
//! * that string, bytes 4 to 36, is the parent hash.
//!
//! The proof does not show that the block is canonical, the other header fields are well formed, or any
//! transaction in the block is valid.
//!
//! Keccak-256 is a Miden precompile, so the digest is not computed inside the STARK. The program logs a
//! request, the request travels in the proof with the header bytes as its calldata, and [`verify`]
//! recomputes the digest and feeds it to the STARK as a public input. Hence the header is **not secret**,
//! and the verifier computes one Keccak-256 over it.
//!
//! The security level is the 96 bits (conjectured) that Miden VM 0.23 fixes for every proof.
//!
//! # Threads and blocking
//!
//! The prover runs on the rayon pool of its caller, or else on the global pool. [`prove`] and [`verify`]
//! block for their whole run. The adapter gives each attempt its own pool, so that two slots do not wait
//! for each other. A stopped attempt frees its slot at once; its threads finish the abandoned proof,
//! which takes 0.2 s at most.

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
