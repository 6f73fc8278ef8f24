//! Shared parts of the fuzz targets: bodies of every type, a limit on the memory of a reader, and first inputs.

pub mod body;
pub mod fleet;
pub mod held;
pub mod seeds;
pub mod walk;
