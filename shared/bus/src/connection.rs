//! The connection to the broker: made once, kept for ever, its state there for all to watch.

use crate::{
    Backoff, Refusal, brokers,
    refusal::{Refusals, user_of},
};
use async_nats::{ConnectOptions, Event, ServerAddr, jetstream};
use serde::Deserialize;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinSet};

/// How long a request to the broker may take before it counts as unanswered. One that is sent to a stream
/// that elects its leader has no answer, and is waited for on top of the election.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the broker may take to store a message: longer, as 4,096 may be on their way at once.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the broker is and who we are there: the `[nats]` section of every service.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsConfig {
    /// One or more `nats://` or `tls://` URLs, separated by commas.
    pub url: String,
    /// A credentials file (JWT and seed).
    pub credentials: Option<PathBuf>,
    /// A file that holds an NKEY seed.
    pub nkey_seed: Option<PathBuf>,
    /// A certificate authority to trust besides the system's; also requires TLS.
    pub tls_ca: Option<PathBuf>,
    /// A client certificate, with `tls_key`.
    pub tls_cert: Option<PathBuf>,
    /// The key of the client certificate.
    pub tls_key: Option<PathBuf>,
}

impl Default for NatsConfig {
    fn default() -> Self {
        let url = "nats://127.0.0.1:4222".into();
        Self {
            url,
            credentials: None,
            nkey_seed: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
        }
    }
}

/// A `[nats]` section that cannot work, whatever the broker does.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none.
    #[error("nats.url `{url}`: {reason}; expected nats://HOST:PORT, several separated by commas")]
    Url {
        /// The URL as configured, without what stands before an `@`.
        url: String,
        /// What the parser said.
        reason: String,
    },
    /// A file cannot be read.
    #[error("nats.{key} `{path}`: {source}")]
    File {
        /// The key of the configuration.
        key: &'static str,
        /// The path.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Half of a client certificate.
    #[error("nats.{given} is set without nats.{missing}; a client certificate needs both")]
    HalfCertificate {
        /// The key that is there.
        given: &'static str,
        /// The key that is not.
        missing: &'static str,
    },
    /// The client refused the options.
    #[error("nats: {0}")]
    Client(String),
}

/// Whether the broker is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Whether the connection stands now.
    pub up: bool,
    /// Counts the interruptions. Whoever derives state from a stream of deliveries starts over when
    /// it grows: messages may have been lost on the way to them.
    pub interruptions: u64,
}

/// A connection to the broker. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    // Shared: a client of its own for each message costs several allocations.
    pub(crate) client: Arc<async_nats::Client>,
    pub(crate) jetstream: Arc<jetstream::Context>,
    state: Arc<watch::Sender<Connection>>,
    pub(crate) refusals: Refusals,
    /// Ends with the last clone.
    _watching: Arc<JoinSet<()>>,
}

impl Bus {
    /// Starts to connect and returns at once; the broker may come later. Retries for ever, with
    /// backoff, and logs each change of state once. `name` is what the broker's monitoring shows.
    pub async fn connect(config: &NatsConfig, name: &str) -> Result<Self, ConnectError> {
        Self::connect_reporting(config, name, |_| {}).await
    }

    /// As [`Self::connect`]; each refusal of the broker is reported, and none whenever the connection is
    /// made anew.
    pub async fn connect_reporting(
        config: &NatsConfig,
        name: &str,
        report: impl Fn(Option<&Refusal>) + Send + Sync + 'static,
    ) -> Result<Self, ConnectError> {
        let (state, _) = watch::channel(Connection::default());
        let state = Arc::new(state);
        let (options, user) = options(config).await?;
        let refusals = Refusals::new(user, Arc::new(report));
        let (for_events, reported) = (state.clone(), refusals.clone());
        let shown = without_secrets(&config.url);
        let options = options.name(name).event_callback(move |event| {
            note(&for_events, &reported, &event, &shown);
            std::future::ready(())
        });
        let client = options
            .connect(addresses(config)?)
            .await
            .map_err(|e| ConnectError::Client(e.to_string()))?;
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(REQUEST_TIMEOUT)
            .ack_timeout(STORE_TIMEOUT)
            .max_ack_inflight(PUBLISHES_IN_FLIGHT_MAX)
            .backpressure_on_inflight(true)
            .build(client.clone());
        let (client, jetstream) = (Arc::new(client), Arc::new(jetstream));
        let mut watching = JoinSet::new();
        watching.spawn(brokers::keep_to_the_majority(
            client.clone(),
            jetstream.clone(),
            state.subscribe(),
        ));
        Ok(Self {
            client,
            jetstream,
            state,
            refusals,
            _watching: Arc::new(watching),
        })
    }

