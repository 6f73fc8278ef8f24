//! A cluster of brokers, each in its own process.

use crate::{
    NatsOptions, NatsServer,
    nats::{START, TRIES, free_port},
    wait_for,
    wires::Wires,
};

/// Several servers with copies of everything, for tests in which a server is lost. A cluster of size 1 is a
/// single server, so a test can run on either.
#[derive(Debug)]
pub struct NatsCluster {
    pub(crate) servers: Vec<NatsServer>,
    /// Proxies that can cut connections; `None` if servers and clients connect directly.
    pub(crate) wires: Option<Wires>,
}

impl NatsCluster {
    /// Starts `size` servers with routes to one another, and waits until JetStream has a leader.
    ///
    /// # Panics
    /// The servers do not start or do not agree on a leader.
    pub async fn start(size: usize) -> Self {
        Self::start_with(size, &NatsOptions::default()).await
    }

    /// Starts `size` servers like [`Self::start`], with these options.
    ///
    /// # Panics
    /// The servers do not start or do not agree on a leader.
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

    /// Returns the URLs of all servers, for `nats.url`.
    pub fn url(&self) -> String {
        let urls: Vec<String> = match &self.wires {
            None => self.servers.iter().map(NatsServer::url).collect(),
            Some(wires) => (0..self.servers.len()).map(|at| wires.url(at)).collect(),
        };
        urls.join(",")
    }

    /// Returns server `index`.
    pub fn server(&self, index: usize) -> &NatsServer {
        &self.servers[index]
    }

    /// Returns server `index`, to stop and restart.
    pub fn server_mut(&mut self, index: usize) -> &mut NatsServer {
        &mut self.servers[index]
    }

    /// Returns the number of servers, running or not.
    pub fn size(&self) -> usize {
        self.servers.len()
    }

    /// Kills server `index` with SIGKILL.
    pub fn kill(&mut self, index: usize) {
        self.servers[index].kill();
    }

    /// Starts server `index` again, and waits until the server has caught up with the others. Until then the
    /// server has no streams, and reports none to its clients.
    ///
    /// # Panics
    /// The server does not start, or does not catch up within 20 s.
    pub async fn restart(&mut self, index: usize) {
        self.servers[index].restart().await;
        self.catches_up(index).await;
    }

    /// Waits until server `index` has caught up with the others after an absence.
    ///
    /// # Panics
    /// The server does not catch up within 20 s.
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

    /// Returns the server that leads JetStream itself, as soon as all running servers agree on
    /// a running leader.
    ///
    /// # Panics
    /// The servers do not agree within 20 s.
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

    /// Returns the server that leads a stream (its name on the broker), as soon as all running servers agree
    /// on a running leader.
    ///
    /// # Panics
    /// No leader is agreed on within 20 s.
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

    /// Returns the running server named as leader by all running servers, or all given names as the error.
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

/// One or several servers under a deployment.
pub trait Broker {
    /// Returns the URLs of all servers, for `nats.url`.
    fn urls(&self) -> String;

    /// Returns all servers, running or not.
    fn servers(&self) -> &[NatsServer];

    /// Returns all servers, running or not, to change them.
    fn servers_mut(&mut self) -> &mut [NatsServer];
}

impl Broker for NatsServer {
    fn urls(&self) -> String {
        self.url()
    }

    fn servers(&self) -> &[NatsServer] {
        std::slice::from_ref(self)
    }

    fn servers_mut(&mut self) -> &mut [NatsServer] {
        std::slice::from_mut(self)
    }
}

impl Broker for NatsCluster {
    fn urls(&self) -> String {
        self.url()
    }

    fn servers(&self) -> &[NatsServer] {
        &self.servers
    }

    fn servers_mut(&mut self) -> &mut [NatsServer] {
        &mut self.servers
    }
}
