//! Tests on a whole deployment of real processes and a real broker, which must emit complete
//! output despite faults.

mod accounts;
mod ahead;
mod broker;
mod cluster;
mod lost_store;
mod mixed;
mod partition;
mod pipelines;
mod provers;
mod quarantine;
mod ranges;
mod restarts;
mod services;
mod shipped;
mod standby;
mod superseded;
mod tracing;
mod unreadable;
mod whole_path;
