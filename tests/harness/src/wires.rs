//! The wires of a cluster: from each server to each other one, and from clients to each server.

use crate::{
    NatsCluster, NatsOptions, NatsServer, Proxy,
    nats::{TRIES, free_port},
};

/// A proxy for every connection that a cluster makes. Each server is told the proxies' addresses in place of
/// its peers', and clients are told those of the servers.
#[derive(Debug)]
pub(crate) struct Wires {
    clients: Vec<Proxy>,
    /// `peers[a][b]` takes the connections that `a` makes to `b`.
    peers: Vec<Vec<Proxy>>,
}

impl Wires {
    /// Wires to servers that listen on these ports, for clients and for one another.
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

    /// Where server `index` finds its peers.
    pub(crate) fn peers_of(&self, index: usize) -> Vec<String> {
        let others = self.peers[index].iter().enumerate();
        others
            .filter(|(to, _)| *to != index)
            .map(|(_, proxy)| format!("\"{}\"", proxy.url()))
            .collect()
    }

    /// Where clients find server `index`.
    pub(crate) fn url(&self, index: usize) -> String {
        self.clients[index].url()
    }

    /// The wire between server `index` and its clients.
    pub(crate) fn client(&self, index: usize) -> &Proxy {
        &self.clients[index]
    }

    /// The wires on which server `index` calls others, and those on which it is called.
    pub(crate) fn between(&self, index: usize) -> (Vec<&Proxy>, Vec<&Proxy>) {
        let others = || (0..self.peers.len()).filter(|other| *other != index);
        (
            others().map(|other| &self.peers[index][other]).collect(),
            others().map(|other| &self.peers[other][index]).collect(),
        )
    }
}

impl NatsCluster {
    /// As [`Self::start_with`]; each server can be cut off from its peers and from clients that know the
    /// cluster's [`Self::url`].
    ///
    /// # Panics
    /// They do not start or do not agree on a leader.
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

    /// Server `index` and its peers hear nothing of each other any more.
    ///
    /// # Panics
    /// As all that cuts: the cluster was not started `wired`.
    pub fn cut_from_peers(&self, index: usize) {
        let (calling, called) = self.wires().between(index);
        calling.into_iter().chain(called).for_each(Proxy::cut);
    }

    /// Its peers hear nothing of server `index` any more; it hears them.
    pub fn mute(&self, index: usize) {
        let (calling, called) = self.wires().between(index);
        calling.into_iter().for_each(Proxy::cut_towards);
        called.into_iter().for_each(Proxy::cut_from);
    }

    /// Server `index` hears nothing of its peers any more; they hear it.
    pub fn deafen(&self, index: usize) {
        let (calling, called) = self.wires().between(index);
        calling.into_iter().for_each(Proxy::cut_from);
        called.into_iter().for_each(Proxy::cut_towards);
    }

    /// Clients and server `index` hear nothing of each other any more.
    pub fn cut_from_clients(&self, index: usize) {
        self.wires().client(index).cut();
    }

    /// All that was cut is whole again.
    pub fn heal(&self, index: usize) {
        let (calling, called) = self.wires().between(index);
        calling.into_iter().chain(called).for_each(Proxy::heal);
        self.wires().client(index).heal();
    }
}
