//! Proxies between the servers of a cluster, and between clients and each server.

use crate::{
    NatsCluster, NatsOptions, NatsServer, Proxy,
    nats::{TRIES, free_port},
};

/// Proxies for every connection of a cluster. Each server is configured with the addresses of proxies instead
/// of its peers' addresses, and clients get proxy addresses instead of server addresses.
#[derive(Debug)]
pub(crate) struct Wires {
    clients: Vec<Proxy>,
    /// `peers[a][b]` carries the connections that server `a` opens to server `b`.
    peers: Vec<Vec<Proxy>>,
}

impl Wires {
    /// Creates proxies to servers that listen on these ports, `clients` for clients and `routes` for peers.
    pub(crate) fn to(clients: &[u16], routes: &[u16]) -> Self {
        let proxies = |ports: &[u16]| -> Vec<Proxy> {
            let urls = ports.iter().map(|port| format!("nats://127.0.0.1:{port}"));
            urls.map(|url| Proxy::to(&url)).collect()
        };
        Self {
            clients: proxies(clients),
            peers: routes.iter().map(|_| proxies(routes)).collect(),
        }
    }

    /// Returns the quoted proxy URLs under which server `index` reaches its peers.
    pub(crate) fn peers_of(&self, index: usize) -> Vec<String> {
        let others = self.peers[index].iter().enumerate();
        others
            .filter(|(to, _)| *to != index)
            .map(|(_, proxy)| format!("\"{}\"", proxy.url()))
            .collect()
    }

    /// Returns the proxy URL under which clients reach server `index`.
    pub(crate) fn url(&self, index: usize) -> String {
        self.clients[index].url()
    }

    /// Returns the proxy between server `index` and its clients.
    pub(crate) fn client(&self, index: usize) -> &Proxy {
        &self.clients[index]
    }

    /// Returns the proxies for connections opened by server `index`, then those for connections opened
    /// by its peers.
    pub(crate) fn between(&self, index: usize) -> (Vec<&Proxy>, Vec<&Proxy>) {
        let others = || (0..self.peers.len()).filter(|other| *other != index);
        (
            others().map(|other| &self.peers[index][other]).collect(),
            others().map(|other| &self.peers[other][index]).collect(),
        )
    }
}

impl NatsCluster {
    /// Starts a cluster like [`Self::start_with`], in which each server can be cut off from its peers and
    /// from clients that connect to the cluster's [`Self::url`].
    ///
    /// # Panics
    /// The servers do not start or do not agree on a leader.
    pub async fn wired(size: usize, options: &NatsOptions) -> Self {
        let options = options.clone().wired();
        for _ in 0..TRIES {
            if let Some(cluster) = Self::try_wired(size, &options).await {
                cluster.meta_leader().await;
                return cluster;
            }
        }
        panic!("nats-server found no free ports in {TRIES} tries");
    }

    async fn try_wired(size: usize, options: &NatsOptions) -> Option<Self> {
        let ports = || -> Vec<u16> { (0..size).map(|_| free_port()).collect() };
        let (clients, routes) = (ports(), ports());
        let wires = Wires::to(&clients, &routes);
        let mut servers = Vec::new();
        for (at, (client, route)) in clients.iter().zip(&routes).enumerate() {
            let peers = wires.peers_of(at);
            let routes = Some((*route, &peers[..]));
            let mut server = NatsServer::prepare(&format!("n{at}"), *client, options, routes);
            if !server.launch().await {
                return None;
            }
            servers.push(server);
        }
        let wires = Some(wires);
        Some(Self { servers, wires })
    }

    fn wires(&self) -> &Wires {
        self.wires.as_ref().expect("a cluster that was started `wired`")
    }

    /// Cuts all traffic between server `index` and its peers, in both directions.
    ///
    /// # Panics
    /// The cluster was not started with [`Self::wired`]; every cut then panics.
    pub fn cut_from_peers(&self, index: usize) {
        let (calling, called) = self.wires().between(index);
        calling.into_iter().chain(called).for_each(Proxy::cut);
    }

    /// Cuts the traffic from server `index` to its peers. Traffic to the server still passes.
    pub fn mute(&self, index: usize) {
        let (calling, called) = self.wires().between(index);
        calling.into_iter().for_each(Proxy::cut_towards);
        called.into_iter().for_each(Proxy::cut_from);
    }

    /// Cuts the traffic from the peers to server `index`. Traffic from the server still passes.
    pub fn deafen(&self, index: usize) {
        let (calling, called) = self.wires().between(index);
        calling.into_iter().for_each(Proxy::cut_from);
        called.into_iter().for_each(Proxy::cut_towards);
    }

    /// Cuts all traffic between server `index` and clients, in both directions.
    pub fn cut_from_clients(&self, index: usize) {
        self.wires().client(index).cut();
    }

    /// Restores all traffic of server `index`, with its peers and with clients.
    pub fn heal(&self, index: usize) {
        let (calling, called) = self.wires().between(index);
        calling.into_iter().chain(called).for_each(Proxy::heal);
        self.wires().client(index).heal();
    }
}
