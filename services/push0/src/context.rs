//! Context of a command: the broker, the state directory and the selected pipeline.

use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::options::{Global, Of};
use crate::output;
use crate::secrets::without_userinfo;
use push0_bus::{Bus, NatsConfig, Pipelines, Refusal, cause_of_outage};
use push0_domain::PipelineId;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// Time limit for the first connection to the broker. It leaves room to answer an operator within 3 s.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2_500);

/// Context of a command, built from the global options.
#[derive(Debug)]
pub(crate) struct Context {
    nats: Option<String>,
    pub(crate) dir: PathBuf,
    pub(crate) json: bool,
    refusals: watch::Sender<Option<String>>,
}

/// Receiver of the broker's refusals of this command's requests.
pub(crate) struct Refused(watch::Receiver<Option<String>>);

impl Refused {
    /// Waits until the broker refuses a request, and returns the refusal's text. Without this, the command
    /// would wait for an answer until its timeout.
    pub(crate) async fn text(mut self) -> String {
        match self.0.wait_for(Option::is_some).await {
            Ok(refusal) => refusal.clone().unwrap_or_default(),
            // The sender is dropped when the command has ended, and then no refusal can follow.
            Err(_) => std::future::pending().await,
        }
    }
}

/// The part of the services' configuration shared by this command.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Environment {
    nats: NatsConfig,
}

impl Context {
    pub(crate) fn new(global: Global) -> (Self, Refused) {
        // An empty text means "not given", as for the optional keys of the services.
        let nats = global.nats.filter(|url| !url.is_empty());
        let (refusals, refused) = watch::channel(None);
        let context = Self {
            nats,
            dir: global.dir,
            json: global.json,
            refusals,
        };
        (context, Refused(refused))
    }

    /// Returns whether `--nats` or `PUSH0_NATS__URL` is set.
    pub(crate) fn names_a_broker(&self) -> bool {
        self.nats.is_some()
    }

    /// Returns the endpoint of the `push0 up` that runs in DIR; `None` if there is none, or if this command
    /// uses another broker.
    pub(crate) fn endpoint(&self) -> Option<Endpoint> {
        self.running().ok().flatten()
    }

    /// Returns what [`Self::endpoint`] returns, or why it cannot be read.
    pub(crate) fn running(&self) -> Result<Option<Endpoint>, Failure> {
        let running = match Endpoint::of_running(&self.dir) {
            // Another broker may be meant.
            Err(_) if self.nats.is_some() => None,
            running => running?,
        };
        Ok(running.filter(|endpoint| {
            // A URL without the secret means the same broker.
            let is_same = |url: &String| *url == endpoint.nats_url || is_bare(url, endpoint);
            self.nats.as_ref().is_none_or(is_same)
        }))
    }

    fn config(&self) -> Result<NatsConfig, Failure> {
        let is_ours = |name: &str| name.starts_with("PUSH0_NATS__");
        let ours = std::env::vars_os()
            .filter(|(name, value)| name.to_str().is_some_and(is_ours) && !value.is_empty());
        let loaded = push0_runtime::config::load_from::<Environment>(None, ours, |_| Ok(()));
        let mut config = loaded.map_err(|error| Failure::usage(error.to_string()))?.nats;
        let running = self.running()?.map(|endpoint| endpoint.nats_url);
        if let Some(url) = running.or_else(|| self.nats.clone()) {
            config.url = url;
        }
        Ok(config)
    }

    /// Connects to the broker, provisioned or not.
    pub(crate) async fn broker(&self) -> Result<Bus, Failure> {
        self.broker_within(CONNECT_TIMEOUT).await
    }

