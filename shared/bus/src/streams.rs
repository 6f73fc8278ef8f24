//! Every stream and bucket, declared once; `push0 provision` applies them, services only bind.

use crate::{Bus, BusError, pull::GROUP};
use async_nats::jetstream::{
    consumer::{AckPolicy, PriorityPolicy, pull},
    context::CreateStreamError,
    kv, object_store,
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
};
use futures::future::join_all;
use push0_domain::{
    ZkvmId,
    subject::{self, Kind},
};
use std::time::Duration;

/// The streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Ingester to dispatcher: blocks to prove, and blocks no longer wanted.
    Blocks,
    /// Collector and watchdog to dispatcher: stages and attempts that are ready.
    Stages,
    /// Dispatcher to provers: released attempts.
    Tasks,
    /// Provers to verifiers: completed attempts that must be verified.
    Checks,
    /// Provers, verifiers and watchdog to collector: how attempts ended.
    Results,
    /// Provers to watchdog and dispatcher: heartbeats, the newest per prover.
    Leases,
    /// Watchdog and operators to provers.
    Control,
    /// Collector to the world: one record per block, in order.
    Proofs,
    /// What was given up, until an operator decides.
    Dead,
    /// What happened, for whoever watches.
    Events,
}

/// How large the store may grow, and how many copies it has.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Copies of every stream: 1, or 3 on a cluster.
    pub replicas: usize,
    /// What all streams and buckets together may take, in bytes. Each has its fixed share.
    pub store_bytes: u64,
    /// How long proofs, blobs and facts about blocks are kept.
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

/// Something could not be provisioned.
#[derive(Debug, thiserror::Error)]
#[error("cannot provision {what}: {reason}")]
pub struct ProvisionError {
    what: String,
    reason: String,
    may_pass: bool,
}

impl ProvisionError {
    /// Whether trying again may help: brokers that still gather, or choose a leader, say no for a while.
    pub fn may_pass(&self) -> bool {
        self.may_pass
    }

