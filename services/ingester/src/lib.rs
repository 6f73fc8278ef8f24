//! The ingester: observes chains and publishes their blocks.
//!
//! One process serves every pipeline. Two processes may run, and each pipeline has one leader among them.
//! For each block, in chain order, the ingester stores the block's facts, publishes the block and then
//! moves the cursor. Every block of a pipeline is published once the broker accepts messages, without
//! gaps and each on top of its parent. A block replaced by the chain is cancelled before its replacement
//! is published. After a crash at most [`decide::WINDOW`] blocks are published a second time, under the
//! same message ids.
//!
//! The ingester neither proves nor schedules. A restart loses nothing: the state consists of the cursor
//! and the facts of the last published blocks, both stored on the broker.

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
