//! ```text
//!   node   Vault ----> heap: [ counts | bytes ]  [ counts | bytes ]
//!                               ^ a reader's share: when the last one goes, the block waits in `returned`
//!                                                 until the node looks
//! ```
//! The memory of a node's large values. A reader takes a share and copies when the node is no longer held.
//!
//! Promise: what a share reads stays as it is, also when the entry is evicted and when the node is gone. No lock is taken: only
//! the node changes the heap, and who gives a block back leaves it where the node finds it.

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::heap::Heap;

/// In front of the bytes of a block. The bytes follow.
#[repr(C)]
struct Head {
    /// So many have a share, the node included.
    shares: AtomicUsize,
    home: *const Home,
}

/// What a block has in front of its bytes.
pub const HEAD_BYTES: usize = size_of::<Head>();
const _: () = assert!(HEAD_BYTES == 16);

/// Where blocks live. Each block in use has a count of it, so that it outlives them all.
struct Home {
    heap: UnsafeCell<Heap<false>>,
    /// Blocks that their last reader gave back, each with the next in the place of its bytes.
    returned: AtomicPtr<Head>,
}

// Safety: only the one `Vault` of a home touches its heap, and it is not cloned; `returned` is atomic. When the vault is gone,
// only the last count of the home is left to drop the heap.
#[expect(unsafe_code, reason = "one owner, and an atomic word for all others")]
unsafe impl Sync for Home {}
// Safety: as above: whoever has the vault, on whatever thread, is the only one that touches the heap.
#[expect(unsafe_code, reason = "one owner, and an atomic word for all others")]
unsafe impl Send for Home {}

/// The node's side.
pub struct Vault(Arc<Home>);

/// A share of some bytes. Cloning it shares them once more.
pub struct SharedBytes {
    bytes: NonNull<u8>,
    len: usize,
}

// Safety: the bytes do not change, and the count is atomic.
#[expect(unsafe_code, reason = "immutable bytes with an atomic count")]
unsafe impl Send for SharedBytes {}
// Safety: as above: many threads may read what does not change.
#[expect(unsafe_code, reason = "immutable bytes with an atomic count")]
unsafe impl Sync for SharedBytes {}

impl Vault {
    /// For a node of so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        let heap = UnsafeCell::new(Heap::new(bytes_max));
        Self(Arc::new(Home { heap, returned: AtomicPtr::new(std::ptr::null_mut()) }))
    }

    /// What it takes from the operating system.
    pub fn bytes_held(&self) -> usize {
        // Safety: a vault is one node's, and it is borrowed: nobody changes the heap meanwhile.
        #[expect(unsafe_code, reason = "the vault is the heap's only user")]
        unsafe {
            (*self.0.heap.get()).bytes_held()
        }
    }

    /// Room for so many bytes, to be filled; nothing when there is no memory, and then nothing changed.
    pub fn allocate(&mut self, len: usize) -> Option<NonNull<u8>> {
        self.take_back();
        let home = Arc::as_ptr(&self.0);
        let heap = self.heap();
        let block = heap.allocate(HEAD_BYTES + len);
        let block = block.or_else(|| {
            // What may be free is given back first: then as much more as is needed takes nothing in all.
            heap.tighten();
            heap.grow(HEAD_BYTES + len).then(|| heap.allocate(HEAD_BYTES + len)).flatten()
        });
        let block = block.or_else(|| {
            heap.purge(0);
            heap.grow(HEAD_BYTES + len).then(|| heap.allocate(HEAD_BYTES + len)).flatten()
        })?;
        // Safety: the block is fresh, aligned to 16, and has room for the head and the bytes. The home is an `Arc`'s, and the
        // block has a count of it from now on.
        #[expect(unsafe_code, reason = "a head in front of raw bytes")]
        unsafe {
            Arc::increment_strong_count(home);
            block.cast::<Head>().write(Head { shares: AtomicUsize::new(1), home });
            Some(block.add(HEAD_BYTES))
        }
    }

    /// The node's share of a block goes. Its memory is free when the last share is gone.
    ///
    /// # Safety
    /// It was allocated here, and the node uses it no more.
    #[expect(unsafe_code, reason = "whoever frees must know that it is the node's share")]
    pub unsafe fn free(&mut self, bytes: NonNull<u8>) {
        self.take_back();
        // Safety: the head is in front of the bytes, and alive while there are shares.
        unsafe {
            let head = head_of(bytes);
            if (*head).shares.fetch_sub(1, Ordering::AcqRel) == 1 {
                // The vault itself has another count.
                Arc::decrement_strong_count((*head).home);
                self.reclaim(head);
            }
        }
        let heap = self.heap();
        if heap.is_loose() {
            heap.tighten();
        }
    }

    /// One more share of a block, which has so many bytes.
    ///
    /// # Safety
    /// It was allocated here, is so long, was filled, and the node has a share of it.
    #[expect(unsafe_code, reason = "whoever shares must know that it is alive")]
    pub unsafe fn share(bytes: NonNull<u8>, len: usize) -> SharedBytes {
        // Safety: the head is in front of the bytes, and alive while there are shares. So many shares as would overflow the
        // count do not fit in memory.
        unsafe { (*head_of(bytes)).shares.fetch_add(1, Ordering::Relaxed) };
        SharedBytes { bytes, len }
    }

    #[inline]
    fn heap(&mut self) -> &mut Heap<false> {
        // Safety: a vault is one node's, and it is borrowed mutably: nobody else touches the heap.
        #[expect(unsafe_code, reason = "the vault is the heap's only user")]
        unsafe {
            &mut *self.0.heap.get()
        }
    }

    /// Takes what readers gave back.
    #[inline]
    fn take_back(&mut self) {
        if self.0.returned.load(Ordering::Relaxed).is_null() {
            return;
        }
        let mut head = self.0.returned.swap(std::ptr::null_mut(), Ordering::Acquire);
        while !head.is_null() {
            // Safety: what was given back is nobody's, and its bytes begin with where the next is.
            #[expect(unsafe_code, reason = "a list through blocks that nobody uses")]
            unsafe {
                let next = head.add(1).cast::<*mut Head>().read();
                self.reclaim(head);
                head = next;
            }
        }
    }

    /// # Safety
    /// A block of this vault that nobody has a share of, and whose count of the home was given up.
    #[expect(unsafe_code, reason = "whoever reclaims must know that it is nobody's")]
    unsafe fn reclaim(&mut self, head: *mut Head) {
        // Safety: as the caller says.
        unsafe { self.heap().free(NonNull::new_unchecked(head.cast())) };
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        self.take_back();
        // What readers still have stays as it is, but not the free memory around it.
        self.heap().purge(0);
    }
}