    fn new(what: &str, error: &CreateStreamError) -> Self {
        use async_nats::jetstream::{ErrorCode, context::CreateStreamErrorKind as Kind};
        let may_pass = match error.kind() {
            // Fewer brokers are there than copies are wanted.
            Kind::JetStream(e) if e.error_code() == ErrorCode::CLUSTER_NO_PEERS => true,
            // A broker that is alone will never hold three copies.
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

    /// Of what is made after streams could be made: what is final was found by then.
    fn later(what: impl Into<String>, error: &dyn std::fmt::Display) -> Self {
        Self {
            what: what.into(),
            reason: error.to_string(),
            may_pass: true,
        }
    }
}

/// How long a prover's delivery lives without a sign: the last line of defence, for when the
/// watchdog itself is down. Far above three heartbeats, far below anybody's patience.
const ACK_WAIT: Duration = Duration::from_secs(5);

impl Stream {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Blocks,
        Self::Stages,
        Self::Tasks,
        Self::Checks,
        Self::Results,
        Self::Leases,
        Self::Control,
        Self::Proofs,
        Self::Dead,
        Self::Events,
    ];

    /// Its name on the broker.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blocks => "PUSH0_BLOCKS",
            Self::Stages => "PUSH0_STAGES",
            Self::Tasks => "PUSH0_TASKS",
            Self::Checks => "PUSH0_CHECKS",
            Self::Results => "PUSH0_RESULTS",
            Self::Leases => "PUSH0_LEASES",
            Self::Control => "PUSH0_CONTROL",
            Self::Proofs => "PUSH0_PROOFS",
            Self::Dead => "PUSH0_DEAD",
            Self::Events => "PUSH0_EVENTS",
        }
    }

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
            Self::Events => &[Kind::Event],
        };
        kinds.iter().map(|kind| subject::all(*kind)).collect()
    }

    /// Its share of the store, in percent; the buckets have the other [`BLOBS_PERCENT`] and [`FACTS_PERCENT`].
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

    fn config(self, limits: &Limits) -> Config {
        let mut config = Config {
            name: self.name().into(),
            subjects: self.subjects(),
            storage: StorageType::File,
            num_replicas: limits.replicas,
            max_bytes: share(limits, self.percent()),
            allow_direct: true,
            retention: RetentionPolicy::WorkQueue,
            // At the limit the producer is told, and waits: nothing that was stored is dropped.
            discard: DiscardPolicy::New,
            ..Config::default()
        };
        match self {
            Self::Blocks | Self::Checks | Self::Results => {}
            Self::Stages | Self::Tasks => {
                // Asking twice for the same attempt is harmless: the subject holds one message.
                config.max_messages_per_subject = 1;
                config.discard_new_per_subject = true;
            }
            Self::Proofs => {
                // A log, not a queue: several readers, and its end is the frontier of the pipeline.
                config.retention = RetentionPolicy::Limits;
                config.max_age = limits.keep;
                // Records that are ready together are stored together.
                config.allow_atomic_publish = true;
            }
            Self::Dead => {
                config.retention = RetentionPolicy::Limits;
                config.max_messages_per_subject = 1;
                config.discard_new_per_subject = true;
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

const BLOBS_PERCENT: u64 = 20;
const FACTS_PERCENT: u64 = 7;

fn share(limits: &Limits, percent: u64) -> i64 {
    i64::try_from(limits.store_bytes / 100 * percent).unwrap_or(i64::MAX)
}

/// The bucket of blobs.
pub(crate) const BLOBS: &str = "push0_blobs";
/// The stream behind it.
pub(crate) const BLOBS_STREAM: &str = "OBJ_push0_blobs";

impl Bus {
    /// Makes or updates every stream and bucket. Idempotent; touches no message.
    pub async fn provision(&self, limits: &Limits) -> Result<(), ProvisionError> {
        for stream in Stream::ALL {
            let made = self
                .jetstream
                .create_or_update_stream(stream.config(limits))
                .await;
            made.map_err(|e| ProvisionError::new(stream.name(), &e))?;
        }
        for bucket in crate::Bucket::ALL {
            let config = kv::Config {
                bucket: bucket.name().into(),
                history: 1,
                max_age: if bucket.expires() {
                    limits.keep
                } else {
                    Duration::ZERO
                },
                max_bytes: share(limits, FACTS_PERCENT) / 3,
                storage: StorageType::File,
                num_replicas: limits.replicas,
                ..kv::Config::default()
            };
            let made = self.jetstream.create_or_update_key_value(config).await;
            made.map_err(|e| ProvisionError::later(bucket.name(), &e))?;
        }
        let blobs = object_store::Config {
            bucket: BLOBS.into(),
            max_age: limits.keep,
            max_bytes: share(limits, BLOBS_PERCENT),
            storage: StorageType::File,
            num_replicas: limits.replicas,
            ..object_store::Config::default()
        };
        let made = self.make_or_update_store(blobs).await;
        made.map_err(|e| ProvisionError::later(BLOBS, &e))
    }

    /// The client makes object stores and cannot change one: what can change is its stream's.
    async fn make_or_update_store(&self, store: object_store::Config) -> Result<(), async_nats::Error> {
        let Ok(stream) = self.jetstream.get_stream(BLOBS_STREAM).await else {
            self.jetstream.create_object_store(store).await?;
            return Ok(());
        };
        let mut config = stream.cached_info().config.clone();
        config.max_age = store.max_age;
        config.max_bytes = store.max_bytes;
        config.num_replicas = store.num_replicas;
        self.jetstream.update_stream(config).await?;
        Ok(())
    }

    /// Makes the consumers from which the provers and verifiers of a zkVM take work. Idempotent.
    pub async fn provision_zkvm(&self, zkvm: &ZkvmId) -> Result<(), ProvisionError> {
        let both = [
            (
                Stream::Tasks,
                consumer_of_tasks(zkvm),
                subject::tasks_of_zkvm(zkvm),
            ),
            (
                Stream::Checks,
                consumer_of_checks(zkvm),
                subject::checks_of_zkvm(zkvm),
            ),
        ];
        for (stream, name, filter_subject) in both {
            let config = pull::Config {
                durable_name: Some(name.clone()),
                filter_subject,
                ack_policy: AckPolicy::Explicit,
                ack_wait: ACK_WAIT,
                // The budget of attempts is counted by the collector, deaths included; a limit here
                // would only leave the message in the stream for nobody.
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

    /// Says which streams are missing, if any. A stream that elects its leader is not missing: whoever needs
    /// it waits for it, and nobody else does.
    ///
    /// # Errors
    /// [`BusError::Missing`], or any other if nothing is known of any stream.
    pub async fn check_provisioned(&self) -> Result<(), BusError> {
        use async_nats::jetstream::{ErrorCode, context::GetStreamErrorKind};
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

/// The durable consumer from which the provers of a zkVM take tasks.
pub fn consumer_of_tasks(zkvm: &ZkvmId) -> String {
    format!("prover-{zkvm}")
}

/// The durable consumer from which the verifiers of a zkVM take checks.
pub fn consumer_of_checks(zkvm: &ZkvmId) -> String {
    format!("verifier-{zkvm}")
}
