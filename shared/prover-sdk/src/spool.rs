//! The spool: results on the adapter's disk that the broker cannot take.
//!
//! Each attempt has one file. Its process holds a lock on the file as long as it lives, so adapters may share
//! a spool: one of them takes over the files of a process that ended. A file is written aside, synced, and then
//! renamed, so a file under its final name is whole. A checksum tells if the disk damaged the file since.

use crate::ProverConfig;
use push0_domain::{
    Payloads, ProverId, Timestamp,
    codec::{self, Encoding},
    message::{Failure, FailureClass, TaskHeader},
    payload::BlobHash,
    trace::{Event, TraceContext},
    wanted::Claims,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Most files in a spool. Their headers must not fill a disk either.
const ENTRIES_MAX: usize = 1024;
/// The first bytes of a file, with the version of its format.
const MAGIC: &[u8; 8] = b"push0sp1";
const HASH_LEN: usize = 32;
const ENDING: &str = "result";
const UNFINISHED: &str = "unfinished";
const DAMAGED: &str = "damaged";
/// Ending of a result that the broker refuses. Under its old ending it is offered again.
const REFUSED: &str = "refused";
/// Age from which on an unlocked unfinished file belongs to a process that ended.
const UNFINISHED_FOR: Duration = Duration::from_secs(60);

/// The end of an attempt, and all that is needed to store it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unstored {
    pub(crate) about: About,
    /// The outputs; empty for a failed attempt.
    pub(crate) outputs: Vec<Vec<u8>>,
}

/// The part of [`Unstored`] that fits into a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) header: TaskHeader,
    pub(crate) prover: ProverId,
    pub(crate) inputs: Payloads,
    /// The failure; `None` for a completed attempt.
    pub(crate) failure: Option<Failure>,
    pub(crate) prove_us: u64,
    pub(crate) transfer_us: u64,
    pub(crate) waited_us: u64,
    pub(crate) trace: TraceContext,
    /// The facts for the spans of the attempt; `None` if another process writes them.
    pub(crate) begun: Option<Begun>,
}

/// How an attempt began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begun {
    /// When the broker stored the task.
    pub(crate) released_at: Timestamp,
    /// When there was a slot for it.
    pub(crate) begun_at: Timestamp,
    /// The log lines of this process meanwhile, which its successor does without.
    #[serde(skip)]
    pub(crate) lines: Vec<Event>,
}

impl About {
    /// Returns whether the attempt ended because it was told to, so that its end is not worth a file.
    pub(crate) fn is_stopped(&self) -> bool {
        let class = self.failure.as_ref().map(|failure| failure.class);
        class == Some(FailureClass::Stopped)
    }
}

/// Why a result is not on the disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    #[error("no spool is set (prover.spool)")]
    Off,
    #[error(
        "the spool is full: {held} bytes in {entries} files, at most {most} bytes in {ENTRIES_MAX} (prover.spool_bytes)"
    )]
    Full { held: u64, entries: usize, most: u64 },
    #[error("{0}: {1}")]
    Disk(PathBuf, io::Error),
    #[error("the result cannot be written: {0}")]
    Codec(#[from] codec::CodecError),
}

/// A directory for results.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    directory: Option<PathBuf>,
    bytes_max: u64,
}

/// A result on the disk, held by this process. The file stays if this value is dropped.
#[derive(Debug)]
pub(crate) struct Kept {
    path: PathBuf,
    /// Holds the lock.
    file: File,
}

impl Kept {
    /// Reads the result. Blocks.
    pub(crate) fn read(&mut self) -> Result<Unstored, String> {
        content(&mut self.file)
            .map_err(|e| e.to_string())
            .and_then(|content| decode(&content))
    }

    /// Keeps the file for an operator, because the broker refuses the result for good.
    pub(crate) fn set_aside(self) {
        let aside = self.path.with_extension(REFUSED);
        let renamed = fs::rename(&self.path, &aside)
            .err()
            .map(|error| error.to_string());
        tracing::error!(
            path = %aside.display(),
            error = renamed,
            "the broker refuses a finished result, which is set aside; its task is proved again. Remove the cause, which an earlier \
             line names; then remove the file, or give it the ending .{ENDING} to offer it again"
        );
    }