impl SharedBytes {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // Safety: they were filled before they were shared, do not change, and live while there is a share.
        #[expect(unsafe_code, reason = "bytes behind a pointer")]
        unsafe {
            std::slice::from_raw_parts(self.bytes.as_ptr(), self.len)
        }
    }
}

impl Clone for SharedBytes {
    fn clone(&self) -> Self {
        // Safety: this share keeps it alive.
        #[expect(unsafe_code, reason = "one more share of what is alive")]
        unsafe {
            Vault::share(self.bytes, self.len)
        }
    }
}

impl Drop for SharedBytes {
    fn drop(&mut self) {
        // Safety: the head is alive while there are shares. Whoever has the last one leaves the block to the vault: a block has at
        // least 16 KiB, so there is room for a link. The home is alive until its count of this block is given up, by the
        // vault, or here, when there is no vault: then the count of the home that the block had is the block's last use.
        #[expect(unsafe_code, reason = "the last share gives the block back")]
        unsafe {
            let head = head_of(self.bytes);
            if (*head).shares.fetch_sub(1, Ordering::AcqRel) != 1 {
                return;
            }
            let home = Arc::from_raw((*head).home);
            let mut next = home.returned.load(Ordering::Relaxed);
            loop {
                head.add(1).cast::<*mut Head>().write(next);
                match home.returned.compare_exchange_weak(next, head, Ordering::Release, Ordering::Relaxed) {
                    Ok(_) => break,
                    Err(other) => next = other,
                }
            }
            drop(home);
        }
    }
}

/// # Safety
/// The bytes are of a block of a vault.
#[expect(unsafe_code, reason = "a head in front of raw bytes")]
#[inline]
const unsafe fn head_of(bytes: NonNull<u8>) -> *mut Head {
    // Safety: as the caller says.
    unsafe { bytes.as_ptr().sub(HEAD_BYTES).cast() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 40_000;

    fn filled(vault: &mut Vault, byte: u8) -> (NonNull<u8>, SharedBytes) {
        let bytes = vault.allocate(LEN).expect("there is memory");
        // Safety: it was allocated with this length, and is the vault's until it is freed.
        unsafe {
            bytes.as_ptr().write_bytes(byte, LEN);
            (bytes, Vault::share(bytes, LEN))
        }
    }

    fn is_filled(share: &SharedBytes, byte: u8) -> bool {
        share.bytes().len() == LEN && share.bytes().iter().all(|&is| is == byte)
    }

    #[test]
    fn a_share_outlives_its_entry_and_its_node() {
        let mut vault = Vault::new(1 << 26);
        let (first, share) = filled(&mut vault, 1);
        let (second, another) = filled(&mut vault, 2);
        // Safety: both were allocated here and are used no more.
        unsafe {
            vault.free(first);
            vault.free(second);
        }
        let (third, last) = filled(&mut vault, 3);
        drop(another);
        assert!(is_filled(&share, 1) && is_filled(&last, 3));
        // Safety: as above.
        unsafe { vault.free(third) };
        drop(vault);
        let again = share.clone();
        drop(share);
        assert!(is_filled(&again, 1) && is_filled(&last, 3));
    }

    #[test]
    fn readers_on_other_threads_give_blocks_back() {
        let mut vault = Vault::new(1 << 24);
        std::thread::scope(|scope| {
            let (send, receive) = std::sync::mpsc::channel::<(SharedBytes, u8)>();
            scope.spawn(move || receive.iter().for_each(|(share, byte)| assert!(is_filled(&share, byte))));
            for round in 0..2000_u32 {
                let (bytes, share) = filled(&mut vault, round as u8);
                send.send((share, round as u8)).expect("it listens");
                // Safety: it was allocated here and is used no more.
                unsafe { vault.free(bytes) };
                if round % 64 == 0 {
                    // Let the reader come after: what it gave back is used again.
                    std::thread::yield_now();
                }
            }
        });
        vault.take_back();
        let heap = vault.heap();
        heap.check(|_, _| panic!("a block is left"));
        heap.purge(0);
        assert_eq!(vault.bytes_held(), 0);
    }
}
