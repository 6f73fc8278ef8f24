//! Three brokers as a cluster, each a process.

use crate::{
    NatsOptions, NatsServer,
    nats::{START, TRIES, free_port},
    wait_for,
    wires::Wires,
};

/// Several servers that keep copies of everything, for what must survive the loss of one; or a single one,
/// where a test runs on either.
#[derive(Debug)]
pub struct NatsCluster {
    pub(crate) servers: Vec<NatsServer>,
    /// What cuts them off; none if they talk to each other directly.
    pub(crate) wires: Option<Wires>,
}

impl NatsCluster {
    /// Starts `size` servers with routes to one another, and waits until JetStream has a leader.
    ///
    /// # Panics
    /// They do not start or do not agree on a leader.
    pub async fn start(size: usize) -> Self {
        Self::start_with(size, &NatsOptions::default()).await
    }

    /// The same with these options.
    ///
    /// # Panics
    /// They do not start or do not agree on a leader.
    pub async fn start_with(size: usize, options: &NatsOptions) -> Self {
        if size == 1 {
            let servers = vec![options.clone().start().await];
            return Self { servers, wires: None };
        }
        for _ in 0..TRIES {
            if let Some(servers) = Self::try_start(size, options).await {
                let cluster = Self { servers, wires: None };
                cluster.meta_leader().await;
                return cluster;
            }
        }
        panic!("nats-server found no free ports in {TRIES} tries");
    }

    async fn try_start(size: usize, options: &NatsOptions) -> Option<Vec<NatsServer>> {
        let routes: Vec<u16> = (0..size).map(|_| free_port()).collect();
        let urls: Vec<String> = routes
            .iter()
            .map(|port| format!("\"nats://127.0.0.1:{port}\""))
            .collect();
        let mut servers = Vec::new();
        for (at, port) in routes.iter().enumerate() {
            let routes = Some((*port, &urls[..]));
            let mut server = NatsServer::prepare(&format!("n{at}"), free_port(), options, routes);
            if !server.launch().await {
                return None;
            }
            servers.push(server);
        }
        Some(servers)
    }

    /// The URLs of all servers, for `nats.url`.
    pub fn url(&self) -> String {
        let urls: Vec<String> = match &self.wires {
            None => self.servers.iter().map(NatsServer::url).collect(),
            Some(wires) => (0..self.servers.len()).map(|at| wires.url(at)).collect(),
        };
        urls.join(",")
    }

    /// Server `index`.
    pub fn server(&self, index: usize) -> &NatsServer {
        &self.servers[index]
    }

    /// Server `index`, to stop and restart.
    pub fn server_mut(&mut self, index: usize) -> &mut NatsServer {
        &mut self.servers[index]
    }

    /// How many servers there are, whether they run or not.
    pub fn size(&self) -> usize {
        self.servers.len()
    }

    /// SIGKILL to server `index`.
    pub fn kill(&mut self, index: usize) {
        self.servers[index].kill();
    }

    /// Starts server `index` again, and waits until it has caught up with the others: until then it has no
    /// streams, and says so to the clients that are connected to it.
    ///
    /// # Panics
    /// It does not start, or does not catch up within 20 s.
    pub async fn restart(&mut self, index: usize) {
        self.servers[index].restart().await;
        self.catches_up(index).await;
    }

    /// Waits until server `index` has what the others have, after it was away.
    ///
    /// # Panics
    /// It does not catch up within 20 s.
    pub async fn catches_up(&self, index: usize) {
        let server = &self.servers[index];
        wait_for("a server that has caught up", START, async || {
            let health = server.monitor("/healthz").await;
            if health["status"] == "ok" {
                Ok(())
            } else {
                Err(health)
            }
        })
        .await;
    }

    /// The server that leads JetStream itself, as soon as the live ones agree on one that lives.
    ///
    /// # Panics
    /// They do not within 20 s.
    pub async fn meta_leader(&self) -> usize {
        wait_for("a leader of JetStream", START, async || {
            self.agreed(async |server: &NatsServer| {
                let seen = server.monitor("/jsz").await;
                seen["meta_cluster"]["leader"].as_str().map(str::to_owned)
            })
            .await
        })
        .await
    }

    /// The server that leads a stream (its name on the broker), as soon as there is one that lives.
    ///
    /// # Panics
    /// There is none within 20 s.
    pub async fn leader_of(&self, stream: &str) -> usize {
        wait_for(&format!("a leader of {stream}"), START, async || {
            self.agreed(async |server: &NatsServer| {
                let seen = server.monitor("/jsz?streams=true").await;
                let accounts = seen["account_details"].as_array()?;
                let streams = accounts
                    .iter()
                    .filter_map(|a| a["stream_detail"].as_array())
                    .flatten();
                let found = streams.into_iter().find(|s| s["name"] == stream)?;
                found["cluster"]["leader"].as_str().map(str::to_owned)
            })
            .await
        })
        .await
    }

    /// The live server that all live servers name; what they name instead as the error.
    async fn agreed(&self, ask: impl AsyncFn(&NatsServer) -> Option<String>) -> Result<usize, Vec<String>> {
        let mut named = Vec::new();
        for server in self.servers.iter().filter(|s| s.is_running()) {
            named.push(ask(server).await.unwrap_or_else(|| "nobody".into()));
        }
        let leader = named
            .first()
            .and_then(|name| name.strip_prefix('n')?.parse::<usize>().ok());
        match leader {
            Some(at) if named.iter().all(|n| *n == named[0]) && self.servers[at].is_running() => Ok(at),
            _ => Err(named),
        }
    }
}

/// One server or several, on which a deployment stands.
pub trait Broker {
    /// The URLs of all servers, for `nats.url`.
    fn urls(&self) -> String;

    /// All servers, whether they run or not.
    fn servers(&self) -> &[NatsServer];
}

impl Broker for NatsServer {
    fn urls(&self) -> String {
        self.url()
    }

    fn servers(&self) -> &[NatsServer] {
        std::slice::from_ref(self)
    }
}

impl Broker for NatsCluster {
    fn urls(&self) -> String {
        self.url()
    }

    fn servers(&self) -> &[NatsServer] {
        &self.servers
    }
}
