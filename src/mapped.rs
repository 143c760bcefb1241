//! ```text
//!   piece below 128 KiB  ->  the system's allocator
//!   up to 2 MiB          ->  a mapping of its own; of those that were freed, four at most are kept for the next
//!   longer               ->  a mapping of its own, in huge pages where there are some
//! ```
//! Where pieces of memory come from, on Linux; elsewhere the system's allocator gives all of them.
//!
//! The C library keeps what was freed: an arena, of which each thread may have one, as much as two of the longest pieces that
//! were ever freed, up to 64 MiB, and `malloc_trim` leaves it there. What a call with a long value needs for a moment would
//! stay, once for each thread.
//!
//! Promise: a long piece goes back to the operating system when it is freed, but for four until `give_back`; and none
//! has the C library keep more than it did. A layout tells where a piece is from.

use std::alloc::{GlobalAlloc, Layout};

/// The system's allocator, and mappings for long pieces.
pub struct System;

/// Whether a piece is mapped.
#[inline]
const fn is_long(layout: Layout) -> bool {
    layout.size() >= mapping::LONG_BYTES && layout.align() <= mapping::PAGE_BYTES
}

/// Gives back what is kept for the next.
pub fn give_back() {
    mapping::give_back();
}

// Safety: a layout is mapped or it is not, whenever it is asked about. What was mapped is unmapped, what the system's
// allocator gave goes back to it, and a piece that becomes another kind is copied.
#[expect(unsafe_code, reason = "an allocator")]
unsafe impl GlobalAlloc for System {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_long(layout) {
            return mapping::take(layout.size());
        }
        // Safety: as it came.
        unsafe { std::alloc::System.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_long(layout) {
            return mapping::map(layout.size());
        }
        // Safety: as it came.
        unsafe { std::alloc::System.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        // Safety: as it came, from where a piece of this layout comes from.
        unsafe {
            if is_long(layout) {
                mapping::free(piece, layout.size())
            } else {
                std::alloc::System.dealloc(piece, layout)
            }
        }
    }

    #[inline]
    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Safety: the caller gives a size that a layout may have, and a piece of the old one. Both pieces are as long as what is
        // copied; the old one is given back only when there is a new one.
        unsafe {
            let wanted = Layout::from_size_align_unchecked(size, layout.align());
            match (is_long(layout), is_long(wanted)) {
                (false, false) => std::alloc::System.realloc(piece, layout, size),
                (true, true) => mapping::resize(piece, layout.size(), size),
                _ => {
                    let fresh = self.alloc(wanted);
                    if !fresh.is_null() {
                        std::ptr::copy_nonoverlapping(piece, fresh, layout.size().min(size));
                        self.dealloc(piece, layout);
                    }
                    fresh
                }
            }
        }
    }
}

#[cfg(target_os = "linux")]
mod mapping {
    use std::ptr::null_mut;
    use std::sync::atomic::{AtomicPtr, Ordering};

    /// Pieces of so many bytes are mapped, as the C library does with them until it was given one back.
    pub(super) const LONG_BYTES: usize = 128 * 1024;
    /// What every mapping is aligned to.
    pub(super) const PAGE_BYTES: usize = 4096;
    /// What comes with a value of a round length.
    const SPARE_BYTES: usize = 64 * 1024;
    const SHORTEST: usize = (512 << 10) + SPARE_BYTES;
    const LONGEST: usize = (2 << 20) + SPARE_BYTES;
    /// Mappings of so many bytes are kept for the next: fresh pages take longer than what is done with them. Of a piece that is
    /// longer than all of them, huge pages are asked for.
    const KEPT: [usize; 4] = [SHORTEST, SHORTEST, (1 << 20) + SPARE_BYTES, LONGEST];

    /// Where they are kept: whoever exchanges a place for nothing has what was there, also after a fork.
    static PLACES: [AtomicPtr<u8>; KEPT.len()] = [const { AtomicPtr::new(null_mut()) }; KEPT.len()];

