//! One row per attack on the broker, and the gain of the attack: nothing.

mod actions;
mod fleets;
mod headers;
mod inboxes;
mod repeats;
mod replies;
mod thefts;
