//! Logs with the whole output of attempts: where they lie, and how many are kept.

use crate::{ExecConfig, report::LogOrder};
use push0_domain::message::TaskHeader;
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

/// Largest number of logs in a directory: a directory is read as a whole.
const FILES_MAX: usize = 10_000;
/// Attempts between two sweeps of the directory.
const SWEEP_EVERY: u64 = 64;

/// How often lost logs are told.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The directory of the logs.
#[derive(Debug)]
pub(crate) struct Logs {
    dir: PathBuf,
    each: u64,
    total: u64,
    count: AtomicU64,
    /// When a lost log was last told.
    told_at: Mutex<Option<Instant>>,
}

/// Log of one attempt, known before its program starts.
#[derive(Debug)]
pub(crate) struct AttemptLog {
    path: PathBuf,
    max: u64,
    title: String,
}

impl AttemptLog {
    pub(crate) fn order(&self) -> LogOrder {
        LogOrder {
            path: self.path.clone(),
            max: self.max,
            title: self.title.clone(),
        }
    }

    /// Says where the log lies, for people on another machine.
    pub(crate) fn place(&self) -> Option<String> {
        let host = nix::unistd::gethostname().ok()?;
        self.path
            .exists()
            .then(|| format!("{}:{}", host.to_string_lossy(), self.path.display()))
    }
}

impl Logs {
    /// Returns `None` if no logs are wanted, or if the directory cannot be made now: a full disk must not keep
    /// the adapter from its work. Fails if the default directory belongs to another user.
    pub(crate) fn new(config: &ExecConfig) -> io::Result<Option<Self>> {
        if config.log_bytes_each == 0 {
            return Ok(None);
        }
        let user = nix::unistd::geteuid();
        let dir = if config.log_dir.as_os_str().is_empty() {
            std::env::temp_dir().join(format!("prover-exec-logs-{user}"))
        } else {
            std::path::absolute(&config.log_dir)?
        };
        if let Err(error) = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir) {
            tracing::warn!(dir = %dir.display(), %error, "keeps no logs of attempts until its next start: set exec.log_dir");
            return Ok(None);
        }
        let is_default = config.log_dir.as_os_str().is_empty();
        if is_default && fs::symlink_metadata(&dir)?.uid() != user.as_raw() {
            return Err(io::Error::other(format!(
                "{} belongs to another user: set exec.log_dir",
                dir.display()
            )));
        }
        Ok(Some(Self {
            dir,
            each: config.log_bytes_each,
            total: config.log_bytes_total,
            count: AtomicU64::new(0),
            told_at: Mutex::default(),
        }))
    }

    /// Warns that the log of an attempt is not complete, once a minute: a full disk spoils the log of every attempt.
    pub(crate) fn lost(&self, reason: &str) {
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        if told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            *told_at = Some(Instant::now());
            tracing::warn!(
                dir = %self.dir.display(),
                reason,
                "the log of an attempt is not complete, the attempt goes on: make room there, or set exec.log_dir"
            );
        }
    }

    /// Names the log of an attempt, and makes room now and then.
    pub(crate) fn attempt(&self, header: &TaskHeader) -> AttemptLog {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        if count.is_multiple_of(SWEEP_EVERY) {
            sweep(&self.dir, self.total, FILES_MAX);
        }
        let (id, stage) = (&header.id, &header.id.stage);
        // `push0 logs` reads these names. The end makes names unique: a task may be delivered again.
        let name = format!(
            "{}.{}-{}.{}.{}.{}.{}.{:08x}.log",
            stage.pipeline,
            stage.first_block().number,
            stage.block.number,
            stage.proof_type,
            stage.stage,
            id.index,
            header.attempt,
            rand::random::<u32>(),
        );
        AttemptLog {
            path: self.dir.join(name),
            max: self.each,
            title: format!("[attempt {} at {id}, block {}]", header.attempt, stage.block.hash),
        }
    }
}

/// Removes the oldest logs until the limits are met.
fn sweep(dir: &Path, bytes_max: u64, files_max: usize) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut logs: Vec<(SystemTime, u64, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let is_log = path.extension().is_some_and(|extension| extension == "log");
            let data = is_log.then(|| fs::symlink_metadata(&path).ok()).flatten()?;
            let at = data.modified().ok()?;
            data.is_file().then_some((at, data.len(), path))
        })
        .collect();
    logs.sort();
    let mut bytes: u64 = logs.iter().map(|(_, len, _)| len).sum();
    let mut files = logs.len();
    for (_, len, path) in logs {
        if bytes <= bytes_max && files <= files_max {
            return;
        }
        // Another adapter may have removed it.
        let _ = fs::remove_file(path);
        bytes -= len;
        files -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, time::Duration};

    #[test]
    fn the_oldest_logs_go_first_and_other_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        for (age, name) in [(5, "e.log"), (1, "a.log"), (3, "c.log"), (9, "notes.txt")] {
            let path = dir.path().join(name);
            fs::write(&path, [0; 100]).unwrap();
            let at = SystemTime::now() - Duration::from_secs(age);
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_modified(at)
                .unwrap();
        }
        let left = || {
            let entries = fs::read_dir(dir.path()).unwrap();
            let mut names: Vec<String> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        sweep(dir.path(), 250, 10);
        assert_eq!(left(), ["a.log", "c.log", "notes.txt"]);
        sweep(dir.path(), 250, 1);
        assert_eq!(left(), ["a.log", "notes.txt"]);
    }
}