    /// The length of a piece's mapping: one of a few, so that another piece can have it. The operating system rounds longer ones
    /// up to whole pages by itself. What nobody touches takes addresses, and no memory.
    const fn mapped(bytes: usize) -> usize {
        if bytes > LONGEST {
            bytes
        } else if bytes > SHORTEST {
            (bytes - SPARE_BYTES).next_power_of_two() + SPARE_BYTES
        } else {
            SHORTEST
        }
    }

    /// The places for mappings of so many bytes.
    fn places(mapped: usize) -> impl Iterator<Item = &'static AtomicPtr<u8>> {
        PLACES.iter().zip(KEPT).filter(move |(_, kept)| *kept == mapped).map(|(place, _)| place)
    }

    #[cold]
    pub(super) fn take(bytes: usize) -> *mut u8 {
        let mut kept = places(mapped(bytes)).map(|place| place.swap(null_mut(), Ordering::Acquire));
        kept.find(|piece| !piece.is_null()).unwrap_or_else(|| map(bytes))
    }

    /// Fresh, and so all zeros.
    #[cold]
    pub(super) fn map(bytes: usize) -> *mut u8 {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // Safety: it asks for fresh memory anywhere.
        #[expect(unsafe_code, reason = "memory of one's own")]
        let start = given(unsafe { libc::mmap(null_mut(), mapped(bytes), protection, flags, -1, 0) });
        if bytes > LONGEST && !start.is_null() {
            // Safety: it was mapped with this length. It is advice: what becomes of it does not matter.
            #[expect(unsafe_code, reason = "memory of one's own")]
            unsafe {
                libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE);
            }
        }
        start
    }

    /// # Safety
    /// It came from here with this length, and nobody uses it.
    #[expect(unsafe_code, reason = "whoever frees must know that nobody uses it")]
    #[cold]
    pub(super) unsafe fn free(piece: *mut u8, bytes: usize) {
        let keep = |place: &AtomicPtr<u8>| {
            place.compare_exchange(null_mut(), piece, Ordering::Release, Ordering::Relaxed).is_ok()
        };
        if !places(mapped(bytes)).any(keep) {
            // Safety: as the caller says.
            unsafe { libc::munmap(piece.cast(), mapped(bytes)) };
        }
    }

    /// Pages move without being copied. Nothing where there is no memory, and then the piece is as it was.
    ///
    /// # Safety
    /// It came from here with this length.
    #[expect(unsafe_code, reason = "whoever moves must know that nobody uses it")]
    #[cold]
    pub(super) unsafe fn resize(piece: *mut u8, bytes: usize, wanted: usize) -> *mut u8 {
        let (from, to) = (mapped(bytes), mapped(wanted));
        if from == to {
            return piece;
        }
        // Safety: as the caller says.
        given(unsafe { libc::mremap(piece.cast(), from, to, libc::MREMAP_MAYMOVE) })
    }

    pub(super) fn give_back() {
        for (place, bytes) in PLACES.iter().zip(KEPT) {
            let piece = place.swap(null_mut(), Ordering::Acquire);
            if !piece.is_null() {
                // Safety: what was kept in this place has this length, and is nobody's any more.
                #[expect(unsafe_code, reason = "memory of one's own")]
                unsafe {
                    libc::munmap(piece.cast(), bytes);
                }
            }
        }
    }

    fn given(start: *mut libc::c_void) -> *mut u8 {
        if start == libc::MAP_FAILED { null_mut() } else { start.cast() }
    }
}

/// No piece is mapped.
#[cfg(not(target_os = "linux"))]
mod mapping {
    pub(super) const LONG_BYTES: usize = usize::MAX;
    pub(super) const PAGE_BYTES: usize = 0;

    pub(super) fn take(_: usize) -> *mut u8 {
        std::ptr::null_mut()
    }

    pub(super) fn map(_: usize) -> *mut u8 {
        std::ptr::null_mut()
    }

    #[expect(unsafe_code, reason = "as where pieces are mapped")]
    pub(super) unsafe fn free(_: *mut u8, _: usize) {}

