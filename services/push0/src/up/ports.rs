//! Free TCP ports on 127.0.0.1.
//!
//! Ports are drawn below the range used by the system for outgoing connections. A restarted process needs
//! its port again, and any outgoing connection could have taken a port in that range, even a reconnecting
//! client of the process.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Range above the default ports of daemons and below the usual `ip_local_port_range` (32768 and up).
const RANGE: Range<u16> = 12_000..32_000;
/// Number of ports tried for each wanted port.
const TRIES: usize = 1_000;
/// Time limit for the last run's port to become free: the old broker may still be stopping.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Returns `count` different free ports. Another process may take one before it is used.
pub(crate) fn free(count: usize) -> io::Result<Vec<SocketAddr>> {
    // All listeners are held until every port is drawn, so that no port is drawn twice.
    let listeners = (0..count).map(|_| one()).collect::<io::Result<Vec<_>>>()?;
    listeners.iter().map(TcpListener::local_addr).collect()
}

fn one() -> io::Result<TcpListener> {
    let bound = (0..TRIES).find_map(|_| bind(rand::random_range(RANGE)).ok());
    bound.ok_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, "no free port on 127.0.0.1"))
}

fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

/// Returns the address of the last run if its port is still free, else any free one.
pub(crate) fn address_again(last: Option<SocketAddr>) -> io::Result<SocketAddr> {
    let last = last.filter(|address| TcpListener::bind(address).is_ok());
    last.map_or_else(|| one()?.local_addr(), Ok)
}

/// Returns the port of the last run if it becomes free in time, else any free port.
pub(crate) async fn again(last: Option<u16>) -> io::Result<u16> {
    let until = Instant::now() + PATIENCE;
    while let Some(port) = last {
        if bind(port).is_ok() {
            return Ok(port);
        }
        if Instant::now() >= until {
            break;
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(one()?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_ports_are_the_same() {
        let ports: HashSet<u16> = free(40).unwrap().iter().map(SocketAddr::port).collect();
        assert!(ports.len() == 40 && ports.iter().all(|port| RANGE.contains(port)));
    }

    #[tokio::test]
    async fn a_port_is_used_again_if_it_is_free() {
        let port = one().unwrap().local_addr().unwrap().port();
        assert_eq!(again(Some(port)).await.unwrap(), port);
        let _taken = bind(port).unwrap();
        assert_ne!(again(Some(port)).await.unwrap(), port);
    }
}
