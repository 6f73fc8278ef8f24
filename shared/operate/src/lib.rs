//! Operators' work on a deployment, for the `push0` command, the gateway and the watchdog: reading dead letters and held
//! queues, and asking for another proof of a block.

mod error;
pub mod holds;
pub mod known;
pub mod letters;
mod outcome;
pub mod retry;

pub use error::OperateError;
pub use outcome::outcome;
