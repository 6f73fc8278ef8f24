//! Access to NATS JetStream for push0. Services use the broker only through this crate and name no
//! NATS client themselves.
//!
//! The crate keeps the connection, declares streams, publishes with confirmation, receives and acknowledges
//! messages, and stores small facts and large blobs. It makes no decisions: the services decide how to act on
//! a message, and [`push0_domain::subject`] defines the subjects.

mod backoff;
mod blobs;
mod brokers;
mod claim;
mod connection;
mod consumer;
mod copies;
mod dead;
mod delivery;
mod error;
mod event;
mod facts;
mod held;
mod inspect;
mod leader;
mod log;
mod outbox;
mod output;
mod pipelines;
mod publish;
mod pull;
mod refusal;
mod signal;
mod streams;

pub use backoff::Backoff;
pub use blobs::{BlobError, Blobs};
pub use connection::{Bus, ConnectError, Connection, NatsConfig};
pub use copies::{Standing, StreamCopy, Trouble, stream_names};
pub use dead::{DeadLetters, now};
pub use delivery::{Ack, Deliveries, Delivery, Replay, Window};
pub use error::BusError;
pub use facts::{Bucket, Fact, Facts};
pub use inspect::{Handed, Kept, Level};
pub use leader::{Contest, Leadership, Term};
pub use log::Log;
pub use outbox::Outbox;
pub use pipelines::{ApplyError, PipelineChange, Pipelines};
pub use publish::{Message, PublishError, Stored};
pub use pull::{Puller, STANDBY_MAX};
pub use refusal::Refusal;
pub use signal::{Signal, Signals};
pub use streams::{Limits, ProvisionError, Stream, consumer_of_checks, consumer_of_tasks};
