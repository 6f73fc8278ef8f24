//! The ingester: observes chains and publishes their blocks.
//!
//! One process serves every pipeline; two may run, and each pipeline has one leader among them. Per
//! block, in chain order: what is known of it is stored, the block is published, and the cursor says
//! so. It promises that every block of a pipeline is published once the broker takes it, none
//! skipped, each on top of its parent, and that a block that the chain replaces is cancelled before
//! the one that replaces it is published. After a crash at most [`decide::WINDOW`] blocks are
//! published a second time, under the same message ids.
//!
//! It does not prove, does not schedule and keeps nothing in memory that a restart would miss: the
//! state is the cursor and what is known of the last [`decide::DEPTH`] blocks, both on the broker.

mod config;
pub mod decide;
mod error;
mod metrics;
mod publisher;
mod service;
mod session;
mod source;
mod status;

pub use config::{Config, SubmitConfig};
pub use error::Error;
pub use publisher::Cursor;
pub use service::run;
