//! Parts of `push0 up`: the broker, the plan of processes, and their supervision.

pub(crate) mod binaries;
pub(crate) mod broker;
pub(crate) mod broker_watch;
pub(crate) mod check;
pub(crate) mod disk;
pub(crate) mod log;
pub(crate) mod page;
pub(crate) mod plan;
pub(crate) mod ports;
pub(crate) mod provers;
pub(crate) mod restarts;
pub(crate) mod submit;
pub(crate) mod supervise;
