//! What the fuzz targets share: bodies of every type, a limit on the memory of what is read, and first inputs.

pub mod body;
pub mod fleet;
pub mod held;
pub mod seeds;
pub mod walk;
