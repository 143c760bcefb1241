//! ```text
//!   small allocation  ->  the system's allocator  --none left-->  the reserve     and it is short from then on
//!   large allocation  ->  the same, or a mapping  --none left-->  the caller is told, and says so: `OutOfMemory`
//!
//!   a call that begins, a loop over many keys:  check  ->  short?  ->  room again?  ->  go on, or `OutOfMemory`
//! ```
//! When there is no memory. What depends on sizes from outside asks for memory in a way that can fail; what is left are small
//! pieces here and there, for which Rust has no way to fail but to end the process. They are served from a reserve that
//! was put aside when the module was loaded, so that a call that has begun can come to its end; the next one is refused.
//!
//! Long pieces, on Linux, are mappings of their own (`mapped.rs`), which go back to the operating system when they are freed.
//!
//! Promise: a piece of up to 4 MiB is had as long as 16 MiB of reserve last, and while some of it is in use every write, and
//! every walk over many keys, is refused with `OutOfMemory` until there is room again.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::error::{Error, Need};
use crate::heap::Heap;
use crate::mapped::{self, System};

/// What is put aside. It takes addresses, and memory only once it is used.
const RESERVE_BYTES: usize = 16 << 20;
/// Longer pieces are not taken from the reserve: who asks for them can do without.
const PIECE_BYTES_MAX: usize = 4 << 20;
/// What the heap of the reserve aligns to by itself, and what it is asked for at most.
const HEAP_ALIGN: usize = 16;
const ALIGN_MAX: usize = 4096;
/// It is short until so much can be had at once.
const ROOM_BYTES: usize = 1 << 20;
/// Whoever has the reserve has it for less than a microsecond, but for a thread that a fork left behind.
const SPINS_MAX: u32 = 1 << 20;

static SHORT: AtomicBool = AtomicBool::new(false);
/// Where the reserve is: nowhere at first, which is far from every address.
static START: AtomicUsize = AtomicUsize::new(usize::MAX / 2);
static RESERVE: Reserve = Reserve { is_taken: AtomicBool::new(false), heap: UnsafeCell::new(None) };

struct Reserve {
    is_taken: AtomicBool,
    heap: UnsafeCell<Option<Heap<false>>>,
}

// Safety: the heap is touched only by who has set `is_taken`, and there is one of those at a time.
#[expect(unsafe_code, reason = "a lock of one word, which needs no memory")]
unsafe impl Sync for Reserve {}

impl Reserve {
    fn with<T>(&self, run: impl FnOnce(&mut Option<Heap<false>>) -> T) -> Option<T> {
        for _ in 0..SPINS_MAX {
            if self.is_taken.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                // Safety: this thread has set `is_taken`, and `run` does not come here again: a heap with a pool allocates
                // nothing.
                #[expect(unsafe_code, reason = "a lock of one word, which needs no memory")]
                let done = run(unsafe { &mut *self.heap.get() });
                self.is_taken.store(false, Ordering::Release);
                return Some(done);
            }
            std::hint::spin_loop();
        }
        None
    }

    #[cold]
    fn allocate(&self, layout: Layout) -> *mut u8 {
        if layout.size() > PIECE_BYTES_MAX || layout.align() > ALIGN_MAX {
            return std::ptr::null_mut();
        }
        SHORT.store(true, Ordering::Relaxed);
        let before = Self::before(layout.align());
        let piece = self.with(|heap| heap.as_mut().and_then(|heap| heap.allocate(layout.size() + before))).flatten();
        let Some(piece) = piece.map(NonNull::as_ptr) else { return std::ptr::null_mut() };
        if before == 0 {
            return piece;
        }
        // Safety: an aligned place lies within `before`, and has at least a word in front of it: there stands where the piece
        // begins.
        #[expect(unsafe_code, reason = "a piece within a piece")]
        unsafe {
            let aligned = piece.add(before - (piece as usize + before) % layout.align());
            aligned.cast::<usize>().sub(1).write(piece as usize);
            aligned
        }
    }

    /// What a piece takes more, if the heap's own alignment is not enough.
    const fn before(align: usize) -> usize {
        if align <= HEAP_ALIGN { 0 } else { align + size_of::<usize>() }
    }

    #[cold]
    fn free(&self, piece: *mut u8, layout: Layout) {
        let piece = match Self::before(layout.align()) {
            0 => piece,
            // Safety: it was allocated with this layout, and a word in front of it says where it begins.
            #[expect(unsafe_code, reason = "a piece within a piece")]
            _ => unsafe { *piece.cast::<usize>().sub(1) as *mut u8 },
        };
        self.with(|heap| {
            if let (Some(heap), Some(piece)) = (heap, NonNull::new(piece)) {
                // Safety: it lies within the reserve, so it was allocated there.
                #[expect(unsafe_code, reason = "a piece goes back to the reserve")]
                unsafe {
                    heap.free(piece);
                }
            }
        });
    }
}

