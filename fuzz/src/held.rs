//! Counts the bytes on the heap, so that a target notices an input of a few bytes for which a reader holds many.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// The allocator of the system, which also counts.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the allocator of the system with the caller's own arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(held, Relaxed);
        // SAFETY: see above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: see above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let held = HELD.fetch_add(size, Relaxed) + size;
        PEAK.fetch_max(held - layout.size(), Relaxed);
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: see above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The bytes on the heap that a call took.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// The bytes that its result still holds.
    pub held: usize,
    /// The most bytes that it held at any time.
    pub peak: usize,
}

/// Calls `read`. Returns its result, and the bytes in use meanwhile.
pub fn taken<T>(read: impl FnOnce() -> T) -> (T, Taken) {
    let before = HELD.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = read();
    let taken = Taken {
        held: HELD.load(Relaxed).saturating_sub(before),
        peak: PEAK.load(Relaxed).saturating_sub(before),
    };
    (result, taken)
}