    /// The connection's state, to watch.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.state.subscribe()
    }

    /// Waits until the broker is there.
    pub async fn connected(&self) {
        // The sender lives in `self`: the channel cannot close.
        let _ = self.state.subscribe().wait_for(|c| c.up).await;
    }

    /// Waits until the connection is interrupted; at once if it is down now.
    pub async fn interrupted(&self) {
        let mut state = self.state.subscribe();
        let seen = state.borrow_and_update().interruptions;
        let _ = state.wait_for(|c| !c.up || c.interruptions != seen).await;
    }

    /// Sends what is buffered.
    pub async fn flush(&self) {
        let _ = tokio::time::timeout(REQUEST_TIMEOUT, self.client.flush()).await;
    }
}

/// The longest pause between two attempts to reach the broker: the watchdog allows provers a second
/// to be heard of again.
const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(500);
/// How often the broker is asked for a sign of life. One that gives none to three of them in a row counts as
/// lost: it is frozen, or the connection leads nowhere.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How many publishes may wait for their acknowledgement before the next one waits too.
const PUBLISHES_IN_FLIGHT_MAX: usize = 4096;

fn note(state: &watch::Sender<Connection>, refusals: &Refusals, event: &Event, url: &str) {
    match event {
        Event::Connected => {
            tracing::info!(nats.url = url, "connected to the broker");
            refusals.forget();
            state.send_modify(|c| c.up = true);
        }
        Event::Disconnected => {
            tracing::warn!(nats.url = url, "lost the broker, reconnecting");
            state.send_modify(|c| {
                c.up = false;
                c.interruptions += 1;
            });
        }
        Event::SlowConsumer(_) => {
            tracing::warn!("the client dropped messages that came faster than they were read");
            state.send_modify(|c| c.interruptions += 1);
        }
        // Each failed attempt to reconnect comes by here; the loss itself was logged.
        Event::ClientError(error) => tracing::debug!(%error, "broker connection"),
        Event::ServerError(error) => {
            if !refusals.note(&error.to_string()) {
                tracing::warn!(%error, "the broker reports an error");
            }
        }
        Event::LameDuckMode => tracing::info!("the broker is about to shut down"),
        Event::Draining | Event::Closed => {}
    }
}

/// The options of a connection, and the user that signs in with them.
async fn options(config: &NatsConfig) -> Result<(ConnectOptions, String), ConnectError> {
    let read = async |key: &'static str, path: &PathBuf| {
        tokio::fs::read_to_string(path)
            .await
            .map_err(|source| ConnectError::File {
                key,
                path: path.display().to_string(),
                source,
            })
    };
    let choice = brokers::Choice::default();
    let mut options = ConnectOptions::new()
        .retry_on_initial_connect()
        .max_reconnects(None)
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(REQUEST_TIMEOUT))
        .ping_interval(PING_EVERY)
        .reconnect_to_server_callback(move |pool, _| std::future::ready(choice.next(&pool)))
        .reconnect_delay_callback(|attempts| {
            let mut backoff = Backoff::new(Duration::from_millis(50), RECONNECT_DELAY_MAX);
            let delays = (0..attempts.min(8)).map(|_| backoff.next_delay());
            delays.last().unwrap_or_default()
        });
    // The client leaves what stands before an `@` to its caller.
    let signed = addresses(config)?
        .into_iter()
        .find(|address| address.username().is_some());
    if let Some(address) = &signed {
        let (user, password) = (
            address.username().unwrap_or_default(),
            address.password().unwrap_or_default(),
        );
        options = options.user_and_password(user.to_owned(), password.to_owned());
    }
    if let Some(path) = &config.credentials {
        let creds = read("credentials", path).await?;
        options = options.credentials(&creds).map_err(|source| ConnectError::File {
            key: "credentials",
            path: path.display().to_string(),
            source,
        })?;
    }
    let seed = match &config.nkey_seed {
        Some(path) => Some(read("nkey_seed", path).await?.trim().to_owned()),
        None => None,
    };
    if let Some(seed) = &seed {
        options = options.nkey(seed.clone());
    }
    let user = user_of(
        config,
        seed.as_deref(),
        signed.as_ref().and_then(ServerAddr::username),
    );
    if let Some(path) = &config.tls_ca {
        options = options.add_root_certificates(path.clone()).require_tls(true);
    }
    let half = |given, missing| ConnectError::HalfCertificate { given, missing };
    match (&config.tls_cert, &config.tls_key) {
        (Some(cert), Some(key)) => Ok((options.add_client_certificate(cert.clone(), key.clone()), user)),
        (None, None) => Ok((options, user)),
        (Some(_), None) => Err(half("tls_cert", "tls_key")),
        (None, Some(_)) => Err(half("tls_key", "tls_cert")),
    }
}

fn addresses(config: &NatsConfig) -> Result<Vec<ServerAddr>, ConnectError> {
    let parse = |url: &str| {
        url.trim().parse::<ServerAddr>().map_err(|e| ConnectError::Url {
            url: without_secrets(url),
            reason: e.to_string(),
        })
    };
    config.url.split(',').map(parse).collect()
}

fn without_secrets(urls: &str) -> String {
    let hide = |url: &str| match url.rsplit_once('@') {
        Some((_, host)) => format!("***@{host}"),
        None => url.to_owned(),
    };
    urls.split(',').map(hide).collect::<Vec<_>>().join(",")
}
