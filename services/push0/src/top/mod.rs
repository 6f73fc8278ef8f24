//! The live screen of `push0 top`.

mod draw;

pub(crate) use draw::{Screen, draw};
