//! Operators' work on a deployment, for the `push0` command, the gateway and the watchdog: reading dead letters and held
//! queues, asking for another proof of a block, and naming troubles.

pub mod cancel;
mod error;
pub mod holds;
pub mod judge;
pub mod known;
pub mod letters;
mod outcome;
pub mod retry;
pub mod room;

pub use error::OperateError;
pub use outcome::outcome;
