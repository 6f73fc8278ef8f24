//! One row per attack on the broker, and what the attack achieves: nothing.

mod actions;
mod fleets;
mod headers;
mod inboxes;
mod replies;
mod thefts;