    /// Removes the file, because the result is stored or not wanted any more.
    pub(crate) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a stored result stays in the spool and is offered again at the next start");
        }
    }
}

impl Spool {
    pub(crate) fn new(config: &ProverConfig) -> io::Result<Self> {
        let directory = Some(config.spool.clone()).filter(|path| !path.as_os_str().is_empty());
        if let Some(directory) = &directory {
            fs::create_dir_all(directory)?;
        }
        Ok(Self {
            directory,
            bytes_max: config.spool_bytes,
        })
    }

    pub(crate) fn is_on(&self) -> bool {
        self.directory.is_some()
    }

    /// Writes a result to the disk. Blocks.
    pub(crate) fn keep(&self, unstored: &Unstored) -> Result<Kept, SpoolError> {
        let directory = self.directory.as_ref().ok_or(SpoolError::Off)?;
        let content = encode(unstored)?;
        let disk = |path: &Path| {
            let path = path.to_owned();
            move |error| SpoolError::Disk(path, error)
        };
        // One writer at a time, in all processes, looks at the level and takes its room.
        let looking = File::open(directory).and_then(|directory| directory.lock().map(|()| directory));
        let looking = looking.map_err(disk(directory))?;
        let files = files(directory, false).map_err(disk(directory))?;
        let (entries, held) = (files.len(), files.iter().map(|(_, bytes, _)| bytes).sum::<u64>());
        if entries >= ENTRIES_MAX || held + content.len() as u64 > self.bytes_max {
            let most = self.bytes_max;
            return Err(SpoolError::Full { held, entries, most });
        }
        let path = directory.join(name(&unstored.about)?);
        let aside = path.with_extension(UNFINISHED);
        let reserved = reserve(&aside, content.len() as u64);
        drop(looking);
        let file = reserved.and_then(|mut file| {
            file.write_all(&content)?;
            file.sync_all()?;
            fs::rename(&aside, &path)?;
            File::open(directory)?.sync_all()?;
            Ok(file)
        });
        match file {
            Ok(file) => Ok(Kept { path, file }),
            Err(error) => {
                // A part of a file would only take room.
                let _ = fs::remove_file(&aside);
                Err(SpoolError::Disk(path, error))
            }
        }
    }

    /// Takes over the results without a living holder, if `wanted` accepts them. Sets damaged files aside.
    /// Blocks.
    pub(crate) fn adopt(&self, wanted: impl Fn(&About) -> bool) -> io::Result<Vec<(About, Kept)>> {
        let Some(directory) = &self.directory else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            let read = match ending {
                ENDING => adopted(&path, &wanted),
                UNFINISHED => sweep(&path).map(|()| None),
                _ => Ok(None),
            };
            match read {
                Ok(adopted) => found.extend(adopted),
                // Another adapter stored the result meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "a file of the spool cannot be read, trying again later")
                }
            }
        }
        Ok(found)
    }

    /// Removes the oldest files that are set aside while they take more room than the results may, and returns how many
    /// are left. No file would otherwise ever go without an operator, and a disk may be filled by them. Blocks.
    pub(crate) fn bound_aside(&self) -> io::Result<usize> {
        let Some(directory) = &self.directory else {
            return Ok(0);
        };
        let mut aside = files(directory, true)?;
        aside.sort();
        let mut held: u64 = aside.iter().map(|(_, bytes, _)| bytes).sum();
        let mut left = aside.len();
        for (_, bytes, path) in aside {
            if held <= self.bytes_max && left <= ENTRIES_MAX {
                break;
            }
            match fs::remove_file(&path) {
                Ok(()) => {
                    let path = path.display();
                    tracing::warn!(%path, "removed the oldest file that was set aside in the spool, because such files fill it");
                }
                // Another adapter was first.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            (held, left) = (held - bytes, left - 1);
        }
        Ok(left)
    }
}

