//! The collector: joins results, opens the next stage, emits proofs in chain order.
//!
//! The collector keeps promises P2 (in order), P3 (once) and its part of P1, P6 and P7. Its state is the
//! results it has not acknowledged: a result is acknowledged only when the next step is stored, and a
//! collector that starts over rebuilds its state from the others. The collector contains no zkVM's code and
//! knows no provers.

mod advance;
mod around;
mod bodies;
pub mod config;
pub mod decide;
mod emit;
mod ends;
mod evidence;
mod gate;
mod intake;
mod judge;
mod known;
mod looking;
mod metrics;
mod pipeline;
mod range;
mod record;
mod recorded;
mod run;
mod service;
pub mod session;
mod spans;
mod standing;
mod start;
pub mod state;
mod step;
mod task;

pub use service::run;
