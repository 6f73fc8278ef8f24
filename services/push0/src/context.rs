//! What a command works with: the broker, the directory, the pipeline that is meant.

use crate::cli::{Global, Of};
use crate::endpoint::Endpoint;
use crate::failure::Failure;
use push0_bus::{Bus, NatsConfig, Pipelines, Refusal};
use push0_domain::PipelineId;
use push0_domain::pipeline::Pipeline;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long the broker may take to answer at first. An operator gets an answer within 3 s.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2_500);

/// What a command works with.
#[derive(Debug)]
pub(crate) struct Context {
    nats: Option<String>,
    pub(crate) dir: PathBuf,
    pub(crate) json: bool,
    refusals: watch::Sender<Option<String>>,
}

/// What the broker does not let this command do.
pub(crate) struct Refused(watch::Receiver<Option<String>>);

impl Refused {
    /// Waits until the broker refuses something, and says what: nothing else would end the command before
    /// its patience does.
    pub(crate) async fn text(mut self) -> String {
        match self.0.wait_for(Option::is_some).await {
            Ok(refusal) => refusal.clone().unwrap_or_default(),
            // The command that could be refused has ended.
            Err(_) => std::future::pending().await,
        }
    }
}

/// The part of the services' configuration that this command shares.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Environment {
    nats: NatsConfig,
}

impl Context {
    pub(crate) fn new(global: Global) -> (Self, Refused) {
        // The empty text is "not given", as it is for the services' optional keys.
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

    /// Whether a broker was named.
    pub(crate) fn names_a_broker(&self) -> bool {
        self.nats.is_some()
    }

    /// What runs in DIR, if it is what this command talks to.
    pub(crate) fn endpoint(&self) -> Option<Endpoint> {
        let endpoint = Endpoint::of_running(&self.dir)?;
        let other = self.nats.as_ref().is_some_and(|url| *url != endpoint.nats_url);
        (!other).then_some(endpoint)
    }

    fn config(&self) -> Result<NatsConfig, Failure> {
        let is_ours = |name: &str| name.starts_with("PUSH0_NATS__");
        let ours = std::env::vars_os()
            .filter(|(name, value)| name.to_str().is_some_and(is_ours) && !value.is_empty());
        let loaded = push0_runtime::config::load_from::<Environment>(None, ours, |_| Ok(()));
        let mut config = loaded.map_err(|error| Failure::usage(error.to_string()))?.nats;
        let running = || self.endpoint().map(|endpoint| endpoint.nats_url);
        if let Some(url) = self.nats.clone().or_else(running) {
            config.url = url;
        }
        Ok(config)
    }

    /// The broker, provisioned or not.
    pub(crate) async fn broker(&self) -> Result<Bus, Failure> {
        self.broker_within(CONNECT_TIMEOUT).await
    }

    /// The broker, provisioned or not, if it answers by then.
    pub(crate) async fn broker_within(&self, wait: Duration) -> Result<Bus, Failure> {
        let config = self.config()?;
        let refusals = self.refusals.clone();
        let report = move |refusal: Option<&Refusal>| {
            if let Some(refusal) = refusal.filter(|refusal| refusal.is_waited_for()) {
                refusals.send_replace(Some(refusal.to_string()));
            }
        };
        let bus = Bus::connect_reporting(&config, "push0", report)
            .await
            .map_err(|error| Failure::usage(error.to_string()))?;
        match tokio::time::timeout(wait.max(CONNECT_TIMEOUT), bus.connected()).await {
            Ok(()) => Ok(bus),
            Err(_) => Err(Failure::failed(format!(
                "no broker answers at {}: start one with `push0 up`, or name it with --nats or, where `push0 up` \
                 runs in another directory, --dir",
                without_secrets(&config.url)
            ))),
        }
    }

    /// The broker, with all that push0 needs on it.
    pub(crate) async fn bus(&self) -> Result<Bus, Failure> {
        let bus = self.broker().await?;
        bus.check_provisioned().await?;
        Ok(bus)
    }

    /// The pipeline that is meant: the named one, which may have been removed, or the only one.
    pub(crate) async fn pipeline(&self, bus: &Bus, of: &Of) -> Result<PipelineId, Failure> {
        let pipelines = Pipelines::bind(bus).await?;
        let current = pipelines.current().await?;
        match &of.pipeline {
            Some(name) if current.iter().any(|p| p.name == *name) => Ok(name.clone()),
            Some(name) if pipelines.revision(name, 1).await?.is_some() => Ok(name.clone()),
            Some(name) => Err(Failure::failed(format!(
                "there is no pipeline `{name}`; {}",
                names(&current)
            ))),
            None => match &current[..] {
                [only] => Ok(only.name.clone()),
                _ => Err(Failure::usage(format!(
                    "which pipeline? name it with --pipeline; {}",
                    names(&current)
                ))),
            },
        }
    }
}

fn names(pipelines: &[Arc<Pipeline>]) -> String {
    if pipelines.is_empty() {
        return "there are none: `push0 pipeline apply FILE` adds one".into();
    }
    let names: Vec<&str> = pipelines.iter().map(|p| p.name.as_str()).collect();
    format!("there are: {}", names.join(", "))
}

fn without_secrets(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, host)) => format!("***@{host}"),
        None => url.to_owned(),
    }
}
