//! Scratch directories: one of the adapter, with one for each attempt in it.
//!
//! The adapter and the keepers of its programs lock the adapter's directory as long as they live. A directory
//! without a lock was left by an adapter that died, and the next one removes it.

use crate::tree;
use nix::fcntl::OFlag;
use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Start of the name of an adapter's directory.
const PREFIX: &str = "prover-exec-scratch-";
/// Start of the name while the directory is not locked yet.
const UNLOCKED: &str = ".prover-exec-scratch-";

/// Most files and directories to look at below a directory that cannot be removed.
const WALKED_MAX: usize = 1_000_000;

/// Where attempts get their directories.
#[derive(Debug)]
pub(crate) struct Scratch {
    parent: PathBuf,
    own: Mutex<Option<Arc<Own>>>,
}

/// Directory of this adapter. It is removed when the adapter ends in order.
#[derive(Debug)]
struct Own {
    path: PathBuf,
    _lock: File,
}

/// Directory of one attempt, removed at the drop by the last holder.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    own: Arc<Own>,
}

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the adapter's directory, which a keeper locks.
    pub(crate) fn locked(&self) -> &Path {
        &self.own.path
    }
}

impl Scratch {
    /// `parent` may be empty: the system's directory for temporary files.
    pub(crate) fn new(parent: &Path) -> io::Result<Self> {
        let parent = if parent.as_os_str().is_empty() {
            std::env::temp_dir()
        } else {
            parent.to_owned()
        };
        Ok(Self {
            // Programs have working directories of their own.
            parent: std::path::absolute(parent)?,
            own: Mutex::new(None),
        })
    }

    pub(crate) fn parent(&self) -> &Path {
        &self.parent
    }

    /// Makes the directory of an attempt.
    pub(crate) fn folder(&self) -> io::Result<Folder> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        // Cleaners of temporary files may have removed the directory of an adapter that was idle for days.
        let kept = own.take().filter(|own| own.path.is_dir());
        let own = own.insert(match kept {
            Some(kept) => kept,
            None => Arc::new(Own::create(&self.parent)?),
        });
        let folder = tempfile::Builder::new()
            .prefix("attempt-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&own.path)?;
        Ok(Folder {
            path: folder.keep(),
            own: own.clone(),
        })
    }

    /// Removes the directories of dead adapters of the same user; returns how many.
    pub(crate) fn sweep(&self) -> usize {
        let Ok(entries) = fs::read_dir(&self.parent) else {
            return 0;
        };
        let ours = entries.filter_map(Result::ok).filter(|entry| {
            let name = entry.file_name();
            let named = name.to_str().is_some_and(|name| name.starts_with(PREFIX));
            let user = nix::unistd::geteuid().as_raw();
            // A link is no directory here, so that nothing outside is touched.
            named
                && entry
                    .metadata()
                    .is_ok_and(|data| data.is_dir() && data.uid() == user)
        });
        ours.filter(|entry| remove_if_dead(&entry.path())).count()
    }
}

fn remove_if_dead(path: &Path) -> bool {
    let Ok(folder) = crate::foreign::open(path, OFlag::O_DIRECTORY) else {
        return false;
    };
    // The lock is held until the directory has gone, so that two adapters do not sweep the same one.
    match folder.try_lock() {
        Ok(()) => removed(path),
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
    }
}

impl Own {
    fn create(parent: &Path) -> io::Result<Self> {
        let id = format!("{:016x}", rand::random::<u64>());
        let unlocked = parent.join(format!("{UNLOCKED}{id}"));
        fs::DirBuilder::new().mode(0o700).create(&unlocked)?;
        let path = parent.join(format!("{PREFIX}{id}"));
        let own = || {
            let lock = File::open(&unlocked)?;
            lock.try_lock_shared()?;
            // Others see the directory only when it is locked.
            fs::rename(&unlocked, &path)?;
            Ok(Self { path, _lock: lock })
        };
        own().inspect_err(|_| {
            let _ = fs::remove_dir(&unlocked);
        })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        removed(&self.path);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        removed(&self.path);
    }
}

/// Removes a directory with all files of programs; returns whether the directory has gone. Logs a failure.
fn removed(path: &Path) -> bool {
    let error = match tree::remove(path) {
        Ok(()) => return true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return true,
        Err(error) => error,
    };
    let bytes = size_of(path);
    tracing::warn!(
        path = %path.display(),
        bytes,
        %error,
        "a scratch directory stays on the disk: programs left files in it that this user cannot remove, as a container that \
         runs as root does; remove the directory, and let the program remove such files itself"
    );
    false
}

