//! The parts of a deployment and how they are started.

use super::{Deployment, PATIENCE, connect, shipped};
use crate::{
    Brokers, NatsCluster, NatsOptions, Process, ProcessBuilder, Proxy,
    accounts::{Accounts, TEST, User},
    cluster::Broker,
    wait_for,
};
use push0_bus::{Limits, Pipelines};
use push0_domain::message::Role;
use std::sync::{Arc, atomic::AtomicBool};

/// A deployment to start: broker, limits, pipelines and services.
#[derive(Clone, Debug)]
pub struct DeploymentBuilder {
    options: NatsOptions,
    limits: Limits,
    pipelines: Vec<String>,
    services: Vec<ProcessBuilder>,
    env: Vec<(String, String)>,
    settings: Vec<(String, String, String)>,
    proxied: bool,
    shipped: bool,
    accounts: bool,
    /// Users of the broker from the start, in addition to those of the services.
    users: Vec<User>,
}

impl DeploymentBuilder {
    pub(super) fn new() -> Self {
        Self {
            options: NatsOptions::default(),
            limits: Limits {
                store_bytes: 1 << 30,
                ..Limits::default()
            },
            pipelines: Vec::new(),
            services: Vec::new(),
            env: Vec::new(),
            settings: Vec::new(),
            proxied: false,
            shipped: false,
            accounts: false,
            users: Vec::new(),
        }
    }

    /// Runs two of every control service, as `deploy/` does, labelled `dispatcher-1`, `dispatcher-2` and so
    /// on, with [the shipped settings](Self::shipped_settings). The test fails if the broker refuses
    /// anything, or if a control service, gateway or enroller exceeds [`MEMORY_MAX_MB`](crate::MEMORY_MAX_MB).
    #[must_use]
    pub fn as_shipped(mut self) -> Self {
        for program in shipped::CONTROL {
            for n in 1..=2 {
                let service = Process::program(program).label(&format!("{program}-{n}"));
                self.services.push(service);
            }
        }
        self.shipped_settings()
    }

    /// Applies the broker configuration and users of `deploy/nats`, with each process as its own user, logs
    /// as JSON, and traces sent to an address without answers. Adds no services.
    #[must_use]
    pub fn shipped_settings(mut self) -> Self {
        self.shipped = true;
        self.with_accounts()
    }

    /// Applies the broker configuration and users of `deploy/nats`, with each process as its own user. Provers then sign
    /// their results.
    #[must_use]
    pub fn with_accounts(mut self) -> Self {
        self.accounts = true;
        self
    }

    /// Adds a prover or verifier as a user of the broker, without a process.
    #[must_use]
    pub fn member(mut self, name: &str, role: Role, zkvm: &str) -> Self {
        self.users.push(User {
            name: name.into(),
            role,
            zkvm: zkvm.into(),
            fleet: false,
        });
        self
    }

    /// Adds a fleet of provers, whose replicas enrol by the seed of this name ([`Deployment::seed`]). The deployment needs
    /// the service `enroller`.
    #[must_use]
    pub fn fleet(mut self, name: &str, zkvm: &str) -> Self {
        self.users.push(User {
            name: name.into(),
            role: Role::Prover,
            zkvm: zkvm.into(),
            fleet: true,
        });
        self
    }

    /// Sets the broker's configuration.
    #[must_use]
    pub fn nats(mut self, options: NatsOptions) -> Self {
        self.options = options;
        self
    }

    /// Sets storage limits; the default is 1 GiB. A cluster keeps a copy on each server
    /// regardless of `limits`.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Adds a pipeline, as the text of its file.
    #[must_use]
    pub fn pipeline(mut self, toml: &str) -> Self {
        self.pipelines.push(toml.into());
        self
    }

    /// Adds a service, such as `Process::program("dispatcher")`. The service gets the broker's URL and a free
    /// port for its health and metrics unless the service sets its own.
    #[must_use]
    pub fn service(mut self, service: ProcessBuilder) -> Self {
        self.services.push(service);
        self
    }