    /// Connects to the broker, provisioned or not. Fails after `wait`, or after
    /// [`CONNECT_TIMEOUT`] if that is longer.
    pub(crate) async fn broker_within(&self, wait: Duration) -> Result<Bus, Failure> {
        let config = self.config()?;
        let refusals = self.refusals.clone();
        let report = move |refusal: Option<&Refusal>| {
            if let Some(refusal) = refusal.filter(|refusal| refusal.is_waited_for()) {
                refusals.send_replace(Some(refusal.to_string()));
            }
        };
        let (outage, away) = watch::channel(None::<String>);
        let report_outage = move |reason: Option<&String>| {
            outage.send_replace(reason.cloned());
        };
        let bus = Bus::connect_reporting(&config, "push0", report, report_outage)
            .await
            .map_err(|error| Failure::usage(error.to_string()))?;
        if timeout(CONNECT_TIMEOUT, bus.connected()).await.is_ok() {
            return Ok(bus);
        }
        let own = self.endpoint().map(|endpoint| endpoint.pid);
        let silence = || {
            let away = away.borrow().clone();
            let cause = away.as_deref().map(cause_of_outage);
            silence(
                &without_userinfo(&config.url),
                cause,
                own.map(|pid| (pid, &*self.dir)),
            )
        };
        let rest = wait.saturating_sub(CONNECT_TIMEOUT);
        if !rest.is_zero() {
            let (finding, _) = silence();
            output::note(&format!("push0: {finding}: waiting for it up to {wait:?}"));
            if timeout(rest, bus.connected()).await.is_ok() {
                return Ok(bus);
            }
        }
        let (finding, remedy) = silence();
        Err(Failure::failed(format!("{finding}: {remedy}")))
    }

    /// Connects to the broker and checks that all streams and buckets exist.
    pub(crate) async fn bus(&self) -> Result<Bus, Failure> {
        let bus = self.broker().await?;
        bus.check_provisioned().await?;
        Ok(bus)
    }

    /// Returns the named pipeline, current or removed; without a name, the only current pipeline, or the only removed one if
    /// none is current. Says that a removed one was removed.
    pub(crate) async fn pipeline(&self, bus: &Bus, of: &Of) -> Result<PipelineId, Failure> {
        let there = There::read(bus).await?;
        let name = there.choose(of.pipeline.as_ref())?;
        if there.removed.contains(&name) {
            output::note(&format!(
                "pipeline {name} was removed: it takes in no blocks, and those in flight go on. What is stored about its blocks \
                 is told until it expires"
            ));
        }
        Ok(name)
    }
}

/// The pipelines that are current, and those that were removed. A pipeline whose definition cannot be read is current.
struct There {
    current: Vec<PipelineId>,
    removed: Vec<PipelineId>,
}

impl There {
    async fn read(bus: &Bus) -> Result<Self, Failure> {
        let pipelines = Pipelines::bind(bus).await?;
        let (readable, unreadable) = pipelines.all().await?;
        let readable = readable.iter().map(|pipeline| pipeline.name.clone());
        let mut current: Vec<PipelineId> = readable
            .chain(unreadable.into_iter().map(|(name, _)| name))
            .collect();
        current.sort();
        let mut removed = pipelines.names().await?;
        removed.retain(|name| !current.contains(name));
        Ok(Self { current, removed })
    }

    /// Returns the pipeline that is meant.
    fn choose(&self, name: Option<&PipelineId>) -> Result<PipelineId, Failure> {
        if let Some(name) = name {
            return self.known(name).map(|()| name.clone());
        }
        match (&self.current[..], &self.removed[..]) {
            ([only], _) | ([], [only]) => Ok(only.clone()),
            _ => Err(Failure::usage(format!(
                "which pipeline? name it with --pipeline, which takes a removed one too; {}",
                self.names()
            ))),
        }
    }

    fn known(&self, name: &PipelineId) -> Result<(), Failure> {
        if self.current.contains(name) || self.removed.contains(name) {
            return Ok(());
        }
        let names = self.names();
        Err(Failure::failed(format!("there is no pipeline `{name}`; {names}")))
    }

    fn names(&self) -> String {
        let list = |names: &[PipelineId]| {
            let names: Vec<&str> = names.iter().map(PipelineId::as_str).collect();
            names.join(", ")
        };
        match (&self.current[..], &self.removed[..]) {
            ([], []) => "there are none: `push0 pipeline apply FILE` adds one".into(),
            ([], removed) => format!("there are none now; removed ones: {}", list(removed)),
            (current, _) => format!("there are: {}", list(current)),
        }
    }
}

/// Returns an error unless a pipeline of this name is there or was once.
pub(crate) async fn known(bus: &Bus, name: &PipelineId) -> Result<(), Failure> {
    There::read(bus).await?.known(name)
}

