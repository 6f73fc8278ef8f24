//! A whole deployment for one test: a broker, its streams, pipelines and services.

use crate::{NatsOptions, NatsServer, Process, ProcessBuilder, Proxy, blocks, wait_for};
use futures::{StreamExt, TryStreamExt};
use push0_bus::{Bucket, Bus, Kept, Limits, Message, NatsConfig, Pipelines, Stream};
use push0_domain::{
    Payload, PipelineId,
    message::{BlockEvent, BlockFacts, Emission, KnownBlock, ObservedBlock},
    pipeline::Pipeline,
    subject,
};
use std::{ops::RangeInclusive, time::Duration};

/// How long a service may take to become ready, and a publish to be stored.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many facts about blocks are written at once.
const FACTS_IN_FLIGHT: usize = 64;

/// What to deploy.
#[derive(Clone, Debug)]
pub struct DeploymentBuilder {
    options: NatsOptions,
    limits: Limits,
    pipelines: Vec<String>,
    services: Vec<ProcessBuilder>,
    env: Vec<(String, String)>,
    proxied: bool,
}

impl DeploymentBuilder {
    /// How the broker is configured.
    #[must_use]
    pub fn nats(mut self, options: NatsOptions) -> Self {
        self.options = options;
        self
    }

    /// How much may be stored: 1 GiB unless said.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// A pipeline, as the text of its file.
    #[must_use]
    pub fn pipeline(mut self, toml: &str) -> Self {
        self.pipelines.push(toml.into());
        self
    }

    /// A service: `Process::program("dispatcher")`. It gets the broker's URL and a free port for its
    /// health and metrics unless it sets its own.
    #[must_use]
    pub fn service(mut self, service: ProcessBuilder) -> Self {
        self.services.push(service);
        self
    }

