//! nats-server as a process.
//!
//! Ports are drawn below the range from which the system assigns ports to outgoing connections. A server
//! keeps its port across restarts; a port in the system's range could be taken meanwhile by any
//! connection, even by a client's own attempt to reconnect. A server that got its port writes a ports file
//! when it is ready.

use crate::{
    accounts::{self, Accounts},
    child::{self, Child, Spec},
    shipped::{self, Place},
    wait,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    fmt::Write,
    net::TcpListener,
    ops::Range,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Below the usual `ip_local_port_range` (32768 and up), above the default ports of daemons.
const PORTS: Range<u16> = 12_000..32_000;
/// How long a server may take to become ready. A restarted server reads its store first.
pub(crate) const START: Duration = Duration::from_secs(20);
/// Number of ports tried when other processes keep taking the drawn port.
pub(crate) const TRIES: usize = 5;
/// How often a server is looked at that reloads or starts.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Number of characters shown of the log of a server that crashed.
const CRASH: usize = 8_000;

/// Configuration of a server.
#[derive(Clone, Debug, Default)]
pub struct NatsOptions {
    store_limit: Option<u64>,
    sync_always: bool,
    extra: String,
    /// Users for the shipped configuration; `None` selects the harness's own configuration without users.
    accounts: Option<Arc<Accounts>>,
    /// Whether the servers of a cluster hide one another's addresses from clients.
    hidden: bool,
    /// Whether the servers of a cluster hide their addresses from each other too.
    wired: bool,
}

impl NatsOptions {
    /// Sets the most that JetStream may store, in bytes. The default is 16 GiB.
    #[must_use]
    pub fn with_store_limit(mut self, bytes: u64) -> Self {
        self.store_limit = Some(bytes);
        self
    }

    /// Syncs every write to disk before acknowledging, as protection against power loss requires.
    #[must_use]
    pub fn sync_always(mut self) -> Self {
        self.sync_always = true;
        self
    }

    /// Adds lines to the configuration file: users, TLS, limits.
    #[must_use]
    pub fn with_config(mut self, lines: &str) -> Self {
        self.extra.push_str(lines);
        self.extra.push('\n');
        self
    }

    /// Selects the shipped configuration, with these users.
    #[must_use]
    pub(crate) fn with_accounts(mut self, accounts: Arc<Accounts>) -> Self {
        self.accounts = Some(accounts);
        self
    }

    /// Keeps the servers of a cluster from telling clients each other's addresses.
    #[must_use]
    pub(crate) fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// Restricts the servers of a cluster to their configured routes. Addresses learned from one another
    /// would bypass the proxies.
    #[must_use]
    pub(crate) fn wired(mut self) -> Self {
        (self.hidden, self.wired) = (true, true);
        self
    }

    /// Starts a server with these options.
    ///
    /// # Panics
    /// nats-server is not installed or does not start.
    pub async fn start(self) -> NatsServer {
        for _ in 0..TRIES {
            let mut server = NatsServer::prepare("push0-test", free_port(), &self, None);
            if server.launch().await {
                return server;
            }
        }
        panic!("nats-server found no free port in {TRIES} tries");
    }
}

/// A nats-server with JetStream on a free loopback port, with its own store. Dropping the value kills the
/// server and deletes the store.
#[derive(Debug)]
pub struct NatsServer {
    child: Option<Child>,
    port: u16,
    folder: TempDir,
    monitor_url: String,
}

impl NatsServer {
    /// Starts a server with the default options.
    ///
    /// # Panics
    /// nats-server is not installed or does not start.
    pub async fn start() -> Self {
        NatsOptions::default().start().await
    }

    /// Returns default options to adjust before the start.
    pub fn options() -> NatsOptions {
        NatsOptions::default()
    }

    /// Prepares a server without starting it; `routes` is the port for its peers and the URLs of all servers.
    pub(crate) fn prepare(
        name: &str,
        port: u16,
        options: &NatsOptions,
        routes: Option<(u16, &[String])>,
    ) -> Self {
        let folder = TempDir::new().expect("a temporary directory");
        let place = Place {
            name,
            port,
            folder: folder.path(),
            store_limit: options.store_limit.unwrap_or(16 << 30),
            routes,
        };
        let mut config = match &options.accounts {
            None => own_configuration(&place),
            Some(accounts) => {
                let link = folder.path().join(accounts::PUBLIC);
                std::os::unix::fs::symlink(accounts.public(), link).expect("the users are linked");
                shipped::configuration(&place)
            }
        };
        if options.sync_always {
            config = config.replacen("  store_dir:", "  sync_interval: always\n  store_dir:", 1);
        }
        // The shipped configuration sets `no_advertise` already.
        if options.hidden && options.accounts.is_none() {
            config = config.replacen("  routes:", "  no_advertise: true\n  routes:", 1);
        }
        if options.wired {
            // Port 9 is an address without a listener.
            config = config.replacen("  routes:", "  advertise: \"127.0.0.1:9\"\n  routes:", 1);
        }
        config.push_str(&options.extra);
        std::fs::write(folder.path().join("nats.conf"), config).expect("the configuration is written");
        Self {
            child: None,
            port,
            folder,
            monitor_url: String::new(),
        }
    }

    /// Starts the process; returns `false` if another process holds the port.
    pub(crate) async fn launch(&mut self) -> bool {
        let child = self.spawn();
        let ready = async || match ports_file(self.folder.path(), child.pid()) {
            Some(ports) => Some(Some(ports)),
            None => child.exited().map(|_| None),
        };
        match wait::look(START, ready).await {
            Ok(Some(ports)) => {
                self.serve(child, &ports);
                true
            }
            Ok(None) if child.log().contains("address already in use") => false,
            _ => panic!("nats-server does not start; its log ends:\n{}", child.tail()),
        }
    }

    fn spawn(&self) -> Child {
        let spec = Spec {
            program: child::tool("NATS_SERVER", "nats-server"),
            args: vec!["-c".into(), self.folder.path().join("nats.conf").into()],
            env: Vec::new(),
            log: self.log_file(),
        };
        Child::spawn(&spec).unwrap_or_else(|e| panic!("{}: {e}", spec.program.display()))
    }

    /// Takes a process that is ready.
    fn serve(&mut self, child: Child, ports: &Value) {
        self.monitor_url = ports["monitoring"][0].as_str().unwrap_or_default().to_owned();
        self.child = Some(child);
    }

    /// Returns the server's URL, for `nats.url`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Returns the process id; 0 while the server is down.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::pid)
    }

    /// Returns the URL of the monitoring endpoint.
    pub fn monitor_url(&self) -> &str {
        &self.monitor_url
    }

    /// Returns the end of the log.
    pub fn log_tail(&self) -> String {
        self.child.as_ref().map(Child::tail).unwrap_or_default()
    }

    /// Returns the log lines about operations that the server refused its clients, over all runs.
    pub fn refusals(&self) -> Vec<String> {
        let log = std::fs::read(self.log_file()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let refused = log.lines().filter(|line| line.contains("Violation"));
        refused.map(str::to_owned).collect()
    }

    /// Returns whether the server runs.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Has the server reload its configuration, twice: the imports of a new account work from the second reload on.
    ///
    /// Starts a server again that crashes meanwhile, as container engines do: a reload of nats-server 2.12 races with the
    /// traffic of its connections (docs/adr/0039).
    ///
    /// # Panics
    /// The server does not start again.
    pub(crate) fn reload(&mut self) {
        for _ in 0..2 {
            let Some(child) = &self.child else { return };
            let reloads = || child.log().matches("Reloaded server configuration").count();
            let (before, began) = (reloads(), Instant::now());
            child.signal(Signal::SIGHUP);
            while reloads() == before && child.exited().is_none() && began.elapsed() < START {
                std::thread::park_timeout(LOOK_EVERY);
            }
            if let Some(status) = child.exited() {
                self.report_end(status);
                return self.start_again();
            }
        }
    }

    /// Starts the process on the same port and store, and blocks until it is ready.
    fn start_again(&mut self) {
        let (child, began) = (self.spawn(), Instant::now());
        let ports = loop {
            match ports_file(self.folder.path(), child.pid()) {
                Some(ports) => break ports,
                None if child.exited().is_some() || began.elapsed() > START => {
                    panic!(
                        "nats-server does not start again; its log ends:\n{}",
                        child.tail()
                    )
                }
                None => std::thread::park_timeout(LOOK_EVERY),
            }
        };
        self.serve(child, &ports);
    }

    /// Prints how a server ended that no test has ended.
    fn report_end(&self, status: ExitStatus) {
        let log = String::from_utf8_lossy(&std::fs::read(self.log_file()).unwrap_or_default()).into_owned();
        // The stacks of all goroutines follow the reason of a crash.
        let reasons = ["panic: ", "fatal error: "];
        let crash = reasons.iter().filter_map(|reason| log.rfind(reason)).min();
        let from = crash.unwrap_or(log.len().saturating_sub(CRASH));
        let shown: String = log.get(from..).unwrap_or(&log).chars().take(CRASH).collect();
        let port = self.port;
        eprintln!("--- nats-server on port {port} ended: {status}; its log says:\n{shown}");
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Queries the monitoring endpoint, for example `/jsz?streams=true`.
    ///
    /// # Panics
    /// The server does not answer.
    pub async fn monitor(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.monitor_url);
        let answer = async { reqwest::get(&url).await?.json().await };
        answer
            .await
            .unwrap_or_else(|e: reqwest::Error| panic!("{url}: {e}"))
    }

    /// Sends SIGKILL and waits until the process is gone. The store stays.
    pub fn kill(&mut self) {
        self.child = None;
    }

    /// Kills the server with SIGKILL and deletes its store, as when a volume is lost.
    ///
    /// # Panics
    /// The files cannot be deleted.
    pub fn lose_store(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.folder.path().join("store")).expect("the store is deleted");
    }

    /// Sends SIGTERM and waits for an orderly exit. The store stays.
    pub async fn stop(&mut self) {
        if let Some(child) = self.child.take() {
            child.signal(Signal::SIGTERM);
            let ended = child.ended(START).await;
            assert!(ended.is_some(), "nats-server ignores SIGTERM");
        }
    }

    /// Kills a running server, starts it again on the same port and store, and returns when the
    /// server is ready.
    ///
    /// # Panics
    /// The server does not start.
    pub async fn restart(&mut self) {
        self.kill();
        assert!(
            self.launch().await,
            "another process took the broker's port {}",
            self.port
        );
    }

    /// Sends SIGSTOP: connections stay open and requests get no answer.
    pub fn pause(&self) {
        if let Some(child) = &self.child {
            child.signal(Signal::SIGSTOP);
        }
    }

    /// Sends SIGCONT to a paused server.
    pub fn resume(&self) {
        if let Some(child) = &self.child {
            child.signal(Signal::SIGCONT);
        }
    }
}

