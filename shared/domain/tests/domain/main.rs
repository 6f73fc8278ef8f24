//! Laws of the vocabulary: what must hold for every value, not for the ones somebody thought of.

mod codec;
mod pipeline;
mod python;
mod range;
mod stage_keys;
mod strategy;
mod subject;
mod tree;
mod urgency;
