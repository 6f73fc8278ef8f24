//! The state of each stream's copies: which one leads, which are behind, which are away.

use crate::{Bus, BusError, Level, Stream, facts::Bucket, provision::BLOBS};
use async_nats::jetstream::stream::Info;
use futures::future::join_all;
use push0_domain::Timestamp;
use std::fmt;

/// A stream's copy on one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamCopy {
    /// The name of the copy's broker.
    pub broker: String,
    /// Whether the copy has all messages of the leader.
    pub is_current: bool,
    /// Whether the other brokers have lost this broker.
    pub is_offline: bool,
}

impl StreamCopy {
    /// Returns whether the copy is online and current.
    pub fn is_complete(&self) -> bool {
        self.is_current && !self.is_offline
    }
}

/// A stream and its copies, as known to the answering broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The stream's name on the broker.
    pub stream: String,
    /// The fill level of the stream.
    pub level: Level,
    /// When the stream was made. A broker that was emptied has others.
    pub made_at: Timestamp,
    /// The broker whose copy leads. A stream without a leader takes no message.
    pub leader: Option<String>,
    /// Every copy, sorted by broker name. Empty on a single broker.
    pub copies: Vec<StreamCopy>,
}

/// A defect of a stream's copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The stream takes messages, but the copies of these brokers lack some. Another loss may be
    /// one too many.
    Behind {
        /// The names of the brokers.
        brokers: Vec<String>,
    },
    /// No copy leads. An election takes up to ten seconds. A longer pause has one of two causes, which the
    /// answering brokers cannot tell apart: most brokers are away, or the copies have stopped for good.
    NoLeader,
}

impl Standing {
    fn new(stream: &str, info: Info) -> Self {
        let level = Level::of(&info);
        let made_at = u64::try_from(info.created.unix_timestamp_nanos() / 1000);
        let cluster = info.cluster.unwrap_or_default();
        // A stream with one copy reports no others. A stream without a leader lists all its copies.
        let leading = cluster.leader.iter().map(|broker| StreamCopy {
            broker: broker.clone(),
            is_current: true,
            is_offline: false,
        });
        let others = cluster.replicas.iter().map(|peer| StreamCopy {
            broker: peer.name.clone(),
            is_current: peer.current,
            is_offline: peer.offline,
        });
        let mut copies: Vec<_> = leading.chain(others).collect();
        copies.sort_by(|a, b| a.broker.cmp(&b.broker));
        Self {
            stream: stream.to_owned(),
            level,
            made_at: Timestamp(made_at.unwrap_or_default()),
            leader: cluster.leader,
            copies,
        }
    }

    /// Returns the defect of the copies, `None` if all copies are complete.
    pub fn trouble(&self) -> Option<Trouble> {
        if self.leader.is_none() && !self.copies.is_empty() {
            return Some(Trouble::NoLeader);
        }
        let lacking = self.copies.iter().filter(|copy| !copy.is_complete());
        let brokers: Vec<_> = lacking.map(|copy| copy.broker.clone()).collect();
        (!brokers.is_empty()).then_some(Trouble::Behind { brokers })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind { brokers } => write!(f, "the copy of {} is away or behind", brokers.join(", ")),
            Self::NoLeader => f.write_str(
                "no copy leads, and the stream takes no message. An election ends within ten seconds; if this lasts \
                 although all brokers run, the copies have stopped for good: docs/operate.md, `A stream takes no \
                 message`",
            ),
        }
    }
}

/// Returns the names of all streams, including those behind the buckets.
pub fn stream_names() -> Vec<String> {
    let streams = Stream::ALL.map(|stream| stream.name().to_owned());
    let buckets = Bucket::ALL.map(|bucket| format!("KV_{}", bucket.name()));
    let blobs = [BLOBS.to_owned()];
    streams.into_iter().chain(buckets).chain(blobs).collect()
}

impl Bus {
    /// Returns the state of each stream. All streams are asked at once, so one without an answer
    /// delays no other.
    pub async fn standings(&self) -> Vec<(String, Result<Standing, BusError>)> {
        let ask = |name: String| async {
            let standing = self.standing(&name).await;
            (name, standing)
        };
        join_all(stream_names().into_iter().map(ask)).await
    }

    async fn standing(&self, name: &str) -> Result<Standing, BusError> {
        let failed = |e: &dyn fmt::Display| BusError::unavailable(name, e);
        let bound = self.jetstream.get_stream_no_info(name).await;
        let info = bound.map_err(|e| failed(&e))?.get_info().await;
        let info = info.map_err(|e| failed(&e))?;
        Ok(Standing::new(name, info))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(leader: Option<&str>, others: &[(&str, bool, bool)]) -> Standing {
        let copies = leader
            .map(|broker| (broker, true, false))
            .into_iter()
            .chain(others.iter().copied());
        Standing {
            stream: "S".into(),
            level: Level {
                messages: 0,
                bytes: 0,
                bytes_max: 1,
            },
            made_at: Timestamp(0),
            leader: leader.map(str::to_owned),
            copies: copies
                .map(|(broker, is_current, is_offline)| StreamCopy {
                    broker: broker.into(),
                    is_current,
                    is_offline,
                })
                .collect(),
        }
    }

    #[test]
    fn a_stream_on_a_single_broker_is_in_no_trouble() {
        assert_eq!(standing(None, &[]).trouble(), None);
        assert_eq!(standing(Some("a"), &[]).trouble(), None);
    }

    #[test]
    fn a_copy_that_is_behind_or_away_is_named() {
        let all_well = standing(Some("a"), &[("b", true, false), ("c", true, false)]);
        assert_eq!(all_well.trouble(), None);
        let two_lack = standing(Some("a"), &[("b", false, false), ("c", true, true)]);
        let brokers = vec!["b".to_owned(), "c".to_owned()];
        assert_eq!(two_lack.trouble(), Some(Trouble::Behind { brokers }));
    }

    #[test]
    fn a_stream_without_a_leader_takes_no_message() {
        let away = standing(
            None,
            &[("a", true, false), ("b", false, true), ("c", false, true)],
        );
        let stopped = standing(
            None,
            &[("a", false, false), ("b", false, false), ("c", false, false)],
        );
        assert_eq!(away.trouble(), Some(Trouble::NoLeader));
        assert_eq!(stopped.trouble(), Some(Trouble::NoLeader));
    }
}
