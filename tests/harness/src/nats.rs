//! nats-server as a process: alone, and three as a cluster.
//!
//! Ports are drawn below the range from which the system gives ports to outgoing connections. A
//! server keeps its port when it is restarted; were that port in the system's range, any connection
//! of any process could take it in the meantime, a client's own attempt to reconnect included.
//! Whether a server got its port is known by its ports file, which it writes when it is ready.

use crate::{
    child::{self, Child, Spec},
    wait, wait_for,
    wires::Wires,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    fmt::Write,
    net::TcpListener,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

/// Below the usual `ip_local_port_range` (32768 and up), above what daemons use by default.
const PORTS: Range<u16> = 12_000..32_000;
/// How long a server may take until it is ready; restarts read the store first.
const START: Duration = Duration::from_secs(20);
/// How many times another port is tried when somebody else was faster.
pub(crate) const TRIES: usize = 5;

/// How a server is configured.
#[derive(Clone, Debug, Default)]
pub struct NatsOptions {
    store_limit: Option<u64>,
    sync_always: bool,
    extra: String,
}

impl NatsOptions {
    /// The most that JetStream may store, in bytes; 16 GiB unless said.
    #[must_use]
    pub fn with_store_limit(mut self, bytes: u64) -> Self {
        self.store_limit = Some(bytes);
        self
    }

    /// Every write is synced before it is acknowledged, as against power loss.
    #[must_use]
    pub fn sync_always(mut self) -> Self {
        self.sync_always = true;
        self
    }

    /// More lines for the configuration file: users, TLS, limits.
    #[must_use]
    pub fn with_config(mut self, lines: &str) -> Self {
        self.extra.push_str(lines);
        self.extra.push('\n');
        self
    }

    /// Starts a server.
    ///
    /// # Panics
    /// nats-server is not installed or does not start.
    pub async fn start(self) -> NatsServer {
        for _ in 0..TRIES {
            let mut server = NatsServer::prepare("push0-test", free_port(), &self, "");
            if server.launch().await {
                return server;
            }
        }
        panic!("nats-server found no free port in {TRIES} tries");
    }
}

/// A nats-server with JetStream on a free loopback port, with a store of its own. When dropped it
/// is killed and the store deleted.
#[derive(Debug)]
pub struct NatsServer {
    child: Option<Child>,
    port: u16,
    folder: TempDir,
    monitor_url: String,
}

impl NatsServer {
    /// Starts one with the default options.
    ///
    /// # Panics
    /// nats-server is not installed or does not start.
    pub async fn start() -> Self {
        NatsOptions::default().start().await
    }

    /// Options to start one with.
    pub fn options() -> NatsOptions {
        NatsOptions::default()
    }

    pub(crate) fn prepare(name: &str, port: u16, options: &NatsOptions, cluster: &str) -> Self {
        let folder = TempDir::new().expect("a temporary directory");
        let limit = options.store_limit.unwrap_or(16 << 30);
        let place = folder.path().display();
        let mut config = format!(
            "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:-1\"\n\
             ports_file_dir: \"{place}\"\njetstream {{\n  store_dir: \"{place}/store\"\n  max_file_store: {limit}\n"
        );
        if options.sync_always {
            config.push_str("  sync_interval: always\n");
        }
        let _ = writeln!(config, "}}\n{cluster}{}", options.extra);
        std::fs::write(folder.path().join("nats.conf"), config).expect("the configuration is written");
        Self {
            child: None,
            port,
            folder,
            monitor_url: String::new(),
        }
    }

    /// Starts the process; false if somebody else has the port.
    pub(crate) async fn launch(&mut self) -> bool {
        let spec = Spec {
            program: child::tool("NATS_SERVER", "nats-server"),
            args: vec!["-c".into(), self.folder.path().join("nats.conf").into()],
            env: Vec::new(),
            log: self.folder.path().join("log"),
        };
        let _ = std::fs::remove_file(&spec.log);
        let child = Child::spawn(&spec).unwrap_or_else(|e| panic!("{}: {e}", spec.program.display()));
        let ready = async || match ports_file(self.folder.path(), child.pid()) {
            Some(ports) => Some(Some(ports)),
            None => child.exited().map(|_| None),
        };
        match wait::look(START, ready).await {
            Ok(Some(ports)) => {
                self.monitor_url = ports["monitoring"][0].as_str().unwrap_or_default().to_owned();
                self.child = Some(child);
                true
            }
            Ok(None) if child.log().contains("address already in use") => false,
            _ => panic!("nats-server does not start; its log ends:\n{}", child.tail()),
        }
    }

    /// Its URL, for `nats.url`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its process id; 0 while it is down.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::pid)
    }

    /// The URL of its monitoring endpoint.
    pub fn monitor_url(&self) -> &str {
        &self.monitor_url
    }

    /// The end of its log since it was last started.
    pub fn log_tail(&self) -> String {
        self.child.as_ref().map(Child::tail).unwrap_or_default()
    }

    /// Asks its monitoring endpoint, for example `/jsz?streams=true`.
    ///
    /// # Panics
    /// It does not answer.
    pub async fn monitor(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.monitor_url);
        let answer = async { reqwest::get(&url).await?.json().await };
        answer
            .await
            .unwrap_or_else(|e: reqwest::Error| panic!("{url}: {e}"))
    }

    /// SIGKILL, and waits until it is gone. The store stays.
    pub fn kill(&mut self) {
        self.child = None;
    }

    /// SIGTERM, and waits until it has ended in order. The store stays.
    pub async fn stop(&mut self) {
        if let Some(child) = self.child.take() {
            child.signal(Signal::SIGTERM);
            let ended = child.ended(START).await;
            assert!(ended.is_some(), "nats-server ignores SIGTERM");
        }
    }

    /// Kills it if it runs, and starts it on the same port and store. Returns when it is ready.
    ///
    /// # Panics
    /// It does not start.
    pub async fn restart(&mut self) {
        self.kill();
        assert!(
            self.launch().await,
            "another process took the broker's port {}",
            self.port
        );
    }

    /// SIGSTOP: connections stay open and nothing is answered.
    pub fn pause(&self) {
        if let Some(child) = &self.child {
            child.signal(Signal::SIGSTOP);
        }
    }

    /// SIGCONT.
    pub fn resume(&self) {
        if let Some(child) = &self.child {
            child.signal(Signal::SIGCONT);
        }
    }
}