    #[expect(unsafe_code, reason = "as where pieces are mapped")]
    pub(super) unsafe fn resize(_: *mut u8, _: usize, _: usize) -> *mut u8 {
        std::ptr::null_mut()
    }

    pub(super) fn give_back() {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes that tell their place.
    fn byte(at: usize) -> u8 {
        (at % 251) as u8
    }

    /// A piece that is filled, and given back.
    struct Piece {
        start: *mut u8,
        layout: Layout,
    }

    impl Piece {
        fn new(size: usize, zeroed: bool) -> Self {
            let layout = Layout::from_size_align(size, 16).expect("a layout");
            // Safety: it is not empty.
            #[expect(unsafe_code, reason = "an allocator")]
            let start = unsafe { if zeroed { System.alloc_zeroed(layout) } else { System.alloc(layout) } };
            assert!(!start.is_null() && start.addr().is_multiple_of(16));
            let piece = Self { start, layout };
            assert!(!zeroed || piece.bytes().iter().all(|byte| *byte == 0));
            piece
        }

        /// Its bytes, which were zero or filled.
        fn bytes(&self) -> &[u8] {
            // Safety: it is so long, and nobody writes meanwhile.
            #[expect(unsafe_code, reason = "an allocator")]
            unsafe {
                std::slice::from_raw_parts(self.start, self.layout.size())
            }
        }

        fn fill(&mut self) {
            for at in 0..self.layout.size() {
                // Safety: it is so long.
                #[expect(unsafe_code, reason = "an allocator")]
                unsafe {
                    self.start.add(at).write(byte(at));
                }
            }
        }

        fn resize(&mut self, size: usize) {
            // Safety: it has this layout, and the size is one of another.
            #[expect(unsafe_code, reason = "an allocator")]
            let start = unsafe { System.realloc(self.start, self.layout, size) };
            assert!(!start.is_null());
            let both = self.layout.size().min(size);
            (self.start, self.layout) = (start, Layout::from_size_align(size, 16).expect("a layout"));
            assert!(self.bytes()[..both].iter().enumerate().all(|(at, is)| *is == byte(at)));
        }
    }

    impl Drop for Piece {
        fn drop(&mut self) {
            // Safety: it has this layout, and nobody uses it.
            #[expect(unsafe_code, reason = "an allocator")]
            unsafe {
                System.dealloc(self.start, self.layout);
            }
        }
    }

    /// All kinds, and their edges.
    fn sizes() -> impl Strategy<Value = usize> {
        let edges = [128 << 10, (512 << 10) + (64 << 10), (1 << 20) + (64 << 10), (2 << 20) + (64 << 10), 5 << 20];
        let near = (prop::sample::select(edges.to_vec()), 0..3_usize).prop_map(|(edge, by)| edge - 1 + by);
        prop_oneof![near, 1..3_000_000_usize]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn pieces_keep_what_is_in_them_whatever_they_become(
            steps in prop::collection::vec((sizes(), sizes(), any::<bool>()), 1..12),
        ) {
            let mut held = Vec::new();
            for (size, wanted, zeroed) in steps {
                let mut piece = Piece::new(size, zeroed);
                piece.fill();
                piece.resize(wanted);
                piece.fill();
                if zeroed {
                    held.push(piece);
                } else {
                    give_back();
                }
            }
            prop_assert!(held.iter().all(|piece: &Piece| piece.bytes().iter().enumerate().all(|(at, is)| *is == byte(at))));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_piece_that_is_not_kept_for_the_next_is_gone() {
        let mapped = |piece: usize| {
            let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux has it");
            let ends = maps.lines().filter_map(|line| line.split(' ').next()?.split_once('-'));
            let number = |text: &str| usize::from_str_radix(text, 16).expect("an address");
            ends.into_iter().any(|(from, to)| (number(from)..number(to)).contains(&piece))
        };
        let piece = Piece::new(77 << 20, false);
        let last = piece.start.addr() + (77 << 20) - 1;
        assert!(mapped(last));
        drop(piece);
        assert!(!mapped(last), "a long piece stays");
    }
}
