//! DIR: the state of `push0 up`, who may use it, and where to find what it runs.

use crate::failure::Failure;
use push0_domain::ZkvmId;
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What `push0 up` runs and where: `DIR/endpoint.json`. Kept across runs for the port and the size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// The process id of `push0 up`.
    pub(crate) pid: u32,
    /// The broker's URL.
    pub(crate) nats_url: String,
    /// The broker's port on 127.0.0.1.
    pub(crate) nats_port: u16,
    /// What the store may take, in bytes: decided by the first run.
    pub(crate) store_bytes: u64,
    /// The processes.
    pub(crate) services: Vec<ServiceEntry>,
}

/// One process of `push0 up`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceEntry {
    /// Its name, such as `collector` or `miden-1`.
    pub(crate) name: String,
    /// The zkVM, if it proves or verifies.
    pub(crate) zkvm: Option<ZkvmId>,
    /// Where `/health/ready` and `/metrics` answer.
    pub(crate) address: SocketAddr,
}

impl Endpoint {
    fn path(dir: &Path) -> PathBuf {
        dir.join("endpoint.json")
    }

    /// What the last run left; none if there was none, or if it is unreadable.
    pub(crate) fn of_last_run(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::path(dir)).ok()?).ok()
    }

    /// What runs in DIR now.
    pub(crate) fn of_running(dir: &Path) -> Option<Self> {
        if DirLock::is_held(dir) {
            Self::of_last_run(dir)
        } else {
            None
        }
    }

    /// Writes it in one step: a reader sees the old or the new one.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), Failure> {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.persist(Self::path(dir))?;
        Ok(())
    }
}

/// The right to use DIR, given up by the system when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct DirLock(#[expect(dead_code, reason = "the lock lives as long as the open file")] File);

impl DirLock {
    fn path(dir: &Path) -> PathBuf {
        dir.join("lock")
    }

    /// Takes DIR; refuses if another process has it.
    pub(crate) fn take(dir: &Path) -> Result<Self, Failure> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(Self::path(dir))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => {
                let who =
                    Endpoint::of_last_run(dir).map_or(String::new(), |e| format!(" (process {})", e.pid));
                Err(Failure::failed(format!(
                    "another `push0 up`{who} runs in {}: stop it, or name another directory with --dir",
                    dir.display()
                )))
            }
            Err(TryLockError::Error(error)) => Err(Failure::failed(format!(
                "cannot lock {}: {error}",
                Self::path(dir).display()
            ))),
        }
    }

    /// Whether a process has DIR now. A shared lock that is let go at once: it is in nobody's way
    /// unless that one starts in the same instant.
    fn is_held(dir: &Path) -> bool {
        match File::open(Self::path(dir)) {
            Ok(file) => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
            Err(error) => error.kind() != ErrorKind::NotFound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_counts_only_while_its_lock_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint {
            pid: 7,
            nats_url: "nats://127.0.0.1:4300".into(),
            nats_port: 4300,
            store_bytes: 1 << 30,
            services: vec![ServiceEntry {
                name: "miden-1".into(),
                zkvm: Some("miden".parse().unwrap()),
                address: "127.0.0.1:9000".parse().unwrap(),
            }],
        };
        endpoint.write(dir.path()).unwrap();
        assert_eq!(Endpoint::of_running(dir.path()), None);
        let lock = DirLock::take(dir.path()).unwrap();
        assert_eq!(Endpoint::of_running(dir.path()), Some(endpoint.clone()));
        let Err(Failure::Failed(refused)) = DirLock::take(dir.path()) else {
            panic!("the lock is held twice")
        };
        assert!(refused.to_string().contains("(process 7)"), "{refused}");
        drop(lock);
        assert_eq!(Endpoint::of_running(dir.path()), None);
        assert_eq!(Endpoint::of_last_run(dir.path()), Some(endpoint));
    }
}
