//! The Miden program and its id.

use std::sync::OnceLock;

use miden_core_lib::CoreLibrary;
use miden_vm::{Assembler, Program};

/// Source of the program, in Miden assembly.
const SOURCE: &str = include_str!("header_link.masm");

/// Digest (MAST root) of the compiled program: four field elements of 8 bytes, little-endian.
///
/// The id is a constant so that a change to the source, the assembler or the core library cannot silently
/// change the program pinned by a pipeline: proving compares the compiled program with the constant. The
/// constant also spares the verifier the assembler and the core library, about 35 ms of start-up.
#[rustfmt::skip]
pub const PROGRAM_ID: [u8; 32] = [
    0x02, 0xcb, 0x11, 0x69, 0xee, 0x11, 0x42, 0xc1,
    0xe5, 0xed, 0x49, 0x99, 0x9c, 0x7c, 0x9f, 0x2e,
    0x7a, 0x20, 0xc2, 0x09, 0xc9, 0xe3, 0xa7, 0x0c,
    0xb8, 0xf0, 0xd2, 0x8d, 0xa8, 0x13, 0x00, 0xd3,
];

/// The assembled program cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// The assembler or the linker refused the source.
    #[error("the Miden program does not assemble: {0}")]
    Assemble(String),
    /// The digest of the compiled program differs from [`PROGRAM_ID`].
    #[error("the Miden program has digest {found}, not the pinned {expected}")]
    Digest {
        /// The pinned digest, in hexadecimal.
        expected: String,
        /// The digest of the program just compiled, in hexadecimal.
        found: String,
    },
}

/// Returns the digest that names the program, to be pinned by pipelines and other verifiers of proofs.
#[must_use]
pub fn program_id() -> [u8; 32] {
    PROGRAM_ID
}

/// Returns the program, assembled on first use.
///
/// # Errors
///
/// [`ProgramError`] if the source does not assemble or its digest is not [`PROGRAM_ID`].
pub(crate) fn program() -> Result<&'static Program, ProgramError> {
    static PROGRAM: OnceLock<Result<Program, ProgramError>> = OnceLock::new();
    PROGRAM.get_or_init(assemble).as_ref().map_err(Clone::clone)
}

fn assemble() -> Result<Program, ProgramError> {
    // The library is linked statically, so that a host needs the Keccak event handler and nothing else.
    // The digest is the same either way.
    let program = Assembler::default()
        .with_static_library(CoreLibrary::default())
        .and_then(|assembler| assembler.assemble_program(SOURCE))
        .map_err(|report| ProgramError::Assemble(report.to_string()))?;

    let found = program.hash().as_bytes();
    if found != PROGRAM_ID {
        return Err(ProgramError::Digest {
            expected: hex(&PROGRAM_ID),
            found: hex(&found),
        });
    }
    Ok(program)
}

/// Writes bytes in hexadecimal, with the prefix `0x`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}
