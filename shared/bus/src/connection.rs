//! The connection to the broker: made once, re-established for ever, with a state for callers to watch.

use crate::{
    Backoff, ConnectError, Connection, NatsConfig, Refusal, brokers,
    outage::{Outage, Refused},
    refusal::{Refusals, user_of},
    services::Profile,
};
use async_nats::{ClientError, ConnectOptions, Event, ServerAddr, jetstream};
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet};

/// How long a request to the broker may take before it counts as unanswered. A stream does not answer while
/// it elects its leader, so this time adds to the election.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the broker may take to store a message. Longer than a request, as 4,096 publishes may
/// be in flight.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to the broker. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    // Shared, because a clone of the client for each message costs several allocations.
    pub(crate) client: Arc<async_nats::Client>,
    pub(crate) jetstream: Arc<jetstream::Context>,
    state: Arc<watch::Sender<Connection>>,
    pub(crate) refusals: Refusals,
    pub(crate) profile: Profile,
    /// The task that probes the broker; ends with the last clone of the bus.
    _watching: Arc<JoinSet<()>>,
}

impl Bus {
    /// Starts to connect and returns at once; the broker may start later. Retries for ever, with backoff, and
    /// logs each change of state once. `name` is shown in the broker's monitoring.
    pub async fn connect(config: &NatsConfig, name: &str) -> Result<Self, ConnectError> {
        Self::connect_reporting(config, name, |_| {}, |_| {}).await
    }

    /// Connects like [`Self::connect`]. Calls `refused` with each refusal of the broker, and with `None`
    /// whenever a connection is made. Calls `away` with the reason while the broker cannot be reached, and
    /// with `None` when it can.
    pub async fn connect_reporting(
        config: &NatsConfig,
        name: &str,
        refused: impl Fn(Option<&Refusal>) + Send + Sync + 'static,
        away: impl Fn(Option<&String>) + Send + Sync + 'static,
    ) -> Result<Self, ConnectError> {
        let (state, _) = watch::channel(Connection::default());
        let state = Arc::new(state);
        config.check_files()?;
        let sign_ins = Refused::default();
        let (options, user) = options(config, sign_ins.clone()).await?;
        let refusals = Refusals::new(user, Arc::new(refused));
        let noting = Arc::new(Noting {
            state: state.clone(),
            refusals: refusals.clone(),
            outage: Outage::new(
                config,
                without_secrets(&config.url),
                addresses(config)?,
                sign_ins,
                Box::new(away),
            ),
        });
        let options = options.name(name).event_callback(move |event| {
            let noting = noting.clone();
            async move { noting.note(&event).await }
        });
        let client = options
            .connect(addresses(config)?)
            .await
            .map_err(|e| ConnectError::Client(e.to_string()))?;
        let membership = config.membership.as_ref();
        let jetstream = jetstream::context::ContextBuilder::new()
            .api_prefix(membership.map_or("$JS.API", |m| &m.api_prefix))
            .timeout(REQUEST_TIMEOUT)
            .ack_timeout(STORE_TIMEOUT)
            .max_ack_inflight(PUBLISHES_IN_FLIGHT_MAX)
            .backpressure_on_inflight(true)
            .build(client.clone());
        let (client, jetstream) = (Arc::new(client), Arc::new(jetstream));
        let mut watching = JoinSet::new();
        if !config.without_streams {
            watching.spawn(brokers::keep_to_the_majority(
                client.clone(),
                jetstream.clone(),
                membership.map(|m| m.consumer.clone()),
                state.subscribe(),
            ));
        }
        Ok(Self {
            client,
            jetstream,
            state,
            refusals,
            profile: Profile::default(),
            _watching: Arc::new(watching),
        })
    }

    /// Returns a receiver of the connection's state.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.state.subscribe()
    }

    /// Waits until the connection is up.
    pub async fn connected(&self) {
        // The sender lives in `self`: the channel cannot close.
        let _ = self.state.subscribe().wait_for(|c| c.up).await;
    }

    /// Waits until the connection is interrupted. Returns at once if it is down now.
    pub async fn interrupted(&self) {
        let mut state = self.state.subscribe();
        let seen = state.borrow_and_update().interruptions;
        let _ = state.wait_for(|c| !c.up || c.interruptions != seen).await;
    }

    /// Counts an interruption: messages were dropped, from any sender.
    pub(crate) fn interrupt(&self) {
        self.state.send_modify(|c| c.interruptions += 1);
    }

    /// Sends all buffered messages.
    pub async fn flush(&self) {
        let _ = tokio::time::timeout(REQUEST_TIMEOUT, self.client.flush()).await;
    }
}

