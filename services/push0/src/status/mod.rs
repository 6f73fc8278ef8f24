//! The state of a deployment, as `push0 status` and `push0 top` show it: read from the broker, judged, rendered.

mod judge;
mod look;
mod model;
mod pipelines;
mod provers;
mod render;
mod roles;
mod services;
mod streams;

pub(crate) use look::look;
pub(crate) use provers::{LOST_AFTER, heard};
pub(crate) use render::{first_line, render, state as state_of};

pub(crate) use model::Status;
