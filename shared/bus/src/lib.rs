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
mod clock;
mod connect_error;
mod connection;
mod connection_state;
mod consumer;
mod consumer_names;
mod copies;
mod credits;
mod dead;
mod decode;
mod delivery;
mod duty;
mod error;
mod event;
mod facts;
mod held;
mod inspect;
mod leader;
mod leaderless;
mod log;
mod nats_config;
mod outage;
mod outbox;
mod output;
mod permitted;
mod pipelines;
mod presence;
mod provision;
mod publish;
mod pull;
mod refusal;
mod replacement;
mod room;
mod seals;
mod seldom;
mod services;
mod signal;
mod stream;
mod tls;
mod unreadable;

pub use backoff::Backoff;
pub use blobs::{BlobError, BlobWriter, Blobs, PayloadParts, Reached, Service, StoredBlobs};
pub use clock::now;
pub use connect_error::ConnectError;
pub use connection::{Bus, UNREAD_MAX};
pub use connection_state::Connection;
pub use consumer_names::{consumer_of_checks, consumer_of_tasks};
pub use copies::{Standing, StreamCopy, Trouble, stream_names};
pub use dead::DeadLetters;
pub use delivery::{Ack, Deliveries, Delivery, Replay, Window};
pub use duty::{Duty, Failure};
pub use error::BusError;
pub use facts::{Bucket, Fact, Facts};
pub use inspect::{Handed, Kept, Level};
pub use leader::{Contest, Lead, Leadership, Led, Loss, Term};
pub use log::Log;
pub use nats_config::{DrawnKey, Membership, NatsConfig};
pub use outage::cause_of_outage;
pub use outbox::Outbox;
pub use pipelines::{ApplyError, PipelineChange, Pipelines};
pub use provision::{Limits, ProvisionError};
pub use publish::{Message, PublishError, Stored};
pub use pull::{Puller, STANDBY_MAX};
pub use refusal::Refusal;
pub use room::{Place, Room, SWEEP_ABOVE, SWEEP_TO, full_for_blocks};
pub use seals::Seals;
pub use seldom::Seldom;
pub use services::{Introduced, Introduction};
pub use signal::{Signal, Signals, Unread};
pub use stream::Stream;
pub use unreadable::Unreadable;