impl Drop for NatsServer {
    /// Prints how the server ended if the test is panicking and did not end the server itself.
    fn drop(&mut self) {
        let child = self.child.as_ref().filter(|_| std::thread::panicking());
        if let Some(status) = child.and_then(Child::exited) {
            self.report_end(status);
        }
    }
}

/// Ping settings of `deploy/nats/cluster.conf`, by which servers notice the loss of a peer.
const CLUSTER_PINGS: &str = "  ping_interval: \"500ms\"\n  ping_max: 2\n";

/// Returns the harness's own configuration, for tests without special needs.
fn own_configuration(place: &Place<'_>) -> String {
    let Place {
        name,
        port,
        store_limit,
        ..
    } = place;
    let folder = place.folder.display();
    let mut config = format!(
        "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:-1\"\n\
         ports_file_dir: \"{folder}\"\njetstream {{\n  store_dir: \"{folder}/store\"\n  \
         max_file_store: {store_limit}\n}}\n"
    );
    if let Some((port, urls)) = place.routes {
        let urls = urls.join(", ");
        let _ = writeln!(
            config,
            "cluster {{\n  name: push0-test\n  listen: \"127.0.0.1:{port}\"\n  routes: [{urls}]\n{CLUSTER_PINGS}}}"
        );
    }
    config
}

/// Returns the ports file of the server with this pid, or `None` until the file is complete.
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