/// Says why there is no connection to the broker at `url`, and what to do. `own` is the process id of the `push0 up` that
/// runs that broker, and its directory.
fn silence(url: &str, cause: Option<&str>, own: Option<(u32, &Path)>) -> (String, String) {
    let because = cause.map_or(String::new(), |cause| format!(" ({cause})"));
    if cause.is_some_and(|cause| cause.contains("authorization violation")) {
        return (
            format!("the broker at {url} refuses the sign-in{because}"),
            "check PUSH0_NATS__NKEY_SEED or PUSH0_NATS__CREDENTIALS, or the user and password in the URL"
                .into(),
        );
    }
    if let Some((pid, dir)) = own {
        return (
            format!("the broker of `push0 up` (process {pid}) does not answer at {url}{because}"),
            format!("look at {}", dir.join("nats/nats.log").display()),
        );
    }
    // Where nobody listens, the reason is the system's.
    let is_nobody = |cause: &&str| cause.contains("os error") || cause.contains("no answer");
    match cause.filter(|cause| !is_nobody(cause)) {
        Some("timed out") => (
            format!("the broker at {url} takes the connection and does not answer the sign-in{because}"),
            "check PUSH0_NATS__NKEY_SEED, and whether an enroller runs: the broker asks it about keys that it does not know. A \
             broker that answers nobody is frozen"
                .into(),
        ),
        Some(_) => (
            format!("no connection to the broker at {url}{because}"),
            "check its address, and the files PUSH0_NATS__TLS_CA, PUSH0_NATS__TLS_CERT and PUSH0_NATS__TLS_KEY".into(),
        ),
        None => (
            format!("no broker answers at {url}{because}"),
            "start one with `push0 up`, or name it with --nats or, where `push0 up` runs in another directory, --dir".into(),
        ),
    }
}

/// Returns whether a URL is that of the running broker without its secret.
fn is_bare(url: &str, endpoint: &Endpoint) -> bool {
    let port = endpoint.nats_port;
    [
        format!("nats://127.0.0.1:{port}"),
        format!("nats://localhost:{port}"),
    ]
    .contains(&url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_pipeline_is_chosen_by_its_name_or_if_it_is_the_only_one() {
        let of = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let choose = |current: &[&str], removed: &[&str], name: Option<&str>| {
            let (current, removed) = (of(current), of(removed));
            let name = name.map(|name| name.parse().unwrap());
            let chosen = There { current, removed }.choose(name.as_ref());
            chosen.map_or_else(|failure| failure.text(), |name| name.to_string())
        };
        assert_eq!(choose(&[], &["old"], None), "old");
        assert_eq!(choose(&["new"], &["old"], None), "new");
        assert_eq!(choose(&["new"], &["old"], Some("old")), "old");
        let several = choose(&[], &["a", "b"], None);
        assert!(
            several.ends_with("there are none now; removed ones: a, b"),
            "{several}"
        );
        let unknown = choose(&[], &[], Some("x"));
        assert!(
            unknown.starts_with("there is no pipeline `x`; there are none: "),
            "{unknown}"
        );
    }

    #[test]
    fn a_broker_without_a_connection_is_told_with_its_reason_and_a_remedy() {
        let of = |cause, own| {
            let (finding, remedy) = silence("***@h:4222", cause, own);
            format!("{finding}: {remedy}")
        };
        let refused = of(Some("authorization violation: nats"), None);
        assert!(
            refused.starts_with(
                "the broker at ***@h:4222 refuses the sign-in (authorization violation: nats): check"
            ),
            "{refused}"
        );
        for nobody in [None, Some("Connection refused (os error 111)"), Some("no answer")] {
            let said = of(nobody, None);
            assert!(said.starts_with("no broker answers at ***@h:4222"), "{said}");
        }
        let tls = of(Some("invalid peer certificate: UnknownIssuer"), None);
        assert!(
            tls.contains("UnknownIssuer") && tls.contains("PUSH0_NATS__TLS_CA"),
            "{tls}"
        );
        let frozen = of(None, Some((77, Path::new("/state"))));
        assert!(
            frozen.contains("(process 77)") && frozen.ends_with("look at /state/nats/nats.log"),
            "{frozen}"
        );
    }
}
