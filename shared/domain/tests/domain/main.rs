//! Laws of the vocabulary: properties of all values, not only of chosen examples.

mod codec;
mod path;
mod pipeline;
mod python;
mod range;
mod report;
mod signature;
mod stage_keys;
mod strategy;
mod subject;
mod tree;
mod urgency;
mod wanted;
