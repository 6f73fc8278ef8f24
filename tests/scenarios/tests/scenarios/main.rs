//! A whole deployment of real processes and a real broker per test: what comes out, whatever happens.

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