    /// A variable for every service.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.push((name.into(), value.to_string()));
        self
    }

    /// All services reach the broker through one proxy, which can delay and cut; the test's own
    /// connection does not.
    #[must_use]
    pub fn proxied(mut self) -> Self {
        self.proxied = true;
        self
    }

    /// Starts the broker, provisions it, applies the pipelines and starts the services; returns when
    /// all of them are ready.
    ///
    /// # Panics
    /// Any of it fails.
    pub async fn start(self) -> Deployment {
        let nats = self.options.clone().start().await;
        let url = nats.url();
        self.start_on(nats, &url).await
    }

    /// The same on a broker that runs already: these servers.
    ///
    /// # Panics
    /// Any of it fails.
    pub async fn start_on<B>(self, nats: B, urls: &str) -> Deployment<B> {
        let bus = connect(urls, "test").await;
        bus.provision(&self.limits)
            .await
            .expect("the streams are provisioned");
        let pipelines = Pipelines::bind(&bus).await.expect("the definitions are bound");
        let mut deployment = Deployment {
            services: Vec::new(),
            env: self.env,
            pipelines,
            bus,
            proxy: self.proxied.then(|| Proxy::to(urls)),
            urls: urls.to_owned(),
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

/// A running deployment: its broker, the test's own connection to it, and the services by label.
pub struct Deployment<B = NatsServer> {
    // Declared before the broker, so that services end first and log no lost connections.
    services: Vec<Process>,
    env: Vec<(String, String)>,
    pipelines: Pipelines,
    bus: Bus,
    proxy: Option<Proxy>,
    urls: String,
    /// The broker or the cluster, to kill, pause and restart.
    pub nats: B,
}

impl Deployment {
    /// What to deploy: nothing yet.
    pub fn builder() -> DeploymentBuilder {
        DeploymentBuilder {
            options: NatsOptions::default(),
            limits: Limits {
                store_bytes: 1 << 30,
                ..Limits::default()
            },
            pipelines: Vec::new(),
            services: Vec::new(),
            env: Vec::new(),
            proxied: false,
        }
    }
}

impl<B> Deployment<B> {
    /// The test's own connection.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Where the services reach the broker.
    pub fn url(&self) -> String {
        self.proxy.as_ref().map_or_else(|| self.urls.clone(), Proxy::url)
    }

    /// The proxy between the services and the broker.
    ///
    /// # Panics
    /// The deployment was not built with one.
    pub fn proxy(&self) -> &Proxy {
        let proxy = self.proxy.as_ref();
        proxy.expect("a deployment that was built `proxied`")
    }

    /// The definitions of pipelines.
    pub fn pipelines(&self) -> &Pipelines {
        &self.pipelines
    }

    /// Makes a pipeline file's text the current definition; returns its name.
    ///
    /// # Panics
    /// It is refused.
    pub async fn apply(&self, toml: &str) -> PipelineId {
        let pipeline = Pipeline::from_toml("test.toml", toml).unwrap_or_else(|e| panic!("{e}"));
        let name = pipeline.name.clone();
        self.pipelines
            .apply(pipeline)
            .await
            .expect("the pipeline is applied");
        name
    }

    /// Starts one more service. Does not wait until it is ready.
    pub fn start_service(&mut self, service: ProcessBuilder) -> &mut Process {
        let label = service.name().to_owned();
        assert!(
            self.services.iter().all(|s| s.label() != label),
            "two services are called {label}: give one another label"
        );
        let url = self.url();
        let shared = self.env.iter().rev();
        let service = shared.fold(service, |s, (name, value)| s.env_default(name, value));
        let service = service
            .env_default("PUSH0_NATS__URL", &url)
            .env_default("PUSH0_HTTP__LISTEN", "127.0.0.1:0")
            .env_default("PUSH0_TELEMETRY__LOG", "info");
        self.services.push(service.start());
        self.services.last_mut().expect("just pushed")
    }

    /// Waits until all services that run are ready.
    ///
    /// # Panics
    /// One of them is not within 30 s.
    pub async fn ready(&self) {
        for service in self.services.iter().filter(|s| s.is_running()) {
            service.ready(PATIENCE).await;
        }
    }

    /// The service of this label.
    ///
    /// # Panics
    /// There is none.
    pub fn service(&self, label: &str) -> &Process {
        let found = self.services.iter().find(|s| s.label() == label);
        found.unwrap_or_else(|| panic!("no service is called {label}"))
    }

    /// The service of this label, to restart it.
    ///
    /// # Panics
    /// There is none.
    pub fn service_mut(&mut self, label: &str) -> &mut Process {
        let found = self.services.iter_mut().find(|s| s.label() == label);
        found.unwrap_or_else(|| panic!("no service is called {label}"))
    }

    /// Another connection to the broker, as another process would have.
    pub async fn another_bus(&self) -> Bus {
        connect(&self.urls, "test").await
    }

    /// Publishes synthetic blocks, as an external ingester would: first what is known of each, then
    /// the block itself, in ascending order. The witness is the block's number as JSON.
    ///
    /// # Panics
    /// The pipeline was not applied, or the broker does not store them.
    pub async fn submit_blocks(&self, pipeline: &PipelineId, numbers: RangeInclusive<u64>) {
        let current = self.pipelines.current().await.expect("the definitions are read");
        let definition = current.iter().find(|p| p.name == *pipeline);
        let definition = definition.unwrap_or_else(|| panic!("no pipeline is called {pipeline}"));
        let blocks: Vec<ObservedBlock> = numbers.map(|number| observed(definition, number)).collect();
        let known = self
            .bus
            .facts::<KnownBlock>(Bucket::Blocks)
            .await
            .expect("a bucket");
        futures::stream::iter(&blocks)
            .map(|block| {
                let (known, key) = (&known, subject::known_block(pipeline, &block.block));
                async move { known.put(&key, &fact_of(block)).await }
            })
            .buffer_unordered(FACTS_IN_FLIGHT)
            .try_collect::<Vec<u64>>()
            .await
            .expect("the facts are stored");
        for block in blocks {
            let trace = blocks::synthetic_trace(pipeline, block.block.number);
            let event = BlockEvent::Observed(block);
            let message = Message::new(subject::block(pipeline), &event, &trace).expect("it can be written");
            let stored = self.bus.publish_patiently(message, PATIENCE).await;
            stored.expect("the block is stored");
        }
    }

    /// All that was emitted for a pipeline, in order.
    ///
    /// # Panics
    /// The broker does not answer.
    pub async fn emissions(&self, pipeline: &PipelineId) -> Vec<Kept<Emission>> {
        let subjects = subject::proofs_of_pipeline(pipeline);
        let found = self.bus.scan(Stream::Proofs, &subjects, 1, usize::MAX).await;
        found.expect("the proofs are read")
    }

    /// Waits until at least `count` records were emitted for a pipeline, and returns all.
    ///
    /// # Panics
    /// There are fewer after `timeout`.
    pub async fn wait_emitted(
        &self,
        pipeline: &PipelineId,
        count: usize,
        timeout: Duration,
    ) -> Vec<Kept<Emission>> {
        let subjects = subject::proofs_of_pipeline(pipeline);
        let what = format!("{count} emissions of {pipeline}");
        wait_for(&what, timeout, async || {
            // Counting is one question; reading is one per record, and only worth it at the end.
            let counted = self.bus.subjects(Stream::Proofs, &subjects).await;
            let there = counted.map_err(|e| e.to_string())?.len();
            if there >= count {
                Ok(())
            } else {
                Err(format!("{there} emissions"))
            }
        })
        .await;
        self.emissions(pipeline).await
    }
}

async fn connect(url: &str, name: &str) -> Bus {
    let config = NatsConfig {
        url: url.into(),
        ..NatsConfig::default()
    };
    let bus = Bus::connect(&config, name)
        .await
        .expect("the broker's URL is valid");
    bus.connected().await;
    bus
}

fn observed(pipeline: &Pipeline, number: u64) -> ObservedBlock {
    let observed_at = push0_bus::now();
    ObservedBlock {
        pipeline: pipeline.name.clone(),
        revision: pipeline.revision,
        block: blocks::synthetic_block(&pipeline.name, number),
        parent_hash: blocks::synthetic_hash(&pipeline.name, number.wrapping_sub(1)),
        input: Payload::Inline(number.to_string().into_bytes()),
        observed_at,
        deadline_at: pipeline.deadline_at(observed_at),
        facts: BlockFacts::default(),
    }
}

fn fact_of(block: &ObservedBlock) -> KnownBlock {
    KnownBlock {
        block: block.block,
        parent_hash: block.parent_hash,
        revision: block.revision,
        observed_at: block.observed_at,
        facts: block.facts,
    }
}
