//! ```text
//!   small   [ key | lifetime | value ]           a block of the node's heap, which may move
//!   large   [ counts | key | lifetime | value ]  a block of its vault: a reader takes a share and copies later
//!           16 bytes here: pointer, length, and a word with the key's length and 15 bits of label
//! ```
//! The memory of one key and its value, and of its lifetime if it has one.
//!
//! Promise: one allocation, 16 bytes in the slot. A slice with the key's length and the label beside it would take 24, which
//! is 4 % of the entries that fit in a node, and a counted slice 16 more for each.
//!
//! It does not free itself: its memory is the node's, which gives it back (`Memory::release`).

use std::ptr::NonNull;

use crate::entry::{Form, KEY_BYTES_MAX, Value};
use crate::lifetime::LIFETIME_BYTES;
use crate::message::Share;
use crate::shared::{HEAD_BYTES, Vault};

/// From this many bytes on, key and value together, a reader takes a share instead of copying while the node is held.
pub(super) const SHARED_FROM_BYTES: usize = 16 * 1024;

const KEY_BITS: u32 = 17;
const KEY_MASK: u32 = (1 << KEY_BITS) - 1;
const _: () = assert!(KEY_BYTES_MAX <= KEY_MASK as usize);

/// What a heap adds to each piece of memory: a header, and rounding to 16.
const ALLOCATION_BYTES: usize = crate::heap::HEADER_BYTES;
const _: () = assert!(SHARED_FROM_BYTES <= crate::heap::MOVING_BYTES_MAX);

/// A lifetime as it is kept.
pub(super) type LifetimeBytes = [u8; LIFETIME_BYTES];

/// What a payload is made of.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) key: &'a [u8],
    pub(super) lifetime: Option<LifetimeBytes>,
    pub(super) value: &'a [u8],
}

impl Parts<'_> {
    /// Bytes of all.
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.key.len() + self.value.len() + if self.lifetime.is_some() { LIFETIME_BYTES } else { 0 }
    }

    /// A large one is for the vault.
    #[inline]
    pub(super) const fn is_large(&self) -> bool {
        self.len() >= SHARED_FROM_BYTES
    }
}

/// A key, a value, perhaps a lifetime, and a label of 15 bits that is the owner's to use.
pub(super) struct Payload {
    bytes: NonNull<u8>,
    len: u32,
    word: u32,
}

// Safety: a payload's bytes are its node's (small), or shared immutably (large).
#[expect(unsafe_code, reason = "the bytes are owned or immutable")]
unsafe impl Send for Payload {}

impl Payload {
    /// No key, no value, no memory.
    pub(super) const EMPTY: Self = Self { bytes: NonNull::dangling(), len: 0, word: 0 };

    /// Copies key, lifetime and value into memory of the node.
    ///
    /// # Safety
    /// `bytes` has room for them, and is nobody's who looks at it.
    #[expect(unsafe_code, reason = "memory that is filled once")]
    #[inline]
    pub(super) unsafe fn fill(bytes: NonNull<u8>, parts: &Parts<'_>, label: u16) -> Self {
        // Safety: as the caller says; what is copied is not in that memory, since it came with a request.
        unsafe {
            let start = bytes.as_ptr();
            std::ptr::copy_nonoverlapping(parts.key.as_ptr(), start, parts.key.len());
            let mut at = parts.key.len();
            if let Some(lifetime) = &parts.lifetime {
                std::ptr::copy_nonoverlapping(lifetime.as_ptr(), start.add(at), LIFETIME_BYTES);
                at += LIFETIME_BYTES;
            }
            std::ptr::copy_nonoverlapping(parts.value.as_ptr(), start.add(at), parts.value.len());
        }
        // `Key` and `Value` bound both lengths so that their sum fits 32 bits, with a lifetime too.
        Self { bytes, len: parts.len() as u32, word: parts.key.len() as u32 | u32::from(label) << KEY_BITS }
    }

    /// Where its memory is, if it has any, and whether that is in the vault.
    #[inline]
    pub(super) fn memory(&self) -> Option<(NonNull<u8>, bool)> {
        (self.bytes != NonNull::dangling()).then_some((self.bytes, self.is_large()))
    }

    #[inline]
    pub(super) const fn is_large(&self) -> bool {
        self.len as usize >= SHARED_FROM_BYTES
    }

    /// Bytes of all that it has.
    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    /// Its memory was moved.
    #[inline]
    pub(super) const fn moved_to(&mut self, bytes: NonNull<u8>) {
        self.bytes = bytes;
    }

    /// Forgets what follows the key, but for a lifetime. Its memory is as long as before.
    pub(super) const fn cut(&mut self, has_lifetime: bool) {
        self.len = (self.key_len() + if has_lifetime { LIFETIME_BYTES } else { 0 }) as u32;
    }

    /// What an allocation of `len` bytes takes of a node's memory.
    #[inline]
    pub(super) const fn bytes_for(len: usize) -> usize {
        let counts = if len < SHARED_FROM_BYTES { 0 } else { HEAD_BYTES };
        let bytes = (len + counts + ALLOCATION_BYTES + 15) & !15;
        if bytes < 32 { 32 } else { bytes }
    }

    /// What this takes of a node's memory, its slot aside.
    #[inline]
    pub(super) const fn bytes_held(&self) -> usize {
        Self::bytes_for(self.len as usize)
    }

    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        &self.all()[..self.key_len()]
    }

    /// What follows the key: the value, after `skipped` bytes of a lifetime.
    #[inline]
    fn value(&self, skipped: usize) -> &[u8] {
        &self.all()[self.key_len() + skipped..]
    }

    /// Bytes that follow the key.
    #[inline]
    pub(super) fn kept_bytes(&self) -> usize {
        self.len as usize - self.key_len()
    }

    /// The lifetime, in a payload that was made with one.
    pub(super) fn lifetime(&self) -> Option<&LifetimeBytes> {
        self.value(0).first_chunk()
    }

    /// A share of a large value's memory; a small one is to be copied at once.
    #[inline]
    pub(super) fn share(&self, skipped: usize, form: Form) -> Option<Share> {
        if !self.is_large() {
            return None;
        }
        // Safety: a large payload's bytes are a block of the vault that was filled, of which the node has a share.
        #[expect(unsafe_code, reason = "one more share of a block")]
        let bytes = unsafe { Vault::share(self.bytes, self.len as usize) };
        Some(Share::new(bytes, self.key_len() + skipped, form))
    }

    #[inline]
    pub(super) const fn label(&self) -> u16 {
        (self.word >> KEY_BITS) as u16
    }

    #[inline]
    pub(super) fn set_label(&mut self, label: u16) {
        self.word = self.word & KEY_MASK | u32::from(label) << KEY_BITS;
    }

    #[inline]
    pub(super) const fn key_len(&self) -> usize {
        (self.word & KEY_MASK) as usize
    }

    #[inline]
    fn all(&self) -> &[u8] {
        // Safety: `bytes` points to `len` bytes that were written when this was made, live as long as this, and do not change.
        #[expect(unsafe_code, reason = "a slice kept as pointer and 32-bit length")]
        unsafe {
            std::slice::from_raw_parts(self.bytes.as_ptr(), self.len as usize)
        }
    }
}

impl Payload {
    /// The value as it came, after `skipped` bytes of a lifetime.
    #[inline]
    pub(super) fn value_as(&self, skipped: usize, form: Form) -> Value<'_> {
        Value::stored(self.value(skipped), form)
    }
}
