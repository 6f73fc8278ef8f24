//! All streams and buckets, declared once. `push0 provision` creates them; services only bind to them.

use crate::{
    Bus, BusError, Stream,
    consumer_names::{GROUP, consumer_of_checks, consumer_of_tasks},
    leaderless::refuse_without_leader,
};
use async_nats::jetstream::{
    ErrorCode,
    consumer::{AckPolicy, PriorityPolicy, pull},
    context::{CreateStreamError, GetStreamErrorKind},
    kv,
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
};
use futures::future::join_all;
use push0_domain::{
    ZkvmId,
    payload::BLOB_PART_LEN,
    subject::{self, Kind},
};
use std::time::Duration;

/// Limits of the store, and the number of copies.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Copies of every stream: 1, or 3 on a cluster.
    pub replicas: usize,
    /// The most bytes for all streams and buckets together. Each has a fixed share.
    pub store_bytes: u64,
    /// How long proofs, blobs and facts of emitted blocks are kept, unless their room is needed.
    pub keep: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            replicas: 1,
            store_bytes: 8 << 30,
            keep: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// A stream, bucket or consumer that could not be created or updated.
#[derive(Debug, thiserror::Error)]
#[error("cannot provision {what}: {reason}")]
pub struct ProvisionError {
    what: String,
    reason: String,
    may_pass: bool,
}

impl ProvisionError {
    /// Returns whether a retry may help. Brokers refuse for a while when they join or elect a leader.
    pub fn may_pass(&self) -> bool {
        self.may_pass
    }

    fn new(what: &str, error: &CreateStreamError) -> Self {
        use async_nats::jetstream::context::CreateStreamErrorKind as Kind;
        let may_pass = match error.kind() {
            // There are fewer brokers than copies so far.
            Kind::JetStream(e) if e.error_code() == ErrorCode::CLUSTER_NO_PEERS => true,
            // A broker outside a cluster can never hold three copies.
            Kind::JetStream(e) if e.error_code() == ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED => false,
            Kind::JetStream(e) => e.code() >= 500,
            Kind::TimedOut | Kind::JetStreamUnavailable | Kind::Response => true,
            _ => false,
        };
        Self {
            what: what.into(),
            reason: error.to_string(),
            may_pass,
        }
    }

    /// Creates the error of a bucket or consumer. Streams come first, so a permanent error has
    /// shown there already.
    fn later(what: impl Into<String>, error: &dyn std::fmt::Display) -> Self {
        Self {
            what: what.into(),
            reason: error.to_string(),
            may_pass: true,
        }
    }
}

/// How long a delivery lives without a sign of its prover or verifier. A last resort for when the watchdog is
/// down: far above three heartbeats, yet a tolerable wait.
const ACK_WAIT: Duration = Duration::from_secs(5);

impl Stream {
    fn subjects(self) -> Vec<String> {
        let kinds: &[Kind] = match self {
            Self::Blocks => &[Kind::Block, Kind::Cancel],
            Self::Stages => &[Kind::Stage],
            Self::Tasks => &[Kind::Task],
            Self::Checks => &[Kind::Check],
            Self::Results => &[Kind::Result, Kind::Verdict, Kind::Ended],
            Self::Leases => &[Kind::Lease],
            Self::Control => &[Kind::Control],
            Self::Proofs => &[Kind::Proof],
            Self::Dead => &[Kind::Dead],
            Self::Events => &[Kind::Event, Kind::Notice],
        };
        kinds.iter().map(|kind| subject::all(*kind)).collect()
    }

    /// Returns the stream's share of the store in percent. The buckets have
    /// [`BLOBS_PERCENT`] and [`FACTS_PERCENT`].
    fn percent(self) -> u64 {
        match self {
            Self::Blocks | Self::Results | Self::Proofs => 15,
            Self::Stages => 10,
            Self::Checks => 8,
            Self::Tasks => 4,
            Self::Dead => 3,
            Self::Leases | Self::Control | Self::Events => 1,
        }
    }

    /// Returns the size of the largest message that the stream takes, headers included; -1 for the broker's limit.
    /// Participants' messages have inputs and outputs of 64 KiB each at most, or references to them. Leases list all
    /// deliveries of their process, of some 500 bytes each.
    fn message_max(self) -> i32 {
        match self {
            Self::Checks | Self::Results => 256 * 1024,
            Self::Leases => 1024 * 1024,
            Self::Events => 32 * 1024,
            _ => -1,
        }
    }

