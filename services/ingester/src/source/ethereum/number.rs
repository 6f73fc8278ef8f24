//! The name of a block in a request to a node.

/// The block named in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Latest,
    At(u64),
}
