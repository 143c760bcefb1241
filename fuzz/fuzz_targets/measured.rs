//! What a call takes of the allocator: how often it asks, for how many bytes in all, and for how many at once.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, with a count of what this thread asks it for.
pub struct Counting;

/// What was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// So often.
    pub times: usize,
    /// So many bytes in all.
    pub bytes: usize,
    /// So many bytes at once, at most.
    pub peak: usize,
    held: usize,
}

thread_local! {
    static TAKEN: Cell<Taken> = const { Cell::new(Taken { times: 0, bytes: 0, peak: 0, held: 0 }) };
}

fn count(change: impl FnOnce(&mut Taken)) {
    // A thread that ends counts no more.
    let _ = TAKEN.try_with(|taken| {
        let mut now = taken.get();
        change(&mut now);
        taken.set(now);
    });
}

fn took(bytes: usize) {
    count(|taken| {
        taken.times += 1;
        taken.bytes += bytes;
        taken.held += bytes;
        taken.peak = taken.peak.max(taken.held);
    });
}

fn gave(bytes: usize) {
    // It may have been taken before counting began.
    count(|taken| taken.held = taken.held.saturating_sub(bytes));
}

// Safety: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // Safety: as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // Safety: as it came.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        gave(layout.size());
        took(bytes);
        // Safety: as it came.
        unsafe { System.realloc(pointer, layout, bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        gave(layout.size());
        // Safety: as it came.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs something; what it took.
pub fn measure<T>(run: impl FnOnce() -> T) -> (T, Taken) {
    TAKEN.with(|taken| taken.set(Taken::default()));
    let result = run();
    (result, TAKEN.with(Cell::get))
}
