//! Free TCP ports on 127.0.0.1.
//!
//! They are drawn below the range from which the system gives ports to outgoing connections: a
//! process that is restarted needs its port again, and there any connection could have taken it,
//! its own clients' attempts to reconnect included.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Above what daemons use by default, below the usual `ip_local_port_range` (32768 and up).
const RANGE: Range<u16> = 12_000..32_000;
/// How many are tried for each port that is wanted.
const TRIES: usize = 1_000;
/// How long a port of the last run may take to become free: its broker may just be ending.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// As many different free ports as asked for. Another process may take one before it is used.
pub(crate) fn free(count: usize) -> io::Result<Vec<SocketAddr>> {
    // All are held until all are drawn, so that no two are the same.
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

/// The port of the last run if it is free soon, else any free one.
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
