//! Removal of the directories that programs made, however deep they are.
//!
//! The standard library calls itself for each level, and some ten thousand levels overflow the stack of a thread: the
//! adapter would abort, and abort again at its next start, as it removes what it left behind.

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, chmodat, fchmod, open, openat, renameat, statat, unlinkat},
    io::Errno,
};
use std::{ffi::CString, io, path::Path};

/// Levels that are open at once. A directory below them moves to the top, for the next round.
const LEVELS_MAX: usize = 32;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Removes a directory with everything in it. A link is removed itself, and nothing behind it is touched.
pub(crate) fn remove(top: &Path) -> io::Result<()> {
    while empty(top)? {}
    std::fs::remove_dir(top)
}

/// A directory whose entries are being removed, and its name in the one above.
struct Level {
    name: CString,
    directory: Dir,
}

impl Level {
    fn new(name: CString, fd: rustix::fd::OwnedFd) -> io::Result<Self> {
        // A program may have made its directories read-only, as the caches of some languages are. An error shows when an
        // entry cannot be removed.
        let _ = fchmod(&fd, Mode::RWXU);
        let directory = Dir::new(fd)?;
        Ok(Self { name, directory })
    }
}

/// Removes the entries of a directory; returns whether some were too deep, and are entries of the top now.
fn empty(top: &Path) -> io::Result<bool> {
    let mut has_moved = false;
    let mut levels = vec![Level::new(
        CString::default(),
        open(top, DIRECTORY, Mode::empty())?,
    )?];
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.directory.read().transpose()? else {
            let done = levels.pop();
            if let (Some(above), Some(done)) = (levels.last(), done) {
                unlinkat(above.directory.fd()?, &done.name, AtFlags::REMOVEDIR)?;
            }
            continue;
        };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let fd = level.directory.fd()?;
        let kind = match entry.file_type() {
            FileType::Unknown => {
                FileType::from_raw_mode(statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)
            }
            kind => kind,
        };
        if kind != FileType::Directory {
            unlinkat(fd, name, AtFlags::empty())?;
            continue;
        }
        let opened = openat(fd, name, DIRECTORY, Mode::empty()).or_else(|error| {
            if error != Errno::ACCESS {
                return Err(error);
            }
            chmodat(fd, name, Mode::RWXU, AtFlags::empty())?;
            openat(fd, name, DIRECTORY, Mode::empty())
        });
        let below = Level::new(name.to_owned(), opened?)?;
        if levels.len() < LEVELS_MAX {
            levels.push(below);
        } else if let [first, .., last] = levels.as_slice() {
            let moved = format!(".deep-{:016x}", rand::random::<u64>());
            renameat(last.directory.fd()?, &below.name, first.directory.fd()?, moved)?;
            has_moved = true;
        }
    }
    Ok(has_moved)
}
