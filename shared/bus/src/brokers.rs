//! The choice between several brokers, and the detection of a broker cut off from its peers.
//!
//! A frozen broker is noticed by its silence. A broker cut off from its peers answers every ping but can
//! store nothing: its streams have no majority, and it cannot reach the leaders of the others.
//! So each connection to a cluster is probed every second with a request for a stream's state, for another
//! stream each time. A member of an account of its own may only ask about its consumer. The enroller's account has no
//! streams, so the connection of the enroller is not probed.

use crate::{Stream, leaderless::has_leader};
use async_nats::{
    Client, ReconnectToServer, Server, ServerAddr,
    jetstream::{
        Context,
        context::{ConsumerInfoErrorKind, GetStreamError, GetStreamErrorKind},
        stream::{ClusterInfo, PeerInfo},
    },
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

/// How often a broker is probed.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long the answer to a probe may take.
const ANSWER_MAX: Duration = Duration::from_millis(900);
/// The number of failed probes in a row, each for another stream, after which the broker is left. One or two
/// fail where a lost broker led some of the streams.
const UNANSWERED_MAX: u32 = 3;
/// The longest silence of a copy that still counts for the majority. A leader hears of each copy
/// once a second.
const HEARD_WITHIN: Duration = Duration::from_secs(3);
/// How long the next broker is kept if its probes fail too. An election takes up to 9 s, and changing brokers
/// does not shorten it.
const MOVE_EVERY: Duration = Duration::from_secs(10);

/// Selects the broker to try next, and remembers the last one tried.
#[derive(Clone, Default)]
pub(crate) struct Choice(Arc<Mutex<Option<ServerAddr>>>);

impl Choice {
    /// Returns one of the brokers with the fewest failures since they last accepted a connection. Skips the
    /// broker tried last if there is another: it may accept a connection and then stay silent.
    pub(crate) fn next(&self, pool: &[Server]) -> Option<ReconnectToServer> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tried = |server: &Server| Some(&server.addr) == last.as_ref();
        let known: Vec<(usize, bool)> = pool.iter().map(|s| (s.failed_attempts, tried(s))).collect();
        let addr = pool.get(pick(&known, rand::random())?)?.addr.clone();
        *last = Some(addr.clone());
        Some(ReconnectToServer { addr, delay: None })
    }
}

/// Returns the index of the broker to try. `known` holds, for each broker, the number of failures and whether
/// it was tried last. `drawn` is a random number.
fn pick(known: &[(usize, bool)], drawn: u32) -> Option<usize> {
    let others = known.iter().enumerate().filter(|(_, (_, last))| !last);
    let candidates: Vec<(usize, usize)> = others.map(|(at, (failed, _))| (*failed, at)).collect();
    let Some(least) = candidates.iter().map(|(failed, _)| *failed).min() else {
        return (!known.is_empty()).then_some(0);
    };
    let best: Vec<usize> = candidates
        .iter()
        .filter(|(failed, _)| *failed == least)
        .map(|(_, at)| *at)
        .collect();
    best.get(usize::try_from(drawn).unwrap_or_default() % best.len())
        .copied()
}

/// Probes the broker for as long as the connection exists, and moves to another broker when the probes fail.
pub(crate) async fn keep_to_the_majority(
    client: Arc<Client>,
    jetstream: Arc<Context>,
    consumer: Option<(Stream, String)>,
    mut up: watch::Receiver<crate::Connection>,
) {
    let mut due = interval(ASK_EVERY);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = Watch::default();
    for stream in Stream::ALL.iter().cycle() {
        due.tick().await;
        // The sender lives in the bus that owns this task.
        let Ok(connection) = up.wait_for(|c| c.up).await.map(|c| *c) else {
            return;
        };
        if client.server_info().cluster.is_none() {
            continue;
        }
        let asked = async {
            match &consumer {
                Some((stream, consumer)) => consumer_is_good(&jetstream, *stream, consumer).await,
                None => stream_is_good(&jetstream, *stream).await,
            }
        };
        let is_good = timeout(ANSWER_MAX, asked).await.unwrap_or(false);
        if watch.note(is_good, connection.interruptions, Instant::now()) {
            let broker = client.server_info().server_name;
            tracing::warn!(
                nats.server = broker,
                "the broker may be cut off from its peers, 3 requests in a row failed: moving to another"
            );
            if let Err(error) = client.force_reconnect().await {
                tracing::debug!(%error, "the connection has ended");
            }
        }
    }
}

