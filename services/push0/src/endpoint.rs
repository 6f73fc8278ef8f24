//! State directory (DIR) of `push0 up`: its lock, and the addresses of the running processes.

use crate::failure::Failure;
use push0_domain::ZkvmId;
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Processes of `push0 up` and their addresses, stored as `DIR/endpoint.json`. The file outlives the run,
/// so that the next run uses the same broker port and store size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// Process id of `push0 up`.
    pub(crate) pid: u32,
    /// URL of the broker, with the user and the password that it asks for.
    pub(crate) nats_url: String,
    /// The password in `nats_url`, drawn by the first run. The file is private.
    #[serde(default)]
    pub(crate) secret: String,
    /// Port of the broker on 127.0.0.1.
    pub(crate) nats_port: u16,
    /// Size limit of the broker's store in bytes, chosen by the first run.
    pub(crate) store_bytes: u64,
    /// Address to which blocks of `http` pipelines are posted, if one was asked for.
    #[serde(default)]
    pub(crate) submit: Option<SocketAddr>,
    /// Address of the live page.
    #[serde(default)]
    pub(crate) page: Option<SocketAddr>,
    /// Services, provers and verifiers.
    pub(crate) services: Vec<ServiceEntry>,
}

/// A service, prover or verifier started by `push0 up`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceEntry {
    /// Name of the process, such as `collector` or `miden-1`.
    pub(crate) name: String,
    /// The zkVM of a prover or verifier; `None` for other services.
    pub(crate) zkvm: Option<ZkvmId>,
    /// Address of `/health/ready` and `/metrics`.
    pub(crate) address: SocketAddr,
}

impl Endpoint {
    fn path(dir: &Path) -> PathBuf {
        dir.join("endpoint.json")
    }

    /// Reads the endpoint of the last run; `None` if there is none or the file is unreadable.
    pub(crate) fn of_last_run(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::path(dir)).ok()?).ok()
    }

    /// Returns the endpoint of the `push0 up` that runs in DIR now; `None` if there is none, or if its first run begins.
    pub(crate) fn of_running(dir: &Path) -> Result<Option<Self>, Failure> {
        if !DirLock::is_held(dir) {
            return Ok(None);
        }
        let path = Self::path(dir);
        let damaged = |reason: String| {
            Failure::failed(format!(
                "a `push0 up` runs in {}, and {} cannot be read: {reason}. Stop it and start it again: it writes the file anew",
                dir.display(),
                path.display()
            ))
        };
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|e| damaged(e.to_string())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(damaged(error.to_string())),
        }
    }

    /// Writes the file in one step, so that readers see either the old or the new content.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), Failure> {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.persist(Self::path(dir))?;
        Ok(())
    }
}

/// Exclusive lock on DIR. The system releases the lock when the process ends, even by a crash.
#[derive(Debug)]
pub(crate) struct DirLock(#[expect(dead_code, reason = "the lock lives as long as the open file")] File);

impl DirLock {
    fn path(dir: &Path) -> PathBuf {
        dir.join("lock")
    }

    /// Locks DIR; fails if another process holds the lock.
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

    /// Returns whether a process holds DIR now. The check takes a shared lock and releases the lock at once,
    /// so it can only disturb a `push0 up` that starts in the same instant.
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
            secret: "s".into(),
            nats_port: 4300,
            store_bytes: 1 << 30,
            submit: Some("127.0.0.1:8090".parse().unwrap()),
            page: Some("127.0.0.1:8480".parse().unwrap()),
            services: vec![ServiceEntry {
                name: "miden-1".into(),
                zkvm: Some("miden".parse().unwrap()),
                address: "127.0.0.1:9000".parse().unwrap(),
            }],
        };
        endpoint.write(dir.path()).unwrap();
        assert_eq!(Endpoint::of_running(dir.path()).ok(), Some(None));
        let lock = DirLock::take(dir.path()).unwrap();
        let running = Endpoint::of_running(dir.path());
        assert_eq!(running.ok(), Some(Some(endpoint.clone())));
        std::fs::write(Endpoint::path(dir.path()), "{").unwrap();
        let damaged = Endpoint::of_running(dir.path()).unwrap_err().text();
        assert!(
            damaged.contains("endpoint.json cannot be read") && damaged.contains("start it again"),
            "{damaged}"
        );
        endpoint.write(dir.path()).unwrap();
        let Err(Failure::Failed(refused)) = DirLock::take(dir.path()) else {
            panic!("the lock is held twice")
        };
        assert!(refused.to_string().contains("(process 7)"), "{refused}");
        drop(lock);
        assert_eq!(Endpoint::of_running(dir.path()).ok(), Some(None));
        assert_eq!(Endpoint::of_last_run(dir.path()), Some(endpoint));
    }
}
