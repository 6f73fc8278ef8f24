//! Context of a command: the broker, the state directory and the selected pipeline.

use crate::endpoint::Endpoint;
use crate::failure::Failure;
use crate::options::{Global, Of};
use crate::output;
use crate::secrets::without_userinfo;
use push0_bus::{Bus, NatsConfig, Pipelines, Refusal};
use push0_domain::PipelineId;
use push0_domain::pipeline::Pipeline;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
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
        let endpoint = Endpoint::of_running(&self.dir)?;
        // A URL without the secret means the same broker.
        let same = |url: &String| *url == endpoint.nats_url || is_bare(url, &endpoint);
        let other = self.nats.as_ref().is_some_and(|url| !same(url));
        (!other).then_some(endpoint)
    }

    fn config(&self) -> Result<NatsConfig, Failure> {
        let is_ours = |name: &str| name.starts_with("PUSH0_NATS__");
        let ours = std::env::vars_os()
            .filter(|(name, value)| name.to_str().is_some_and(is_ours) && !value.is_empty());
        let loaded = push0_runtime::config::load_from::<Environment>(None, ours, |_| Ok(()));
        let mut config = loaded.map_err(|error| Failure::usage(error.to_string()))?.nats;
        let running = self.endpoint().map(|endpoint| endpoint.nats_url);
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
        let bus = Bus::connect_reporting(&config, "push0", report, |_| {})
            .await
            .map_err(|error| Failure::usage(error.to_string()))?;
        if timeout(CONNECT_TIMEOUT, bus.connected()).await.is_ok() {
            return Ok(bus);
        }
        let silence = format!("no broker answers at {}", without_userinfo(&config.url));
        let rest = wait.saturating_sub(CONNECT_TIMEOUT);
        if !rest.is_zero() {
            output::note(&format!("push0: {silence}: waiting for it up to {wait:?}"));
            if timeout(rest, bus.connected()).await.is_ok() {
                return Ok(bus);
            }
        }
        Err(Failure::failed(format!(
            "{silence}: start one with `push0 up`, or name it with --nats or, where `push0 up` runs in another \
             directory, --dir"
        )))
    }

    /// Connects to the broker and checks that all streams and buckets exist.
    pub(crate) async fn bus(&self) -> Result<Bus, Failure> {
        let bus = self.broker().await?;
        bus.check_provisioned().await?;
        Ok(bus)
    }

    /// Returns the named pipeline, current or removed; without a name, the only current pipeline.
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

/// Returns whether a URL is that of the running broker without its secret.
fn is_bare(url: &str, endpoint: &Endpoint) -> bool {
    let port = endpoint.nats_port;
    [
        format!("nats://127.0.0.1:{port}"),
        format!("nats://localhost:{port}"),
    ]
    .contains(&url.to_owned())
}

fn names(pipelines: &[Arc<Pipeline>]) -> String {
    if pipelines.is_empty() {
        return "there are none: `push0 pipeline apply FILE` adds one".into();
    }
    let names: Vec<&str> = pipelines.iter().map(|p| p.name.as_str()).collect();
    format!("there are: {}", names.join(", "))
}
