//! Making the consumer of a receiver anew, also while one of three brokers is away.

use crate::{Backoff, Bus, BusError, Replay, Stream, Window};
use async_nats::jetstream::{
    self, ErrorCode,
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream::{ConsumerError, ConsumerErrorKind},
};
use std::{
    fmt::Display,
    time::{Duration, Instant},
};

/// How long making a consumer may take. A cluster that has lost the leader of its metadata elects another
/// one within 9 s.
const MAKE_MAX: Duration = Duration::from_secs(12);
/// How long the broker may take to say that a consumer is deleted. The consumer's own leader says so; where
/// that one is away, the next question finds no such consumer any more, and that is an answer too.
const DELETED_WITHIN: Duration = Duration::from_millis(300);
/// How long a consumer may take to be made, at first. In a cluster the copy that is to lead it is drawn by
/// lot, and may be one that is away: the others would wait 4 to 9 s for it, and drawing again is faster.
const MADE_WITHIN: Duration = Duration::from_millis(500);
/// The same at last: a broker that is merely slow gets twice as long each time.
const MADE_WITHIN_MAX: Duration = Duration::from_secs(4);
/// Redelivery of held messages is no mechanism here (a successor replays), so it is put far away.
const HELD_ACK_WAIT: Duration = Duration::from_secs(24 * 3600);
/// How long one request for messages lives.
const EXPIRES: Duration = Duration::from_secs(20);
/// How often the broker says that it has nothing to deliver. After twice that without a word, the copy that
/// leads the consumer counts as lost, and the consumer is made anew.
const HEARTBEAT: Duration = Duration::from_millis(1500);

impl Bus {
    /// Makes the consumer anew, and says how many messages it begins with.
    pub(crate) async fn make(
        &self,
        replay: &Replay,
        window: Window,
    ) -> Result<(u64, pull::Stream), BusError> {
        let what = || format!("consumer {} on {}", replay.consumer, replay.stream.name());
        let failed = |e: &dyn Display| BusError::unavailable(what(), e);
        let give_up_at = Instant::now() + MAKE_MAX;
        let mut made_within = MADE_WITHIN;
        let consumer = loop {
            self.delete(replay, give_up_at).await.map_err(|e| failed(&e))?;
            let stream = self.stream_within(replay.stream, made_within).await?;
            match stream.create_consumer(config(replay, window)).await {
                Ok(consumer) => break consumer,
                Err(e) if e.kind() == ConsumerErrorKind::TimedOut && Instant::now() < give_up_at => {
                    tracing::debug!(consumer = replay.consumer, "not made in time, making it again");
                    made_within = (made_within * 2).min(MADE_WITHIN_MAX);
                }
                Err(e) => return Err(failed(&e)),
            }
        };
        let to_replay = consumer.cached_info().num_pending;
        let messages = consumer
            .stream()
            .max_messages_per_batch(window.batch)
            .max_bytes_per_batch(window.bytes)
            .expires(EXPIRES)
            .heartbeat(HEARTBEAT)
            .messages();
        Ok((to_replay, messages.await.map_err(|e| failed(&e))?))
    }

    /// Deletes the consumer, and returns when the broker knows none of this name. Only then may it be made:
    /// what is deleted takes its predecessor's requests for messages with it.
    async fn delete(&self, replay: &Replay, give_up_at: Instant) -> Result<(), ConsumerError> {
        let stream = self.stream_within(replay.stream, DELETED_WITHIN).await;
        let stream = stream.map_err(|e| ConsumerError::with_source(ConsumerErrorKind::Other, e))?;
        let mut backoff = Backoff::new(DELETED_WITHIN / 6, DELETED_WITHIN);
        loop {
            let error = match stream.delete_consumer(&replay.consumer).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            match error.kind() {
                ConsumerErrorKind::JetStream(e) if e.error_code() == ErrorCode::CONSUMER_NOT_FOUND => {
                    return Ok(());
                }
                _ if Instant::now() >= give_up_at => return Err(error),
                ConsumerErrorKind::TimedOut => {}
                _ => backoff.pause().await,
            }
        }
    }

    /// A stream whose requests are answered within this time, or count as unanswered.
    async fn stream_within(
        &self,
        stream: Stream,
        limit: Duration,
    ) -> Result<jetstream::stream::Stream<()>, BusError> {
        let mut jetstream = self.jetstream.as_ref().clone();
        jetstream.set_timeout(limit);
        let bound = jetstream.get_stream_no_info(stream.name()).await;
        bound.map_err(|e| BusError::unavailable(stream.name(), e))
    }
}

fn config(replay: &Replay, window: Window) -> pull::Config {
    pull::Config {
        durable_name: Some(replay.consumer.clone()),
        filter_subjects: replay.filters.clone(),
        ack_policy: AckPolicy::Explicit,
        deliver_policy: DeliverPolicy::All,
        ack_wait: HELD_ACK_WAIT,
        max_ack_pending: i64::from(window.open_max),
        ..pull::Config::default()
    }
}
