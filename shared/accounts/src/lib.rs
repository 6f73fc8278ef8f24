//! Who may do what on the broker.
//!
//! The [`Book`] lists every key of a deployment. From the book and one table of rights come the broker's
//! configuration ([`configuration`]) and the decision about a replica that signs in ([`enrol`]). The book and the
//! configuration hold public keys only.
//!
//! Control services live in the account `PUSH0`. The provers and the verifiers of each zkVM have an account of
//! their own, which imports the few services and streams that an adapter needs (docs/adr/0039).

mod book;
mod broker;
mod callout;
pub mod enrol;
mod name;
mod rights;
pub mod signature;

pub use book::{Book, BookError, Control, Member};
pub use broker::configuration;
pub use callout::{Admitted, CalloutError, Request, admit, check_issuer, refuse};
pub use rights::{API_PREFIX, Rights, rights_of_control, rights_of_member};