async fn stream_is_good(jetstream: &Context, stream: Stream) -> bool {
    match jetstream.get_stream(stream.name()).await {
        Ok(stream) => has_majority(stream.cached_info().cluster.as_ref()),
        Err(error) => is_an_answer(&error),
    }
}

async fn consumer_is_good(jetstream: &Context, stream: Stream, consumer: &str) -> bool {
    let Ok(stream) = jetstream.get_stream_no_info(stream.name()).await else {
        return false;
    };
    match stream.consumer_info(consumer).await {
        Ok(info) => has_majority(info.cluster.as_ref()),
        Err(error) => matches!(
            error.kind(),
            ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound
        ),
    }
}

/// The outcome of the latest probes of a connection.
#[derive(Debug, Default)]
struct Watch {
    unanswered: u32,
    interruptions: u64,
    moved_at: Option<Instant>,
}

impl Watch {
    /// Records the outcome of a probe. Returns whether to move to another broker.
    fn note(&mut self, is_good: bool, interruptions: u64, now: Instant) -> bool {
        if is_good || interruptions != self.interruptions {
            self.unanswered = 0;
            self.interruptions = interruptions;
        }
        if is_good {
            self.moved_at = None;
            return false;
        }
        self.unanswered += 1;
        let rested = self
            .moved_at
            .is_none_or(|at| now.duration_since(at) >= MOVE_EVERY);
        let moves = rested && self.unanswered >= UNANSWERED_MAX;
        if moves {
            self.unanswered = 0;
            self.moved_at = Some(now);
        }
        moves
    }
}

/// Returns whether the stream's leader answered and has heard of a majority of the copies, its own included.
///
/// A copy that knows no leader answers too, without the name of a leader, and lists copies that it has never
/// heard of as heard of 0 s ago. A broker that can send but not receive answers like that for ever.
fn has_majority(cluster: Option<&ClusterInfo>) -> bool {
    let Some(copies) = cluster.map(|cluster| &cluster.replicas) else {
        return true;
    };
    let is_heard = |copy: &&PeerInfo| !copy.active.is_zero() && copy.active < HEARD_WITHIN;
    let heard = copies.iter().filter(is_heard).count();
    has_leader(cluster) && 2 * (heard + 1) > copies.len() + 1
}

/// Returns whether the error comes from a leader, for example "stream not found". A broker that finds no
/// leader answers 503.
fn is_an_answer(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(e) if e.code() != 503)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_that_was_just_lost_is_tried_last() {
        assert_eq!(pick(&[], 0), None);
        assert_eq!(pick(&[(3, true)], 7), Some(0));
        for drawn in 0..10 {
            assert_ne!(pick(&[(0, false), (0, true), (0, false)], drawn), Some(1));
            assert_eq!(pick(&[(2, false), (0, true), (1, false)], drawn), Some(2));
        }
    }

    #[test]
    fn a_connection_is_left_after_three_questions_and_the_next_one_has_its_time() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        assert!(!watch.note(true, 0, at(0)));
        assert!(!watch.note(false, 0, at(1)));
        assert!(!watch.note(false, 0, at(2)));
        assert!(watch.note(false, 0, at(3)));
        for s in 4..13 {
            assert!(!watch.note(false, 1, at(s)), "{s}");
        }
        assert!(watch.note(false, 1, at(13)));
        // A broker is left after three failed probes although it answered before.
        assert!(!watch.note(true, 2, at(14)));
        assert!(!watch.note(false, 2, at(15)));
        assert!(!watch.note(false, 2, at(16)));
        assert!(watch.note(false, 2, at(17)));
    }

    #[test]
    fn only_a_leader_with_a_majority_counts() {
        let cluster = |leader: Option<&str>, heard_ms: &[u64]| ClusterInfo {
            leader: leader.map(str::to_owned),
            replicas: heard_ms
                .iter()
                .map(|ms| PeerInfo {
                    active: Duration::from_millis(*ms),
                    ..PeerInfo::default()
                })
                .collect(),
            ..ClusterInfo::default()
        };
        let led = |heard_ms: &[u64]| has_majority(Some(&cluster(Some("n1"), heard_ms)));
        assert!(has_majority(None));
        assert!(led(&[]));
        assert!(led(&[200, 9_000]));
        assert!(!led(&[4_000, 9_000]));
        assert!(!led(&[0, 0]), "copies that were never heard of");
        // The answer of a deaf broker, as seen on nats-server 2.12.8.
        assert!(!has_majority(Some(&cluster(None, &[0, 5_439, 0]))));
        assert!(!has_majority(Some(&cluster(None, &[200, 200]))));
    }
}
