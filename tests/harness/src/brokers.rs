//! The brokers under a deployment as one, so that most tests run on one broker and on three.

use crate::{Broker, NatsCluster, NatsOptions, NatsServer};

/// Names the number of brokers under deployments whose test does not choose the number itself: 1 or 3.
const BROKERS: &str = "PUSH0_TEST_BROKERS";

/// All brokers of a deployment. Each operation is one on all of them at once.
#[derive(Debug)]
pub struct Brokers(NatsCluster);

impl Brokers {
    /// Returns how many brokers the environment asks for; 1 unless told otherwise.
    pub(crate) fn asked_for() -> usize {
        let asked = std::env::var(BROKERS).ok();
        asked.map_or(1, |count| match &*count {
            "1" => 1,
            "3" => 3,
            other => panic!("{BROKERS}={other}: expected 1 or 3"),
        })
    }

    /// Starts `count` brokers.
    pub(crate) async fn start(count: usize, options: &NatsOptions) -> Self {
        Self(NatsCluster::start_with(count, options).await)
    }

    /// Returns one of the brokers: the only one, unless the environment asks for several.
    pub fn first(&self) -> &NatsServer {
        self.0.server(0)
    }

    /// Kills all brokers with SIGKILL. Their stores stay.
    pub fn kill(&mut self) {
        self.0.servers.iter_mut().for_each(NatsServer::kill);
    }

    /// Kills all brokers, and deletes their stores.
    ///
    /// # Panics
    /// The files cannot be deleted.
    pub fn lose_store(&mut self) {
        self.kill();
        self.0.servers.iter_mut().for_each(NatsServer::lose_store);
    }

    /// Sends SIGTERM to all brokers and waits until they have ended in order.
    pub async fn stop(&mut self) {
        for server in &mut self.0.servers {
            server.stop().await;
        }
    }

    /// Kills all brokers that run, starts all on the same ports and stores, and returns when they are ready and, being
    /// several, have caught up with each other.
    ///
    /// # Panics
    /// A broker does not start.
    pub async fn restart(&mut self) {
        self.kill();
        for server in &mut self.0.servers {
            server.restart().await;
        }
        if self.0.size() > 1 {
            self.0.meta_leader().await;
            for at in 0..self.0.size() {
                self.0.catches_up(at).await;
            }
        }
    }

    /// Sends SIGSTOP to all brokers: connections stay open and requests get no answer.
    pub fn pause(&self) {
        self.0.servers.iter().for_each(NatsServer::pause);
    }

    /// Sends SIGCONT to all brokers.
    pub fn resume(&self) {
        self.0.servers.iter().for_each(NatsServer::resume);
    }
}

impl Broker for Brokers {
    fn urls(&self) -> String {
        self.0.url()
    }

    fn servers(&self) -> &[NatsServer] {
        &self.0.servers
    }

    fn servers_mut(&mut self) -> &mut [NatsServer] {
        &mut self.0.servers
    }
}
