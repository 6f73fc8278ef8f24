//! Tests on a whole deployment of real processes and a real broker, which must emit complete
//! output despite faults.

mod accounts;
mod ahead;
mod authority;
mod broker;
mod chains;
mod cluster;
mod disk;
mod gateway;
mod lost;
mod lost_store;
mod mixed;
mod partition;
mod pipelines;
mod programs;
mod provers;
mod quarantine;
mod ranges;
mod repair;
mod restarts;
mod retry;
mod room;
mod seeing;
mod services;
mod shipped;
mod stalls;
mod standby;
mod superseded;
mod surroundings;
mod tracing;
mod unreadable;
mod verdicts;
mod whole_path;
