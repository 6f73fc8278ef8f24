//! The services of a deployment, as they make themselves known: each answers the requests `PING`, `INFO` and `STATS` of
//! the convention for NATS services (`$SRV.…`), so that `push0 status` and `nats service ls` find it.
//!
//! Nothing rests on these answers: they are for people. Provers and verifiers live in accounts of their own and do not
//! answer: leases tell of them.

mod answer;
mod profile;

pub(crate) use answer::is_inbox;
pub(crate) use profile::{Leads, Profile, Seat};

use crate::{Bus, BusError};
use answer::Introducing;
use async_nats::StatusCode;
use futures::StreamExt;
use push0_domain::plain::one_line;
use serde::Deserialize;
use std::{collections::BTreeMap, time::Duration};
use tokio::{task::JoinSet, time::timeout};

/// After how long without another answer all services count as heard.
const QUIET: Duration = Duration::from_millis(250);
/// How many answers are read. More replicas than this need another view than a list.
const ANSWERS_MAX: usize = 1_000;
/// The size of the largest answer that is read, in bytes.
const ANSWER_MAX: usize = 128 << 10;
/// How many characters of one text in an answer are kept.
const TEXT_MAX: usize = 1_000;

/// A service as it made itself known. All texts are safe for a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduced {
    /// The service, such as `dispatcher`.
    pub name: String,
    /// A number of this process, drawn when it started.
    pub id: String,
    /// The version of the program.
    pub version: String,
    /// Host and process id, as `HOST/PID`.
    pub replica: String,
    /// The roles that this process leads, such as `collector.demo`.
    pub leading: Vec<String>,
    /// The roles that this process waits for.
    pub standby: Vec<String>,
    /// Resident memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Why the process is not ready; `None` if it is.
    pub not_ready: Option<String>,
    /// The newest block of each pipeline's node, as an ingester that leads saw it.
    pub heads: BTreeMap<String, u64>,
}

/// Keeps a process known to the broker; dropping it ends the answers.
#[derive(Debug)]
#[must_use = "the service is known for as long as this lives"]
pub struct Introduction {
    _answering: JoinSet<()>,
}

impl Bus {
    /// Makes this process known as the service `push0-NAME`, with its roles, memory and state. `not_ready` returns why
    /// the process is not ready, and is called for each answer.
    pub fn introduce(
        &self,
        name: &str,
        version: &str,
        not_ready: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Introduction {
        let introducing = Introducing::new(name, version, self.profile.clone(), Box::new(not_ready));
        let mut answering = JoinSet::new();
        answering.spawn(introducing.answer(self.client.clone()));
        Introduction {
            _answering: answering,
        }
    }

    /// Notes the newest block of a pipeline's node, which this process then tells when it is asked.
    pub fn note_head(&self, pipeline: &push0_domain::PipelineId, number: u64) {
        self.profile.note_head(pipeline.as_str(), number);
    }

    /// Asks all services who they are, for at most `within`. A service that does not answer in this time is left out.
    pub async fn services(&self, within: Duration) -> Result<Vec<Introduced>, BusError> {
        let failed = |e: &dyn std::fmt::Display| BusError::unavailable("services", e);
        let inbox = self.client.new_inbox();
        let mut answers = self
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(|e| failed(&e))?;
        let asked = self
            .client
            .publish_with_reply("$SRV.STATS", inbox, bytes::Bytes::new())
            .await;
        asked.map_err(|e| failed(&e))?;
        let mut found = Vec::new();
        let until = tokio::time::Instant::now() + within;
        let mut heard = 0;
        while heard < ANSWERS_MAX {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            // The first answer has the whole time.
            let wait = if heard == 0 { left } else { left.min(QUIET) };
            let Ok(Some(answer)) = timeout(wait, answers.next()).await else {
                break;
            };
            if answer.status == Some(StatusCode::NO_RESPONDERS) {
                break;
            }
            heard += 1;
            found.extend(parse(&answer.payload));
        }
        found.sort_by(|a, b| (&a.name, &a.replica, &a.id).cmp(&(&b.name, &b.replica, &b.id)));
        Ok(found)
    }
}

/// Part of an answer that is read.
#[derive(Deserialize)]
struct Answer {
    name: String,
    id: String,
    version: String,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// Returns the service of an answer; `None` if the answer is not one of push0's services.
fn parse(bytes: &[u8]) -> Option<Introduced> {
    if bytes.len() > ANSWER_MAX {
        return None;
    }
    let answer: Answer = serde_json::from_slice(bytes).ok()?;
    let name = answer.name.strip_prefix(profile::PREFIX)?;
    let text = |key: &str| answer.metadata.get(key).map(|text| shown(text));
    let roles = |key: &str| {
        let listed = answer
            .metadata
            .get(key)
            .into_iter()
            .flat_map(|all| all.split(','));
        listed.filter(|role| !role.is_empty()).map(shown).collect()
    };
    let head = |(key, number): (&String, &String)| {
        Some((shown(key.strip_prefix(profile::HEAD)?), number.parse().ok()?))
    };
    Some(Introduced {
        name: shown(name),
        id: shown(&answer.id),
        version: shown(&answer.version),
        replica: text(profile::REPLICA).unwrap_or_default(),
        leading: roles(profile::LEADING),
        standby: roles(profile::STANDBY),
        memory_bytes: answer
            .metadata
            .get(profile::MEMORY)
            .and_then(|bytes| bytes.parse().ok()),
        not_ready: text(profile::NOT_READY),
        heads: answer.metadata.iter().filter_map(head).collect(),
    })
}

fn shown(text: &str) -> String {
    one_line(text).chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_its_texts_rewrite_no_screen() {
        let answer = br#"{"name":"push0-collector","id":"a1","version":"0.1.0","type":"io.nats.micro.v1.stats_response",
            "metadata":{"replica":"host\u001b[2J/7","leading":"collector.demo","standby":"collector.a,collector.b",
            "memory_bytes":"5000000","not_ready":"broker: a\nb","head.demo":"12","head.x":"no number"}}"#;
        let found = parse(answer).expect("a service of push0");
        assert_eq!(
            (found.name.as_str(), found.replica.as_str()),
            ("collector", "host/7")
        );
        assert_eq!(found.leading, ["collector.demo"]);
        assert_eq!(found.standby, ["collector.a", "collector.b"]);
        assert_eq!(found.memory_bytes, Some(5_000_000));
        assert_eq!(found.not_ready.as_deref(), Some("broker: a b"));
        assert_eq!(found.heads, BTreeMap::from([("demo".to_owned(), 12)]));
    }

    #[test]
    fn answers_of_others_and_what_is_no_answer_are_passed_over() {
        let other = br#"{"name":"billing","id":"x","version":"1.0.0"}"#;
        let odd = br#"{"name":"push0-x","id":7,"version":"1.0.0"}"#;
        let large = vec![b' '; ANSWER_MAX + 1];
        for bytes in [&other[..], odd, &large, b"", b"\xff{", b"[]"] {
            assert_eq!(parse(bytes), None);
        }
        let bare = parse(br#"{"name":"push0-x","id":"1","version":"2.0.0"}"#).expect("a service");
        assert_eq!((bare.leading.len(), bare.memory_bytes), (0, None));
    }
}