/// Three servers that keep three copies of everything: for what must survive the loss of one.
#[derive(Debug)]
pub struct NatsCluster {
    pub(crate) servers: Vec<NatsServer>,
    /// What cuts them off; none if they talk to each other directly.
    pub(crate) wires: Option<Wires>,
}

/// How `deploy/nats/cluster.conf` has servers notice that one of them is gone.
pub(crate) const CLUSTER_PINGS: &str = "  ping_interval: \"500ms\"\n  ping_max: 2\n";

impl NatsCluster {
    /// Starts `size` servers with routes to one another, and waits until JetStream has a leader.
    ///
    /// # Panics
    /// They do not start or do not agree on a leader.
    pub async fn start(size: usize) -> Self {
        for _ in 0..TRIES {
            if let Some(servers) = Self::try_start(size).await {
                let cluster = Self { servers, wires: None };
                cluster.meta_leader().await;
                return cluster;
            }
        }
        panic!("nats-server found no free ports in {TRIES} tries");
    }

    async fn try_start(size: usize) -> Option<Vec<NatsServer>> {
        let routes: Vec<u16> = (0..size).map(|_| free_port()).collect();
        let urls: Vec<String> = routes
            .iter()
            .map(|port| format!("\"nats://127.0.0.1:{port}\""))
            .collect();
        let mut servers = Vec::new();
        for (at, port) in routes.iter().enumerate() {
            let cluster = format!(
                "cluster {{\n  name: push0-test\n  listen: \"127.0.0.1:{port}\"\n  routes: [{}]\n{CLUSTER_PINGS}}}\n",
                urls.join(", ")
            );
            let mut server =
                NatsServer::prepare(&format!("n{at}"), free_port(), &NatsOptions::default(), &cluster);
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
        for server in self.servers.iter().filter(|s| s.child.is_some()) {
            named.push(ask(server).await.unwrap_or_else(|| "nobody".into()));
        }
        let leader = named
            .first()
            .and_then(|name| name.strip_prefix('n')?.parse::<usize>().ok());
        match leader {
            Some(at) if named.iter().all(|n| *n == named[0]) && self.servers[at].child.is_some() => Ok(at),
            _ => Err(named),
        }
    }
}

/// The ports file of the server with this pid, once it is complete.
fn ports_file(folder: &Path, pid: u32) -> Option<Value> {
    let ending = format!("_{pid}.ports");
    let path: PathBuf = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.to_string_lossy().ends_with(&ending))?;
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

pub(crate) fn free_port() -> u16 {
    loop {
        let port = rand::random_range(PORTS);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