    fn config(self, limits: &Limits) -> Config {
        let mut config = Config {
            name: self.name().into(),
            description: Some(self.description().into()),
            subjects: self.subjects(),
            storage: StorageType::File,
            num_replicas: limits.replicas,
            max_bytes: share(limits, self.percent()),
            max_message_size: self.message_max(),
            allow_direct: true,
            retention: RetentionPolicy::WorkQueue,
            // A full stream refuses new messages, and the producer waits: no stored message is dropped.
            discard: DiscardPolicy::New,
            ..Config::default()
        };
        match self {
            Self::Blocks | Self::Checks | Self::Results => {}
            Self::Stages | Self::Tasks => {
                // A second request for the same attempt is refused and harmless: the subject
                // holds one message.
                config.max_messages_per_subject = 1;
                config.discard_new_per_subject = true;
            }
            Self::Proofs => {
                // A log, not a queue: the stream has several readers, and its end is the frontier
                // of the pipeline.
                // The newest record is the frontier of its pipeline and must never expire. The janitor
                // removes old records, and reads here for how long they are kept.
                config.retention = RetentionPolicy::Limits;
                let keep = limits.keep.as_secs().to_string();
                config.metadata.insert(KEEP.to_owned(), keep);
                // Records ready together are stored together, as an atomic batch.
                config.allow_atomic_publish = true;
            }
            Self::Dead => {
                // A block's record waits for its letter, so a full stream must not refuse one: the oldest
                // letter goes. The janitor removes old letters before that, and says so.
                config.retention = RetentionPolicy::Limits;
                config.discard = DiscardPolicy::Old;
                config.max_messages_per_subject = 1;
            }
            Self::Leases | Self::Control | Self::Events => {
                config.retention = RetentionPolicy::Limits;
                config.discard = DiscardPolicy::Old;
                config.max_age = Duration::from_secs(if self == Self::Control { 60 } else { 3600 });
                config.max_messages_per_subject = if self == Self::Events { -1 } else { 1 };
            }
        }
        config
    }
}

/// The key under which PROOFS says for how many seconds emitted blocks are kept.
const KEEP: &str = "push0-keep-seconds";

/// Room for the keys of the seals: one small fact.
const SEALS_BYTES: i64 = 1 << 20;
const BLOBS_PERCENT: u64 = 20;
const FACTS_PERCENT: u64 = 7;

/// Headers that a client may add to a part of a blob, in bytes.
const HEADERS_MAX: u64 = 1024;
/// The largest message in the stream of blobs: a part.
const BLOB_MESSAGE_MAX: i32 = (BLOB_PART_LEN + HEADERS_MAX) as i32;

/// Returns for how long emitted blocks are kept, as the configuration of PROOFS says.
fn kept_for(proofs: &Config) -> Duration {
    let seconds = proofs.metadata.get(KEEP).and_then(|keep| keep.parse().ok());
    seconds.map_or(Limits::default().keep, Duration::from_secs)
}

fn share(limits: &Limits, percent: u64) -> i64 {
    i64::try_from(limits.store_bytes / 100 * percent).unwrap_or(i64::MAX)
}

/// The name of the stream of blobs.
pub(crate) const BLOBS: &str = "PUSH0_BLOBS";

/// Returns the configuration of the stream of blobs: a log whose messages are never replaced. A subject names the
/// content, so a second message on it is refused, and no header removes another one.
fn blobs(limits: &Limits) -> Config {
    Config {
        name: BLOBS.into(),
        description: Some(
            "Large inputs, outputs and witnesses by their hash, until their blocks are emitted and kept"
                .into(),
        ),
        subjects: vec![subject::all(Kind::Blob)],
        storage: StorageType::File,
        num_replicas: limits.replicas,
        max_bytes: share(limits, BLOBS_PERCENT),
        max_message_size: BLOB_MESSAGE_MAX,
        allow_direct: true,
        allow_rollup: false,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        max_messages_per_subject: 1,
        discard_new_per_subject: true,
        ..Config::default()
    }
}

impl Bus {
    /// Creates or updates every stream and bucket. Idempotent; touches no message.
    pub async fn provision(&self, limits: &Limits) -> Result<(), ProvisionError> {
        for stream in Stream::ALL {
            let made = self
                .jetstream
                .create_or_update_stream(stream.config(limits))
                .await;
            made.map_err(|e| ProvisionError::new(stream.name(), &e))?;
        }
        let made = self.jetstream.create_or_update_stream(blobs(limits)).await;
        made.map_err(|e| ProvisionError::new(BLOBS, &e))?;
        for bucket in crate::Bucket::ALL {
            let config = kv::Config {
                bucket: bucket.name().into(),
                description: bucket.description().into(),
                history: 1,
                max_bytes: match bucket {
                    crate::Bucket::Seals => SEALS_BYTES,
                    _ => share(limits, FACTS_PERCENT) / 3,
                },
                storage: StorageType::File,
                num_replicas: limits.replicas,
                ..kv::Config::default()
            };
            let made = self.jetstream.create_or_update_key_value(config).await;
            made.map_err(|e| ProvisionError::later(bucket.name(), &e))?;
        }
        let drawn = self.draw_first_key().await;
        drawn.map_err(|e| ProvisionError::later(crate::Bucket::Seals.name(), &e))
    }

