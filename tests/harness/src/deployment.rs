//! A whole deployment for one test: a broker, its streams, pipelines and services.

mod builder;
mod shipped;
mod work;

pub use builder::DeploymentBuilder;
pub use shipped::MEMORY_MAX_MB;

use crate::{
    Brokers, NatsServer, Process, ProcessBuilder, Proxy,
    accounts::{Accounts, TEST},
    cluster::Broker,
    wait_for,
};
use push0_bus::{Bus, NatsConfig, Pipelines};
use push0_domain::{PipelineId, pipeline::Pipeline};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Time limit for a service to become ready and for a publish to be stored.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running deployment: its broker, the test's own connection to it, and the services by label.
pub struct Deployment<B: Broker = Brokers> {
    // Declared before the broker, so that services end first and log no lost connections.
    services: Vec<Process>,
    env: Vec<(String, String)>,
    /// Variables for all processes of one program: program, name, value.
    settings: Vec<(String, String, String)>,
    pipelines: Pipelines,
    bus: Bus,
    /// One proxy per server if the services reach the servers through proxies; otherwise empty.
    proxies: Vec<Proxy>,
    /// The broker's users; `None` if every client may do everything.
    accounts: Option<Arc<Accounts>>,
    /// Whether the test provokes refusals of the broker.
    refusals_expected: AtomicBool,
    /// Receiver of the traces, which accepts connections and never reads from them.
    _nobody: Option<std::net::TcpListener>,
    /// The broker or the cluster, to kill, pause and restart.
    pub nats: B,
}

impl Deployment {
    /// Returns a builder of an empty deployment.
    pub fn builder() -> DeploymentBuilder {
        DeploymentBuilder::new()
    }
}

impl<B: Broker> Deployment<B> {
    /// Returns the test's own connection.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Returns the URLs under which the services reach the broker.
    pub fn url(&self) -> String {
        if self.proxies.is_empty() {
            return self.nats.urls();
        }
        let urls: Vec<String> = self.proxies.iter().map(Proxy::url).collect();
        urls.join(",")
    }

    /// Returns the proxy between the services and the broker.
    ///
    /// # Panics
    /// The deployment was not built with a proxy.
    pub fn proxy(&self) -> &Proxy {
        self.proxy_of(0)
    }

    /// Returns the proxy between the services and this server of several.
    ///
    /// # Panics
    /// The deployment was not built with proxies.
    pub fn proxy_of(&self, server: usize) -> &Proxy {
        let proxy = self.proxies.get(server);
        proxy.expect("a deployment that was built `proxied`")
    }

    /// Returns the store of pipeline definitions.
    pub fn pipelines(&self) -> &Pipelines {
        &self.pipelines
    }

    /// Makes the text of a pipeline file the current definition, and returns the pipeline's name.
    ///
    /// # Panics
    /// The definition is refused, or no broker answers for 30 s.
    pub async fn apply(&self, toml: &str) -> PipelineId {
        let pipeline = Pipeline::from_toml("test.toml", toml).unwrap_or_else(|e| panic!("{e}"));
        // An apply is safe to repeat, and a broker may be down at the moment.
        let what = format!("the definition of {}", pipeline.name);
        wait_for(&what, PATIENCE, async || {
            self.pipelines.apply(pipeline.clone()).await
        })
        .await;
        pipeline.name
    }

    /// Starts another service, as its own broker user if the deployment has accounts. Does not wait for the
    /// service to be ready.
    pub fn start_service(&mut self, service: ProcessBuilder) -> &mut Process {
        let label = service.name().to_owned();
        assert!(
            self.services.iter().all(|s| s.label() != label),
            "two services are called {label}: give one another label"
        );
        let shared = self.env.iter().rev();
        let service = shared.fold(service, |s, (name, value)| s.env_default(name, value));
        let own = self.settings.iter().rev();
        let own = own.filter(|(program, ..)| program == service.program_name());
        let own: Vec<(String, String)> = own
            .map(|(_, name, value)| (name.clone(), value.clone()))
            .collect();
        let service = own
            .iter()
            .fold(service, |s, (name, value)| s.env_default(name, value));
        self.admit(&service);
        let service = self.signed(service);
        let service = service
            .env_default("PUSH0_NATS__URL", &self.url())
            .env_default("PUSH0_HTTP__LISTEN", "127.0.0.1:0")
            .env_default("PUSH0_TELEMETRY__LOG", "info");
        self.services.push(service.start());
        self.services.last_mut().expect("just pushed")
    }

    /// Waits until all running services are ready.
    ///
    /// # Panics
    /// A service is not ready within 30 s.
    pub async fn ready(&self) {
        for service in self.services.iter().filter(|s| s.is_running()) {
            service.ready(PATIENCE).await;
        }
    }

    /// Returns the service with this label.
    ///
    /// # Panics
    /// No service has this label.
    pub fn service(&self, label: &str) -> &Process {
        let found = self.services.iter().find(|s| s.label() == label);
        found.unwrap_or_else(|| panic!("no service is called {label}"))
    }

    /// Returns the service with this label, to restart it.
    ///
    /// # Panics
    /// No service has this label.
    pub fn service_mut(&mut self, label: &str) -> &mut Process {
        let found = self.services.iter_mut().find(|s| s.label() == label);
        found.unwrap_or_else(|| panic!("no service is called {label}"))
    }

    /// Opens another connection to the broker, like that of another process.
    pub async fn another_bus(&self) -> Bus {
        self.bus_as(TEST).await
    }

    /// Opens a connection as this user of the shipped accounts, or without a user if there
    /// are no accounts.
    pub async fn bus_as(&self, user: &str) -> Bus {
        connect(&self.nats.urls(), user, self.seed(user)).await
    }

    /// Lets the broker refuse operations in this test, because the test provokes refusals.
    pub fn expect_refusals(&self) {
        self.refusals_expected.store(true, Ordering::Relaxed);
    }

    /// Revokes a prover, verifier, fleet or replica, and has the brokers take it over.
    ///
    /// # Panics
    /// The deployment has no accounts, or there is no such name.
    pub fn revoke(&mut self, name: &str) {
        let accounts = self.accounts.as_ref().expect("a deployment with accounts");
        accounts.revoke(name);
        self.nats.servers_mut().iter_mut().for_each(NatsServer::reload);
    }

    /// Returns the file with the book of keys, as `push0 auth` writes it.
    ///
    /// # Panics
    /// The deployment has no accounts.
    pub fn accounts_file(&self) -> PathBuf {
        let accounts = self.accounts.as_ref().expect("a deployment with accounts");
        accounts.public().join("accounts.json")
    }

    /// Returns the file with this user's seed, for `nats.nkey_seed`; `None` if the deployment has no accounts,
    /// so that every client may do everything.
    pub fn seed(&self, user: &str) -> Option<PathBuf> {
        self.accounts.as_ref().map(|accounts| accounts.seed(user))
    }
}

async fn connect(urls: &str, name: &str, nkey_seed: Option<PathBuf>) -> Bus {
    let config = NatsConfig {
        url: urls.into(),
        nkey_seed,
        ..NatsConfig::default()
    };
    let bus = Bus::connect(&config, name).await;
    let bus = bus.expect("the broker's URL is valid");
    let connected = tokio::time::timeout(PATIENCE, bus.connected()).await;
    connected.unwrap_or_else(|_| panic!("{name} gets no connection to {urls}"));
    bus
}