/// Returns the name of an attempt's file: equal attempts of one prover have equal names.
fn name(about: &About) -> Result<String, codec::CodecError> {
    let claim = about.header.context.claim();
    let key = (
        about.header.attempt_id(),
        claim.announcement,
        claim.is_retry,
        &about.prover,
    );
    let hash = BlobHash::of(&codec::encode(&key, Encoding::Bincode)?).to_string();
    Ok(format!(
        "{}-{}.{ENDING}",
        about.header.id.stage.block.number,
        &hash[..32]
    ))
}

/// Returns the files that are set aside, or all others, each with its time of change and its size.
fn files(directory: &Path, are_aside: bool) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let is_aside = path
            .extension()
            .is_some_and(|ending| ending == DAMAGED || ending == REFUSED);
        match entry.metadata() {
            Ok(metadata) if metadata.is_file() && is_aside == are_aside => {
                found.push((metadata.modified()?, metadata.len(), path));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Makes a file of this length. The file is locked from its first byte on.
fn reserve(path: &Path, length: u64) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.try_lock().map_err(io::Error::from)?;
    file.set_len(0)?;
    file.set_len(length)?;
    Ok(file)
}

/// Returns the whole content of a file.
fn content(file: &mut File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut content)?;
    Ok(content)
}

fn adopted(path: &Path, wanted: &impl Fn(&About) -> bool) -> io::Result<Option<(About, Kept)>> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let content = content(&mut file)?;
    // The last holder may have stored the result and removed its file between the opening and the lock.
    fs::metadata(path)?;
    match decode(&content) {
        Ok(unstored) if wanted(&unstored.about) => {
            let path = path.to_owned();
            Ok(Some((unstored.about, Kept { path, file })))
        }
        Ok(_) => Ok(None),
        Err(reason) => {
            let aside = path.with_extension(DAMAGED);
            fs::rename(path, &aside)?;
            tracing::error!(
                path = %aside.display(),
                reason,
                "a result in the spool cannot be read and is set aside; its task is proved again, so the file can be removed"
            );
            Ok(None)
        }
    }
}

/// Removes the unfinished file of a process that ended.
fn sweep(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let age = SystemTime::now().duration_since(file.metadata()?.modified()?);
    if age.is_ok_and(|age| age >= UNFINISHED_FOR) && file.try_lock().is_ok() {
        fs::remove_file(path)?;
    }
    Ok(())
}

fn encode(unstored: &Unstored) -> Result<Vec<u8>, codec::CodecError> {
    let about = codec::encode(&unstored.about, Encoding::Bincode)?;
    let parts = || std::iter::once(&about).chain(&unstored.outputs);
    let length = parts().map(|part| part.len() + 8).sum::<usize>();
    let mut content = Vec::with_capacity(MAGIC.len() + HASH_LEN + length);
    content.extend_from_slice(MAGIC);
    content.extend_from_slice(&[0; HASH_LEN]);
    for part in parts() {
        content.extend_from_slice(&(part.len() as u64).to_be_bytes());
        content.extend_from_slice(part);
    }
    let from = MAGIC.len() + HASH_LEN;
    let hash = BlobHash::of(&content[from..]);
    content[MAGIC.len()..from].copy_from_slice(&hash.0);
    Ok(content)
}

fn decode(content: &[u8]) -> Result<Unstored, String> {
    let rest = content
        .strip_prefix(MAGIC)
        .ok_or("not a result of this version of push0")?;
    let (hash, mut rest) = rest.split_at_checked(HASH_LEN).ok_or("cut short")?;
    if BlobHash::of(rest).0 != hash {
        return Err("its bytes have another checksum".into());
    }
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<8>().ok_or("cut short")?;
        let length = usize::try_from(u64::from_be_bytes(*length)).map_err(|e| e.to_string())?;
        let (part, after) = after.split_at_checked(length).ok_or("cut short")?;
        parts.push(part);
        rest = after;
    }
    let (about, outputs) = parts.split_first().ok_or("empty")?;
    Ok(Unstored {
        // The checksum is right, so the disk is not at fault.
        about: codec::decode(about, Encoding::Bincode)
            .map_err(|e| format!("written by another version of push0: {e}"))?,
        outputs: outputs.iter().map(|output| output.to_vec()).collect(),
    })
}

#[cfg(test)]
pub(crate) mod tests;
