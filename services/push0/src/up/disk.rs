//! Size limit of the broker's store.

use crate::failure::Failure;
use nix::sys::statvfs::statvfs;
use push0_bus::Limits;
use std::path::Path;

/// With less, the streams' shares would be too small for the largest message.
const LEAST: u64 = 256 << 20;

/// Returns the default of `push0 provision`, but at most half of the free disk space.
pub(crate) fn store_bytes(dir: &Path) -> Result<u64, Failure> {
    let stats = statvfs(dir)?;
    let free = stats.blocks_available().saturating_mul(stats.fragment_size());
    size(free).ok_or_else(|| {
        Failure::failed(format!(
            "{} has {} of free disk space; the store may take half of it and needs at least {}",
            dir.display(),
            crate::table::bytes(free),
            crate::table::bytes(LEAST)
        ))
    })
}

fn size(free: u64) -> Option<u64> {
    Some((free / 2).min(Limits::default().store_bytes)).filter(|bytes| *bytes >= LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_takes_half_of_the_disk_and_never_more_than_8_gib() {
        assert_eq!(size(100 << 30), Some(8 << 30));
        assert_eq!(size(4 << 30), Some(2 << 30));
        assert_eq!(size(400 << 20), None);
    }
}