    /// Returns the limits with which the streams were made, read from the leader of PROOFS; `None` if there are no streams.
    pub async fn provisioned(&self) -> Result<Option<Limits>, ProvisionError> {
        let proofs = Stream::Proofs;
        let info = match self.jetstream.get_stream(proofs.name()).await {
            Ok(stream) => stream.cached_info().clone(),
            Err(error) => {
                return match error.kind() {
                    GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                        Ok(None)
                    }
                    _ => Err(ProvisionError::later(proofs.name(), &error)),
                };
            }
        };
        refuse_without_leader(proofs.name(), info.cluster.as_ref())
            .map_err(|e| ProvisionError::later(proofs.name(), &e))?;
        let percent = u64::try_from(info.config.max_bytes).unwrap_or_default() / proofs.percent();
        Ok(Some(Limits {
            replicas: info.config.num_replicas.max(1),
            store_bytes: percent * 100,
            keep: kept_for(&info.config),
        }))
    }

    /// Returns for how long proofs, blobs and facts of emitted blocks are kept, as provisioned. Read from the leader
    /// of PROOFS.
    pub async fn keep(&self) -> Result<Duration, BusError> {
        let proofs = Stream::Proofs.name();
        let info = self.stream(Stream::Proofs).await?.get_info().await;
        let info = info.map_err(|e| BusError::unavailable(proofs, e))?;
        // Messages are removed by this time: an old answer might remove some too soon.
        refuse_without_leader(proofs, info.cluster.as_ref())?;
        Ok(kept_for(&info.config))
    }

    /// Creates the consumers from which the provers and verifiers of a zkVM take work. Idempotent.
    pub async fn provision_zkvm(&self, zkvm: &ZkvmId) -> Result<(), ProvisionError> {
        let both = [
            (
                Stream::Tasks,
                consumer_of_tasks(zkvm),
                subject::tasks_of_zkvm(zkvm),
                "provers",
            ),
            (
                Stream::Checks,
                consumer_of_checks(zkvm),
                subject::checks_of_zkvm(zkvm),
                "verifiers",
            ),
        ];
        for (stream, name, filter_subject, who) in both {
            let config = pull::Config {
                durable_name: Some(name.clone()),
                description: Some(format!(
                    "Work that the {who} of zkVM {zkvm} share: one delivery is one attempt"
                )),
                filter_subject,
                ack_policy: AckPolicy::Explicit,
                ack_wait: ACK_WAIT,
                // The collector counts the budget of attempts, deaths included. A limit here would leave the
                // message in the stream, never to be delivered again.
                max_deliver: -1,
                max_ack_pending: 100_000,
                priority_policy: PriorityPolicy::Prioritized,
                priority_groups: vec![GROUP.to_owned()],
                ..pull::Config::default()
            };
            let made = self
                .jetstream
                .create_consumer_on_stream(config, stream.name())
                .await;
            made.map_err(|e| ProvisionError::later(format!("consumer {name}"), &e))?;
        }
        Ok(())
    }

    /// Checks that all streams exist. A stream counts as present while it elects its leader: only the
    /// processes that need the stream wait for it.
    ///
    /// Fails with [`BusError::Missing`] if a stream is missing, and with any other error if
    /// no stream answered.
    pub async fn check_provisioned(&self) -> Result<(), BusError> {
        let asked = Stream::ALL.map(|stream| async move {
            let error = self.jetstream.get_stream(stream.name()).await.err()?;
            let what = format!("stream {}", stream.name());
            Some(match error.kind() {
                GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    BusError::Missing { what }
                }
                _ => BusError::unavailable(what, error),
            })
        });
        let mut errors: Vec<BusError> = join_all(asked).await.into_iter().flatten().collect();
        let missing = errors.iter().position(|e| matches!(e, BusError::Missing { .. }));
        match missing {
            Some(missing) => Err(errors.swap_remove(missing)),
            None if errors.len() == Stream::ALL.len() => Err(errors.swap_remove(0)),
            None => Ok(()),
        }
    }
}
