//! ```text
//!   reserve   page for a slot?  longer table?  memory for key and value     all of it, or nothing and no change
//!      |
//!   evict what must go, if the node is full
//!      |
//!   insert, replace      use what was reserved: they cannot fail for want of memory
//! ```
//! The block of memory of each entry: reserved, filled, shortened, moved, given back.
//!
//! Promise: when there is no memory, nothing has changed. What is free in the heaps stays below an eighth of what is in use, and
//! a pool of each: small payloads are moved together, and pages are given back.

use std::ptr::NonNull;

use super::memory::Memory;
use super::payload::{Parts, Payload};
use super::slot::{At, NONE, State};
use super::store::{PAGE, Store, Table};
use crate::heap::Heap;

impl Memory {
    /// What it takes from the operating system for slots, keys and values.
    pub(super) fn bytes_held(&self) -> usize {
        self.store.bytes_held()
    }

    /// Reserves what an entry will need: memory for its key and value, and for a new one its slot and its place in the table.
    /// False when there is no memory, and then nothing changed.
    #[inline]
    pub(super) fn reserve(&mut self, table: &Table, at: Option<At>, parts: &Parts<'_>) -> bool {
        if let Some(at) = at
            && self.has_room_at(at, parts)
        {
            return true;
        }
        let needs_page = self.len() as usize == self.pages_len() * PAGE && !self.reserve_page();
        if needs_page || (table.len() == table.capacity() && !self.reserve_table(table)) {
            return false;
        }
        match self.allocate(parts) {
            Some(bytes) => {
                debug_assert!(self.store.reserved.is_none(), "something is reserved already");
                self.store.reserved = Some((bytes, parts.is_large()));
                true
            }
            None => false,
        }
    }

    /// Something is reserved for the next entry.
    #[inline]
    pub(super) const fn has_reserved(&self) -> bool {
        self.store.reserved.is_some()
    }

    /// Gives back what was reserved and not used.
    #[inline]
    pub(super) fn unreserve(&mut self) {
        if let Some((bytes, is_large)) = self.store.reserved.take() {
            self.store.free(bytes, is_large);
        }
        if self.store.table.is_some() {
            self.store.table = None;
        }
    }

    /// What was reserved for a payload.
    #[inline]
    pub(super) const fn take_reserved(&mut self) -> Option<NonNull<u8>> {
        match self.store.reserved.take() {
            Some((bytes, _)) => Some(bytes),
            None => None,
        }
    }

    #[cold]
    fn reserve_page(&mut self) -> bool {
        self.reserve_in_pages() && self.store.reserve_page()
    }

    #[cold]
    fn reserve_table(&mut self, table: &Table) -> bool {
        self.store.table = Self::table_for(Self::capacity_after(table));
        self.store.table.is_some()
    }

    /// The memory of a small payload is long enough for these parts.
    #[inline]
    pub(super) fn has_room_at(&self, at: At, parts: &Parts<'_>) -> bool {
        match self.slot(at).payload().memory() {
            Some((bytes, false)) if !parts.is_large() => {
                // Safety: a small payload's memory was allocated by the heap.
                #[expect(unsafe_code, reason = "the heap knows how long its block is")]
                unsafe {
                    self.store.heap.room_of(bytes) >= parts.len()
                }
            }
            _ => false,
        }
    }

    /// Memory for a payload.
    #[inline]
    fn allocate(&mut self, parts: &Parts<'_>) -> Option<NonNull<u8>> {
        if parts.is_large() {
            return self.store.allocate_large(parts.len());
        }
        let bytes = match self.store.heap.allocate(parts.len()) {
            Some(bytes) => bytes,
            None => self.allocate_more(parts.len())?,
        };
        self.set_owner(bytes, NONE);
        Some(bytes)
    }

    #[cold]
    fn allocate_more(&mut self, len: usize) -> Option<NonNull<u8>> {
        while self.store.heap.is_full_of_holes()
            && let Some(pool) = self.store.heap.loosest(len + 64)
        {
            self.slide(pool);
            if let Some(bytes) = self.store.heap.allocate(len) {
                return Some(bytes);
            }
        }
        if !self.store.heap.grow(len) {
            // What others may need more is given back before this fails.
            let pool = self.store.heap.loosest(len + 64)?;
            self.slide(pool);
        }
        self.store.heap.allocate(len)
    }

    /// Moves the payloads of a pool together.
    fn slide(&mut self, pool: usize) {
        let (store, pages) = self.store_and_pages();
        let Store { heap, reserved, .. } = store;
        heap.slide(pool, |owner, bytes| match owner {
            NONE => *reserved = reserved.map(|_| (bytes, false)),
            at => pages[at as usize / PAGE].slots[at as usize % PAGE].payload_mut().moved_to(bytes),
        });
    }

    /// Says which slot a small payload's memory belongs to.
    #[inline]
    pub(super) fn set_owner(&self, bytes: NonNull<u8>, at: At) {
        // Safety: it was allocated by the heap.
        #[expect(unsafe_code, reason = "the heap keeps it in front of the bytes")]
        unsafe {
            Heap::<true>::set_owner(bytes, at);
        }
    }

