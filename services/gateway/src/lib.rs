//! The gateway: shows a deployment over HTTP, as one live page, a REST interface and a stream of changes.
//!
//! The gateway reads the broker and decides nothing. [`model`] holds what messages told, [`feed`] numbers the
//! changes for clients, and the rest are shells: one that listens to the broker, one that answers clients. Two
//! gateways may run side by side. With the role *operate* a client may cancel blocks and retry dead letters, as
//! with the `push0` command.

mod access;
pub mod config;
pub mod feed;
#[cfg(test)]
mod fixture;
mod gate;
mod history;
mod http;
mod letters;
mod listen;
mod metrics;
pub mod model;
mod newest;
mod page;
mod recall;
mod refresh;
mod service;
mod shared;
mod trace;
pub mod view;

pub use service::run;