/// The longest pause between two attempts to reconnect: after an interruption, the watchdog waits one second
/// for provers to be heard of again.
const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(500);
/// How many attempts follow soon after one another although the broker refuses the sign-in: for some 20 s, in which an
/// enroller or a new configuration of the broker may come.
const REFUSED_SOON: usize = 50;
/// The longest pause between two attempts from then on: a revoked replica goes on for as long as its process, and each
/// attempt is a line in the broker's log.
const REFUSED_DELAY: Duration = Duration::from_secs(20);
/// How often the client pings the broker. A broker counts as lost after three unanswered pings in a row: it
/// is frozen, or the connection is dead.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How many messages of a subscription may wait to be read; further ones are dropped, and count as an interruption. A
/// message that is heard has some 700 bytes, so this takes some 12 MB of a container of 64 MiB. Enough for 1.5 s of the
/// highest rate that push0 reaches, and ten times the largest batch of a receiver (docs/adr/0026).
pub const UNREAD_MAX: usize = 16_384;
/// How many publishes may be in flight before the next one has to wait.
const PUBLISHES_IN_FLIGHT_MAX: usize = 4096;

/// The state changed by events of a connection.
struct Noting {
    state: Arc<watch::Sender<Connection>>,
    refusals: Refusals,
    outage: Outage,
}

impl Noting {
    async fn note(&self, event: &Event) {
        match event {
            Event::Connected => {
                tracing::info!(nats.url = self.outage.url(), "connected to the broker");
                self.refusals.forget();
                self.outage.ended();
                self.state.send_modify(|c| c.up = true);
            }
            Event::Disconnected => {
                self.outage.began(Instant::now());
                self.state.send_modify(|c| {
                    c.up = false;
                    c.interruptions += 1;
                });
            }
            Event::SlowConsumer(_) => {
                tracing::warn!("the client dropped messages that came faster than they were read");
                self.state.send_modify(|c| c.interruptions += 1);
            }
            // Failed attempts to connect end here.
            Event::ClientError(ClientError::Other(error)) if !self.state.borrow().up => {
                self.outage.goes_on(error, Instant::now()).await;
            }
            Event::ClientError(error) => tracing::debug!(%error, "NATS client error"),
            Event::ServerError(error) => {
                if !self.refusals.note(&error.to_string()) {
                    tracing::warn!(%error, "the broker reports an error");
                }
            }
            Event::LameDuckMode => tracing::info!("the broker is about to shut down"),
            Event::Draining | Event::Closed => {}
        }
    }
}

/// Returns the pause before another attempt to connect, after `attempts` that failed.
fn pause(attempts: usize, is_refused: bool) -> Duration {
    if is_refused && attempts > REFUSED_SOON {
        return REFUSED_DELAY.mul_f64(rand::random_range(0.5..=1.0));
    }
    let mut backoff = Backoff::new(Duration::from_millis(50), RECONNECT_DELAY_MAX);
    let delays = (0..attempts.min(8)).map(|_| backoff.next_delay());
    delays.last().unwrap_or_default()
}

/// Returns the options of a connection, and a description of its user.
async fn options(config: &NatsConfig, sign_ins: Refused) -> Result<(ConnectOptions, String), ConnectError> {
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
        .subscription_capacity(UNREAD_MAX)
        .reconnect_to_server_callback(move |pool, _| std::future::ready(choice.next(&pool)))
        .reconnect_delay_callback(move |attempts| pause(attempts, sign_ins.is_set()));
    // The client does not take user and password from the URL, so they are set here.
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
    let drawn = config.membership.as_ref().and_then(|m| m.drawn.as_ref());
    let seed = match (drawn, &config.nkey_seed) {
        (Some(drawn), _) => Some(drawn.seed.clone()),
        (None, Some(path)) => Some(read("nkey_seed", path).await?.trim().to_owned()),
        (None, None) => None,
    };
    options = with_key(options, config, seed.as_deref());
    let user = user_of(
        config,
        seed.as_deref(),
        signed.as_ref().and_then(ServerAddr::username),
    );
    if let Some(path) = &config.tls_ca {
        options = options.add_root_certificates(path.clone()).require_tls(true);
    }
    if let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    Ok((options, user))
}

/// Returns the options of a connection that signs in with this seed and gets its answers on a private inbox.
fn with_key(mut options: ConnectOptions, config: &NatsConfig, seed: Option<&str>) -> ConnectOptions {
    if let Some(seed) = seed {
        options = options.nkey(seed.to_owned());
    }
    if let Some(drawn) = config.membership.as_ref().and_then(|m| m.drawn.as_ref()) {
        options = options.token(drawn.word.clone());
    }
    let key = seed.and_then(|seed| nkeys::KeyPair::from_seed(seed).ok());
    let private = key.map(|key| format!("_INBOX_{}", key.public_key()));
    match config.inbox_prefix.clone().or(private) {
        Some(prefix) => options.custom_inbox_prefix(prefix),
        None => options,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_sign_in_is_tried_seldom_after_some_twenty_seconds() {
        let longest = |is_refused| {
            let pauses = (0..10_000).map(|attempts| pause(attempts, is_refused));
            pauses.max().unwrap_or_default()
        };
        assert!(longest(false) <= RECONNECT_DELAY_MAX);
        assert!(longest(true) > REFUSED_DELAY.mul_f64(0.9));
        let soon: Duration = (0..=REFUSED_SOON).map(|attempts| pause(attempts, true)).sum();
        assert!(soon < Duration::from_secs(30), "{soon:?}");
        assert!(pause(REFUSED_SOON + 1, true) >= REFUSED_DELAY / 2);
    }
}
