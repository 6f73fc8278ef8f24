//! Returns the memory of large buffers to the system as soon as they are dropped.

/// Size from which a buffer is mapped on its own, in bytes: glibc's first value.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: libc::c_int = 128 << 10;

/// Fixes the size from which the allocator maps a buffer on its own, and unmaps the buffer at its drop.
///
/// Unless told otherwise, glibc raises this size to the largest buffer ever dropped. Bodies of 15 MB then come
/// from the heap, where the space of a dropped one stays with the process: a peak of 50 MB instead of 35 MB
/// of the ingester (`large_submissions_wait_for_room`). From 1 MiB on, answers just below it still left the heap with holes: peaks of 29 to
/// 41 MB in 36 runs of `the_largest_blocks_are_held_one_at_a_time`, and of 29 to 30 MB in 26 runs with this size.
pub fn return_large_buffers() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(
            unsafe_code,
            reason = "glibc offers no other way to a setting of its allocator"
        )]
        // SAFETY: `mallopt` takes numbers, changes a setting under the allocator's own lock, and touches no memory of ours.
        let is_set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) } == 1;
        if !is_set {
            tracing::warn!("the allocator keeps the memory of large buffers: expect a higher peak of memory");
        }
    }
}