/// Returns the size of all files in a directory and those below it, in bytes. Stops at [`WALKED_MAX`] entries.
fn size_of(path: &Path) -> u64 {
    let (mut bytes, mut walked, mut waiting) = (0, 0, vec![path.to_owned()]);
    while let Some(directory) = waiting.pop() {
        let entries = fs::read_dir(&directory).into_iter().flatten();
        for entry in entries.filter_map(Result::ok) {
            walked += 1;
            if walked > WALKED_MAX {
                return bytes;
            }
            // The metadata is that of a link itself, so nothing outside is touched.
            match entry.metadata() {
                Ok(data) if data.is_dir() => waiting.push(entry.path()),
                Ok(data) => bytes += data.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_dead_adapters_are_swept() {
        let parent = tempfile::tempdir().unwrap();
        let living = Scratch::new(parent.path()).unwrap();
        let folder = living.folder().unwrap();
        let dead = parent.path().join("prover-exec-scratch-dead/attempt-1");
        fs::create_dir_all(&dead).unwrap();
        fs::write(dead.join("IN.json"), "7").unwrap();
        fs::create_dir(parent.path().join("other")).unwrap();
        // The default directory of the logs.
        fs::create_dir(parent.path().join("prover-exec-logs-0")).unwrap();
        fs::create_dir_all(parent.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(
            parent.path().join("elsewhere"),
            parent.path().join("prover-exec-scratch-link"),
        )
        .unwrap();
        assert_eq!(Scratch::new(parent.path()).unwrap().sweep(), 1);
        assert!(!dead.exists() && folder.path().is_dir());
        for name in ["other", "elsewhere", "prover-exec-logs-0"] {
            assert!(parent.path().join(name).is_dir(), "{name}");
        }
        // A keeper that outlives its adapter keeps the directory.
        let keeper = File::open(folder.locked()).unwrap();
        keeper.try_lock_shared().unwrap();
        std::mem::forget((folder, living.own.lock().unwrap().take()));
        assert_eq!(Scratch::new(parent.path()).unwrap().sweep(), 0);
    }

    #[test]
    fn everything_goes_with_an_adapter_that_ends_in_order() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(parent.path()).unwrap();
        drop(scratch.folder().unwrap());
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
        // Directories removed by a cleaner of temporary files are made again.
        fs::remove_dir_all(
            fs::read_dir(parent.path())
                .unwrap()
                .next()
                .unwrap()
                .unwrap()
                .path(),
        )
        .unwrap();
        drop(scratch.folder().unwrap());
        drop(scratch);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    /// Runs as a user who is not root, for whom permissions do not count.
    fn without_privileges(test: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            let ran = scope.spawn(|| {
                // The setting is the thread's own. Another user than root keeps its name.
                nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
                test();
            });
            ran.join().unwrap();
        });
    }

    #[test]
    fn directories_that_a_program_made_read_only_go_too() {
        let parent = tempfile::tempdir().unwrap();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o777)).unwrap();
        without_privileges(|| {
            let folder = parent.path().join("attempt");
            fs::create_dir_all(folder.join("cache/deep")).unwrap();
            fs::write(folder.join("cache/deep/file"), "7").unwrap();
            for closed in ["cache/deep", "cache", ""] {
                fs::set_permissions(folder.join(closed), fs::Permissions::from_mode(0o500)).unwrap();
            }
            assert!(fs::remove_dir_all(&folder).is_err());
            assert!(removed(&folder));
            assert!(!folder.exists());
        });
    }

    #[test]
    fn directories_go_however_deep_a_program_made_them() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("attempt");
        let mut deepest = folder.clone();
        let name = "d".repeat(200);
        deepest.push(&name);
        fs::create_dir_all(&deepest).unwrap();
        // Each round puts all above below a new directory: a path of all names would be too long to open.
        for _ in 0..20_000 {
            let (old, new) = (folder.join(&name), folder.join("n"));
            fs::create_dir(&new).unwrap();
            fs::rename(&old, new.join(&name)).unwrap();
            fs::rename(&new, &old).unwrap();
        }
        fs::create_dir(folder.join("beside")).unwrap();
        fs::write(folder.join("beside/file"), "7").unwrap();
        assert!(removed(&folder));
        assert!(!folder.exists());
    }

    #[test]
    fn what_another_user_left_is_measured_and_stays() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("attempt");
        fs::create_dir_all(folder.join("below")).unwrap();
        fs::write(folder.join("below/file"), "seven").unwrap();
        std::os::unix::fs::symlink("/", folder.join("link")).unwrap();
        assert_eq!(size_of(&folder), "seven/".len() as u64);
        if nix::unistd::geteuid().is_root() {
            fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
            without_privileges(|| assert!(!removed(&folder)));
            assert!(folder.join("below/file").exists());
        }
    }
}