    /// Sets a variable for every service.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.push((name.into(), value.to_string()));
        self
    }

    /// Sets a variable for every process of this program.
    #[must_use]
    pub fn env_of(mut self, program: &str, name: &str, value: impl ToString) -> Self {
        self.settings
            .push((program.into(), name.into(), value.to_string()));
        self
    }

    /// Routes all services to each broker through a proxy that can delay and cut. The test's own connection
    /// bypasses the proxies. The brokers of a cluster then advertise no addresses to clients.
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Starts the broker, provisions its streams, applies the pipelines and starts the services. Returns when
    /// all services are ready.
    ///
    /// # Panics
    /// Any of these steps fails.
    pub async fn start(mut self) -> Deployment {
        // A proxy stands before one broker.
        let brokers = if self.proxied { 1 } else { Brokers::asked_for() };
        self.limits.replicas = brokers;
        let (accounts, options) = self.broker();
        let nats = Brokers::start(brokers, &options).await;
        self.start_on(nats, accounts).await
    }

    /// Starts like [`Self::start`], on one or three brokers with as many copies of everything.
    ///
    /// # Panics
    /// Any step of the start fails.
    pub async fn start_cluster(mut self, brokers: usize) -> Deployment<NatsCluster> {
        self.limits.replicas = brokers;
        let (accounts, options) = self.broker();
        let nats = NatsCluster::start_with(brokers, &options).await;
        self.start_on(nats, accounts).await
    }

    /// Starts like [`Self::start_cluster`], but each broker can be cut off from its peers and from clients.
    ///
    /// # Panics
    /// Any step of the start fails.
    pub async fn start_wired(mut self, brokers: usize) -> Deployment<NatsCluster> {
        self.limits.replicas = brokers;
        let (accounts, options) = self.broker();
        let nats = NatsCluster::wired(brokers, &options).await;
        self.start_on(nats, accounts).await
    }

    fn broker(&self) -> (Option<Arc<Accounts>>, NatsOptions) {
        let mut options = self.options.clone();
        let accounts = self.accounts.then(|| Arc::new(Accounts::draw()));
        if let Some(accounts) = &accounts {
            let of_services: Vec<User> = self.services.iter().filter_map(shipped::user_of).collect();
            for user in self.users.iter().chain(&of_services) {
                accounts.add(user);
            }
            options = options.with_accounts(accounts.clone());
        }
        (accounts, if self.proxied { options.hidden() } else { options })
    }

    async fn start_on<B: Broker>(mut self, nats: B, accounts: Option<Arc<Accounts>>) -> Deployment<B> {
        let urls = nats.urls();
        let connect_as = async |user: &str| {
            let seed = accounts.as_ref().map(|accounts| accounts.seed(user));
            connect(&urls, user, seed).await
        };
        let provision = connect_as("provision").await;
        // Provisioning is safe to repeat; brokers answer late while they form a cluster.
        wait_for("the streams", PATIENCE, async || {
            provision.provision(&self.limits).await
        })
        .await;
        let pipelines = Pipelines::bind(&connect_as("operator").await).await;
        let nobody = self.shipped.then(|| {
            // The system accepts connections until its queue is full, and their data is never read.
            std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port")
        });
        if let Some(nobody) = &nobody {
            let address = nobody.local_addr().expect("it is bound");
            self.env.splice(0..0, shipped::environment(address));
            self.settings.splice(0..0, shipped::settings());
        }
        let servers = nats.servers().iter().filter(|_| self.proxied);
        let mut deployment = Deployment {
            services: Vec::new(),
            env: self.env,
            settings: self.settings,
            pipelines: pipelines.expect("the definitions are bound"),
            bus: connect_as(TEST).await,
            proxies: servers.map(|server| Proxy::to(&server.url())).collect(),
            accounts: accounts.clone(),
            refusals_expected: AtomicBool::new(false),
            _nobody: nobody,
            nats,
        };
        for toml in &self.pipelines {
            deployment.apply(toml).await;
        }
        for service in self.services {
            deployment.start_service(service);
        }
        deployment.ready().await;
        deployment
    }
}
