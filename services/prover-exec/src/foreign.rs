//! Files that a program may have put in their place.

use nix::{errno::Errno, fcntl::OFlag};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Opens a file that a program may have put there: not the file behind a link, and without waiting for the other end
/// of a FIFO.
pub(crate) fn open(path: &Path, kind: OFlag) -> io::Result<File> {
    let flags = kind | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
}

/// Reads a regular file: `None` if it is larger than `max` bytes, empty if there is no such file.
pub(crate) fn read_at_most(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let file = match open(path, OFlag::empty()) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Some(bytes)),
        Err(e)
            if [Errno::ELOOP as i32, Errno::ENXIO as i32].contains(&e.raw_os_error().unwrap_or_default()) =>
        {
            return Err(no_file());
        }
        Err(e) => return Err(e),
    };
    if !file.metadata()?.is_file() {
        return Err(no_file());
    }
    file.take(max + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= max).then_some(bytes))
}

/// Returns the error of a program that made a link, a FIFO or another special file of its output.
fn no_file() -> io::Error {
    io::Error::new(io::ErrorKind::IsADirectory, "expected a regular file")
}
