//! Recreating a receiver's consumer, also while one of three brokers is away.

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

/// How long recreating a consumer may take. A cluster elects another leader of its metadata within 9 s.
const MAKE_MAX: Duration = Duration::from_secs(12);
/// How long the broker may take to confirm the deletion of a consumer. The consumer's own leader confirms it.
/// If that leader is away, the next request is answered with "no such consumer", which is a confirmation too.
const DELETED_WITHIN: Duration = Duration::from_millis(300);
/// How long a quick try to create a consumer may take. A cluster draws the copy that leads the consumer by
/// lot, and may draw one that is away. The others would wait 4 to 9 s for it, so drawing again is faster.
const MADE_WITHIN: Duration = Duration::from_millis(500);
/// Number of quick tries: one draw in three finds the copy that is away, five in a row one time in 243. With three
/// tries, a service of several consumers often waited for the slow ones.
const QUICK_TRIES: u32 = 5;
/// The longest time for a try. After the quick tries the time doubles, for a broker that is only slow.
const MADE_WITHIN_MAX: Duration = Duration::from_secs(4);
/// The ack wait of held messages. A successor replays them, so the broker need not redeliver them earlier.
const HELD_ACK_WAIT: Duration = Duration::from_secs(24 * 3600);
/// How long a pull request lives.
const EXPIRES: Duration = Duration::from_secs(20);
/// How often the broker sends a heartbeat while it has nothing to deliver. After two intervals of silence,
/// the consumer's leader counts as lost and the consumer is recreated.
const HEARTBEAT: Duration = Duration::from_millis(1500);

impl Bus {
    /// Recreates the consumer. Returns how many messages it has to deliver at first, and their stream.
    pub(crate) async fn make(
        &self,
        replay: &Replay,
        window: Window,
    ) -> Result<(u64, pull::Stream), BusError> {
        let what = || format!("consumer {} on {}", replay.consumer, replay.stream.name());
        let failed = |e: &dyn Display| BusError::unavailable(what(), e);
        let give_up_at = Instant::now() + MAKE_MAX;
        let mut tries = 1;
        let consumer = loop {
            self.delete(replay, give_up_at).await.map_err(|e| failed(&e))?;
            let stream = self.stream_within(replay.stream, made_within(tries)).await?;
            match stream.create_consumer(config(replay, window)).await {
                Ok(consumer) => break consumer,
                Err(e) if e.kind() == ConsumerErrorKind::TimedOut && Instant::now() < give_up_at => {
                    tracing::debug!(consumer = replay.consumer, "not created in time, trying again");
                    tries += 1;
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

    /// Deletes the consumer and returns when the broker knows no consumer of this name. Only then may the new
    /// one be created: the deletion also removes the pull requests of the predecessor.
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

    /// Returns a handle to a stream whose requests count as unanswered after `limit`.
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

/// Returns how long a try may take.
fn made_within(tries: u32) -> Duration {
    let doublings = tries.saturating_sub(QUICK_TRIES).min(3);
    (MADE_WITHIN * 2_u32.pow(doublings)).min(MADE_WITHIN_MAX)
}

fn config(replay: &Replay, window: Window) -> pull::Config {
    pull::Config {
        durable_name: Some(replay.consumer.clone()),
        description: Some(format!(
            "Replay for the leading service: what {} has not acknowledged is not finished",
            replay.consumer
        )),
        filter_subjects: replay.filters.clone(),
        ack_policy: AckPolicy::Explicit,
        deliver_policy: DeliverPolicy::All,
        ack_wait: HELD_ACK_WAIT,
        max_ack_pending: i64::from(window.open_max),
        ..pull::Config::default()
    }
}
