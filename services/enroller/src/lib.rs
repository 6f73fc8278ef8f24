//! The enroller: answers the broker's questions about replicas that sign in.
//!
//! A replica of a fleet signs in with a key of its own and its fleet's word for it. The broker does not know the key
//! and asks here. The answer gives the replica the rights of its own name, in the account of its zkVM. The decision is
//! `push0_accounts::enrol`, which needs the book of keys and the question alone, so any number of enrollers answer side
//! by side and the first answer counts. Without one, replicas that are connected stay so, and no other gets in.

pub mod config;
mod metrics;
mod quiet;
mod service;

pub use service::run;