/// Puts the reserve aside, once. Without it, the process does without.
pub fn prepare() {
    let mut heap = Heap::<false>::in_pools_of(RESERVE_BYTES);
    if START.load(Ordering::Relaxed) == usize::MAX / 2
        && let Some(start) = heap.grow(1).then(|| heap.first_pool()).flatten()
    {
        RESERVE.with(|reserve| {
            if reserve.is_none() {
                START.store(start, Ordering::Relaxed);
                *reserve = Some(heap);
            }
        });
    }
}

/// An error while memory is short.
///
/// # Errors
/// [`Error::OutOfMemory`].
#[inline]
pub fn check(what: Need) -> Result<(), Error> {
    if SHORT.load(Ordering::Relaxed) { check_again(what) } else { Ok(()) }
}

#[cold]
fn check_again(what: Need) -> Result<(), Error> {
    let mut room = Vec::<u8>::new();
    // Through the system's allocator: it is longer than what the reserve would give.
    if room.try_reserve_exact(PIECE_BYTES_MAX + ROOM_BYTES).is_err() {
        return Err(Error::OutOfMemory { what, bytes: (PIECE_BYTES_MAX + ROOM_BYTES) as u64 });
    }
    SHORT.store(false, Ordering::Relaxed);
    Ok(())
}

/// An empty vector with room for so many.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn vector<T>(what: Need, len: usize) -> Result<Vec<T>, Error> {
    let mut vector = Vec::new();
    reserve(what, &mut vector, len)?;
    Ok(vector)
}

/// Room in a vector for so many more.
///
/// # Errors
/// [`Error::OutOfMemory`], and the vector is as it was.
pub fn reserve<T>(what: Need, vector: &mut Vec<T>, more: usize) -> Result<(), Error> {
    let bytes = || (more as u64).saturating_mul(size_of::<T>() as u64);
    vector.try_reserve(more).map_err(|_| Error::OutOfMemory { what, bytes: bytes() })
}

/// These parts, one after the other.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub fn joined(what: Need, parts: &[&[u8]]) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let len = parts.iter().map(|part| part.len()).sum();
    bytes.try_reserve_exact(len).map_err(|_| Error::OutOfMemory { what, bytes: len as u64 })?;
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    Ok(bytes)
}

/// The system's allocator, with the reserve behind it.
pub struct WithReserve;

#[inline]
fn is_of_reserve(piece: *mut u8) -> bool {
    (piece as usize).wrapping_sub(START.load(Ordering::Relaxed)) < RESERVE_BYTES
}

// Safety: what the system's allocator gives goes back to it; what is in the reserve goes back to the reserve. Their addresses
// tell which.
#[expect(unsafe_code, reason = "an allocator")]
unsafe impl GlobalAlloc for WithReserve {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Safety: as it came.
        let piece = unsafe { System.alloc(layout) };
        if piece.is_null() { RESERVE.allocate(layout) } else { piece }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // Safety: as it came.
        let mut piece = unsafe { System.alloc_zeroed(layout) };
        if piece.is_null() {
            piece = RESERVE.allocate(layout);
            if !piece.is_null() {
                // Safety: it is so long.
                unsafe { piece.write_bytes(0, layout.size()) };
            }
        }
        piece
    }

    #[inline]
    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        if is_of_reserve(piece) {
            return RESERVE.free(piece, layout);
        }
        // Safety: as it came, from the system's allocator.
        unsafe { System.dealloc(piece, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !is_of_reserve(piece) {
            // Safety: as it came, from the system's allocator.
            let longer = unsafe { System.realloc(piece, layout, size) };
            if !longer.is_null() {
                return longer;
            }
        }
        // Safety: the caller gives a size that a layout may have; both pieces are as long as what is copied; the old one is given
        // back only when there is a new one.
        unsafe {
            let fresh = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !fresh.is_null() {
                std::ptr::copy_nonoverlapping(piece, fresh, layout.size().min(size));
                self.dealloc(piece, layout);
            }
            fresh
        }
    }
}

/// Gives back what the process has freed, where it is kept for the next or the C library keeps it: after much was freed at
/// once.
pub fn give_back() {
    mapped::give_back();
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // Safety: it may be called at any time, by any thread.
    #[expect(unsafe_code, reason = "a call of the C library")]
    unsafe {
        libc::malloc_trim(0);
    }
}
