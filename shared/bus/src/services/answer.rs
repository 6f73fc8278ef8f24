//! The answers of one process to `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS`.

use super::profile::{self, PREFIX, Profile};
use crate::Backoff;
use futures::{StreamExt, stream::SelectAll};
use serde_json::{Value, json};
use std::{sync::Arc, time::SystemTime};

/// The process that answers.
pub(super) struct Introducing {
    name: String,
    id: String,
    version: String,
    replica: String,
    started: SystemTime,
    profile: Profile,
    not_ready: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

impl Introducing {
    pub(super) fn new(
        name: &str,
        version: &str,
        profile: Profile,
        not_ready: Box<dyn Fn() -> Option<String> + Send + Sync>,
    ) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = match host.trim() {
            "" => "unknown",
            host => host,
        };
        Self {
            name: format!("{PREFIX}{name}"),
            id: format!("{:016x}", rand::random::<u64>()),
            version: version.to_owned(),
            replica: format!("{host}/{}", std::process::id()),
            started: SystemTime::now(),
            profile,
            not_ready,
        }
    }

    /// Answers for as long as the task lives.
    pub(super) async fn answer(self, client: Arc<async_nats::Client>) {
        let mut backoff = Backoff::default();
        loop {
            let began = std::time::Instant::now();
            let mut requests = SelectAll::new();
            for subject in self.subjects() {
                // Fails only when the client is closed.
                if let Ok(subscription) = client.subscribe(subject).await {
                    requests.push(subscription);
                }
            }
            while let Some(request) = requests.next().await {
                // A request asks for an answer to an inbox: no other subject may be written to by asking.
                let inbox = request.reply.filter(|reply| is_inbox(reply));
                let verb = request.subject.split('.').nth(1).unwrap_or_default();
                if let (Some(inbox), Some(answer)) = (inbox, self.say(verb)) {
                    // Fails only when the client is closed.
                    let _ = client.publish(inbox, answer.to_string().into()).await;
                }
            }
            backoff.pause_after(began).await;
        }
    }

    /// Returns the subjects of the convention, any verb in one.
    fn subjects(&self) -> [String; 3] {
        let Self { name, id, .. } = self;
        [
            "$SRV.*".to_owned(),
            format!("$SRV.*.{name}"),
            format!("$SRV.*.{name}.{id}"),
        ]
    }

    /// Returns the answer to a request; `None` if the convention has no such request.
    fn say(&self, verb: &str) -> Option<Value> {
        let kind = match verb {
            "PING" => "ping",
            "INFO" => "info",
            "STATS" => "stats",
            _ => return None,
        };
        let mut answer = json!({
            "type": format!("io.nats.micro.v1.{kind}_response"),
            "name": self.name,
            "id": self.id,
            "version": self.version,
            "metadata": self.metadata(),
        });
        if verb != "PING" {
            answer["endpoints"] = json!([]);
        }
        if verb == "INFO" {
            answer["description"] = json!(description(&self.name));
        }
        if verb == "STATS" {
            answer["started"] = json!(humantime::format_rfc3339_millis(self.started).to_string());
        }
        Some(answer)
    }

    fn metadata(&self) -> std::collections::BTreeMap<String, String> {
        let mut metadata = self.profile.metadata();
        metadata.insert(profile::REPLICA.to_owned(), self.replica.clone());
        if let Some(bytes) = resident_bytes() {
            metadata.insert(profile::MEMORY.to_owned(), bytes.to_string());
        }
        if let Some(reason) = (self.not_ready)() {
            metadata.insert(profile::NOT_READY.to_owned(), reason);
        }
        metadata
    }
}

/// Returns whether a subject is an inbox of a client, shared or private, or the broker's way to one in another account.
pub(crate) fn is_inbox(subject: &str) -> bool {
    ["_INBOX.", "_INBOX_", "_R_."]
        .iter()
        .any(|prefix| subject.starts_with(prefix))
}

fn description(name: &str) -> &'static str {
    match name.strip_prefix(PREFIX) {
        Some("ingester") => {
            "Follows chains, stores the facts of each block and announces the block to the dispatcher"
        }
        Some("dispatcher") => "Releases tasks to provers, the most urgent first",
        Some("collector") => "Opens the next stage or attempt after each result, and stores records in order",
        Some("watchdog") => "Takes work from dead, hung and slow provers, and makes room in the store",
        Some("gateway") => "Shows the deployment to people",
        Some("enroller") => {
            "Answers the broker about replicas that sign in with the credential of their fleet"
        }
        _ => "A service of push0",
    }
}

/// Returns the resident memory of this process; `None` where the system does not tell.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_of_the_convention_has_its_answer_and_others_have_none() {
        let process = Introducing::new(
            "watchdog",
            "1.2.3",
            Profile::default(),
            Box::new(|| Some("broker: away".into())),
        );
        let types = ["PING", "INFO", "STATS", "SCHEMA"].map(|verb| {
            let answer = process.say(verb)?;
            assert_eq!(
                (&answer["name"], &answer["version"]),
                (&json!("push0-watchdog"), &json!("1.2.3"))
            );
            assert_eq!(answer["metadata"]["not_ready"], "broker: away");
            Some(answer["type"].as_str()?.to_owned())
        });
        let of = |kind: &str| Some(format!("io.nats.micro.v1.{kind}_response"));
        assert_eq!(types, [of("ping"), of("info"), of("stats"), None]);
        assert!(resident_bytes().is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn only_inboxes_are_answered() {
        assert!(is_inbox("_INBOX.a.b") && is_inbox("_INBOX_UABC.a") && is_inbox("_R_.a.b"));
        let block = push0_domain::subject::block(&"demo".parse().unwrap());
        for other in [block.as_str(), "$JS.API.STREAM.PURGE.PUSH0_TASKS", "_INBOXES"] {
            assert!(!is_inbox(other), "{other}");
        }
    }
}
