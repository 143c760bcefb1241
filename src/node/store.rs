//! ```text
//!   slots, 32 a page   small payloads     large payloads
//!   [ heap ]           [ heap ]           [ vault ]            of this node alone: they go with it
//! ```
//! Where a node's slots, keys and values get their memory from, and what is reserved there for the next entry.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use hashbrown::HashTable;

use super::slot::Slot;
use crate::heap::Heap;
use crate::shared::Vault;

/// Slots in a page: the slots that are free take at most 1.5 KiB, and a page's allocation costs a byte a slot.
pub(super) const PAGE: usize = 32;
/// The keys of one partition: numbers of slots by hash.
pub(super) type Table = HashTable<u32>;

/// The slots of a page, in a heap of the node.
pub(super) struct Slots(NonNull<[Slot; PAGE]>);

// Safety: the slots are the page's alone.
#[expect(unsafe_code, reason = "owned memory behind a pointer")]
unsafe impl Send for Slots {}

impl Deref for Slots {
    type Target = [Slot; PAGE];

    #[inline]
    fn deref(&self) -> &[Slot; PAGE] {
        // Safety: they were made vacant when the page was, and live as long as its memory has the page.
        #[expect(unsafe_code, reason = "owned memory behind a pointer")]
        unsafe {
            self.0.as_ref()
        }
    }
}

impl DerefMut for Slots {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Slot; PAGE] {
        // Safety: as above, and the page is borrowed mutably.
        #[expect(unsafe_code, reason = "owned memory behind a pointer")]
        unsafe {
            self.0.as_mut()
        }
    }
}

/// Memory of a node.
pub(super) struct Store {
    /// Small payloads.
    pub(super) heap: Heap<true>,
    /// Large ones. Most nodes have none.
    pub(super) vault: Option<Vault>,
    /// Pages of slots.
    pub(super) slots: Heap<false>,
    bytes_max: usize,
    /// So much that is free was found not to be worth giving back.
    pub(super) tolerated_bytes: usize,
    /// For the next payload; whether it is in the vault.
    pub(super) reserved: Option<(NonNull<u8>, bool)>,
    /// For the next slot.
    page: Option<Slots>,
    /// For a table that is full.
    pub(super) table: Option<Table>,
}

// Safety: what is reserved is the store's alone.
#[expect(unsafe_code, reason = "owned memory behind a pointer")]
unsafe impl Send for Store {}

impl Store {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            heap: Heap::new(bytes_max),
            vault: None,
            slots: Heap::new(bytes_max / 4),
            bytes_max,
            tolerated_bytes: 0,
            reserved: None,
            page: None,
            table: None,
        }
    }

    /// What it takes from the operating system.
    pub(super) fn bytes_held(&self) -> usize {
        self.heap.bytes_held() + self.slots.bytes_held() + self.vault.as_ref().map_or(0, Vault::bytes_held)
    }

    /// The page that was reserved.
    pub(super) const fn take_page(&mut self) -> Option<Slots> {
        self.page.take()
    }

    /// Keeps a page for the next slot, if none is kept.
    pub(super) fn keep_page(&mut self, page: Slots) {
        if self.page.is_none() {
            self.page = Some(page);
            return;
        }
        // Safety: it was allocated here, and no slot of it is in use.
        #[expect(unsafe_code, reason = "the page goes back to its heap")]
        unsafe {
            self.slots.free(page.0.cast());
        }
        if self.slots.is_loose() {
            self.slots.tighten();
        }
    }

    /// The table that was reserved.
    pub(super) const fn take_table(&mut self) -> Option<Table> {
        self.table.take()
    }

    pub(super) fn reserve_page(&mut self) -> bool {
        if self.page.is_some() {
            return true;
        }
        let len = size_of::<[Slot; PAGE]>();
        let page =
            self.slots.allocate(len).or_else(|| self.slots.grow(len).then(|| self.slots.allocate(len)).flatten());
        let Some(page) = page.map(NonNull::cast::<[Slot; PAGE]>) else { return false };
        // Safety: the memory is fresh, long enough and aligned to 16.
        #[expect(unsafe_code, reason = "memory that is filled once")]
        unsafe {
            page.write([const { Slot::VACANT }; PAGE]);
        }
        self.page = Some(Slots(page));
        true
    }

    pub(super) fn allocate_large(&mut self, len: usize) -> Option<NonNull<u8>> {
        let bytes_max = self.bytes_max;
        self.vault.get_or_insert_with(|| Vault::new(bytes_max)).allocate(len)
    }

    /// Gives memory back.
    #[inline]
    pub(super) fn free(&mut self, bytes: NonNull<u8>, is_large: bool) {
        // Safety: the memory was allocated here, and who had it has forgotten it.
        #[expect(unsafe_code, reason = "a payload's memory goes back to where it came from")]
        unsafe {
            match (&mut self.vault, is_large) {
                (Some(vault), true) => vault.free(bytes),
                _ => self.heap.free(bytes),
            }
        }
    }
}