    /// Gives back the memory of a slot's payload, which is empty from then on.
    #[inline]
    pub(super) fn release(&mut self, at: At) {
        let payload = std::mem::replace(self.slot_mut(at).payload_mut(), Payload::EMPTY);
        if let Some((bytes, is_large)) = payload.memory() {
            self.store.free(bytes, is_large);
            self.tighten();
        }
    }

    /// Makes a payload as short as its key, and its lifetime if it has one: a marker. False when there is no memory for it, and
    /// then nothing changed.
    pub(super) fn shrink_to_marker(&mut self, at: At) -> bool {
        let slot = self.slot_mut(at);
        let has_lifetime = slot.has_lifetime();
        let (partition, payload) = (slot.partition(), slot.payload_mut());
        let Some((bytes, is_large)) = payload.memory() else { return true };
        if is_large {
            let key = NonNull::from(payload.key());
            let lifetime = payload.lifetime().copied().filter(|_| has_lifetime);
            // Safety: a large payload does not move, and is freed only after it was copied.
            #[expect(unsafe_code, reason = "a key in the vault, while memory is found for it")]
            let parts = Parts { key: unsafe { key.as_ref() }, lifetime, value: &[] };
            let Some(fresh) = self.allocate(&parts) else { return false };
            // Safety: it was allocated for these parts.
            #[expect(unsafe_code, reason = "memory that is filled once")]
            let marker = unsafe { Payload::fill(fresh, &parts, 0) };
            if !marker.is_large() {
                self.set_owner(fresh, at);
            }
            *self.slot_mut(at).payload_mut() = marker;
            self.store.free(bytes, true);
        } else {
            payload.cut(has_lifetime);
            let len = payload.len();
            // Safety: the heap allocated it, and what follows these bytes is not needed any more.
            #[expect(unsafe_code, reason = "the heap takes back the end of a block")]
            unsafe {
                self.store.heap.shorten(bytes, len);
            }
        }
        self.slot_mut(at).label_marker(partition, State::Evicted, has_lifetime);
        self.tighten();
        true
    }

    /// A payload in place of another: in its memory, or in what was reserved.
    #[inline]
    pub(super) fn refill(&mut self, at: At, parts: &Parts<'_>, label: u16) {
        let old = self.slot(at).payload().memory();
        let reserved = self.take_reserved();
        let Some(bytes) = reserved.or(old.map(|(bytes, _)| bytes)) else { return };
        // Safety: `has_room_at` or `reserve` saw that there is room for these parts.
        #[expect(unsafe_code, reason = "memory that is filled once")]
        let payload = unsafe { Payload::fill(bytes, parts, label) };
        let is_small = !payload.is_large();
        *self.slot_mut(at).payload_mut() = payload;
        if is_small {
            self.set_owner(bytes, at);
        }
        match (reserved, old) {
            (Some(_), Some((bytes, is_large))) => self.store.free(bytes, is_large),
            (None, _) => {
                // Safety: the block is a small payload's, which takes so much of it.
                #[expect(unsafe_code, reason = "the heap takes back the end of a block")]
                unsafe {
                    self.store.heap.shorten(bytes, parts.len());
                }
            }
            _ => {}
        }
        self.tighten();
    }

    /// Keeps what is free within bounds.
    #[inline]
    fn tighten(&mut self) {
        if self.store.heap.is_loose() {
            self.give_back();
        }
    }

    #[cold]
    fn give_back(&mut self) {
        let free_bytes = self.store.heap.resident_free_bytes();
        if free_bytes < self.store.tolerated_bytes {
            return;
        }
        match self.store.heap.loosest(0) {
            Some(pool) => self.slide(pool),
            None => self.store.heap.tighten(),
        }
        let left = self.store.heap.resident_free_bytes();
        self.store.tolerated_bytes = if left < free_bytes { 0 } else { left + left / 8 };
    }

    /// Fails unless each block in use is a slot's payload.
    pub(super) fn check_store(&self) {
        let mut small = 0;
        self.store.heap.check(|owner, bytes| {
            if owner != NONE {
                assert_eq!(self.slot(owner).payload().memory(), Some((bytes, false)), "a block is another slot's");
            }
            small += 1;
        });
        self.store.slots.check(|_, _| ());
        let kept = (0..self.len()).filter(|&at| !self.slot(at).payload().is_large()).count();
        assert_eq!(small, kept + usize::from(self.store.reserved.is_some()), "a block is nobody's");
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Small payloads go with their heap. Of large ones readers may have shares.
        if self.store.vault.is_some() {
            for at in 0..self.len() {
                if let Some((bytes, true)) = self.slot(at).payload().memory() {
                    self.store.free(bytes, true);
                }
            }
        }
        if let Some((bytes, true)) = self.store.reserved {
            self.store.free(bytes, true);
        }
    }
}
