//! ```text
//!   small   [ key | lifetime | value ]           one boxed slice
//!   large   [ counts | key | lifetime | value ]  one counted slice: a reader takes a share and copies later
//!           16 bytes here: pointer, length, and a word with the key's length and 15 bits of label
//! ```
//! The memory of one key and its value, and of its lifetime if it has one.
//!
//! Promise: one allocation, 16 bytes in the slot. A boxed slice with the key's length and the label beside it would take
//! 24, which is 4 % of the entries that fit in a node, and a counted slice 16 more for each.

use std::ptr::NonNull;
use std::sync::Arc;

use crate::entry::{Form, KEY_BYTES_MAX, Value};
use crate::lifetime::LIFETIME_BYTES;
use crate::message::Share;

/// From this many bytes on, key and value together, a reader takes a share instead of copying while the node is held.
pub(super) const SHARED_FROM_BYTES: usize = 16 * 1024;

const KEY_BITS: u32 = 17;
const KEY_MASK: u32 = (1 << KEY_BITS) - 1;
const _: () = assert!(KEY_BYTES_MAX <= KEY_MASK as usize);

/// What an allocator adds to each piece of memory: a word before it, and rounding to 16 (glibc's malloc).
const ALLOCATION_BYTES: usize = 8;
/// The two counters of an `Arc`.
const COUNTS_BYTES: usize = 16;

/// A lifetime as it is kept.
type LifetimeBytes = [u8; LIFETIME_BYTES];

/// A key, a value, perhaps a lifetime, and a label of 15 bits that is the owner's to use.
pub(super) struct Payload {
    bytes: NonNull<u8>,
    len: u32,
    word: u32,
}

// Safety: a payload owns its bytes alone (small), or shares them immutably through an `Arc` (large).
#[expect(unsafe_code, reason = "the bytes are owned or immutable")]
unsafe impl Send for Payload {}

impl Payload {
    /// No key, no value, no allocation.
    pub(super) const EMPTY: Self = Self { bytes: NonNull::dangling(), len: 0, word: 0 };

    /// Copies key and value into one allocation.
    pub(super) fn new(key: &[u8], value: &[u8], label: u16) -> Self {
        let len = key.len() + value.len();
        let bytes = if len < SHARED_FROM_BYTES {
            let mut bytes = Vec::with_capacity(len);
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value);
            NonNull::from(Box::leak(bytes.into_boxed_slice())).cast()
        } else {
            shared(key, &[], value)
        };
        // `Key` and `Value` bound both lengths so that their sum fits 32 bits, with a lifetime too.
        Self { bytes, len: len as u32, word: key.len() as u32 | u32::from(label) << KEY_BITS }
    }

    /// The same with a lifetime between the two.
    #[cold]
    pub(super) fn living(key: &[u8], lifetime: &LifetimeBytes, value: &[u8], label: u16) -> Self {
        let len = key.len() + lifetime.len() + value.len();
        let bytes = if len < SHARED_FROM_BYTES {
            NonNull::from(Box::leak([key, lifetime, value].concat().into_boxed_slice())).cast()
        } else {
            shared(key, lifetime, value)
        };
        Self { bytes, len: len as u32, word: key.len() as u32 | u32::from(label) << KEY_BITS }
    }

    /// What an allocation of `len` bytes takes of a node's memory.
    #[inline]
    pub(super) const fn bytes_for(len: usize) -> usize {
        let counts = if len < SHARED_FROM_BYTES { 0 } else { COUNTS_BYTES };
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
        if (self.len as usize) < SHARED_FROM_BYTES {
            return None;
        }
        // Safety: a large payload's bytes came from `Arc::into_raw`, and the count is raised before the new `Arc` is made.
        #[expect(unsafe_code, reason = "a second owner of an `Arc` that was taken apart")]
        let bytes = unsafe {
            Arc::increment_strong_count(self.slice_pointer().cast_const());
            Arc::from_raw(self.slice_pointer().cast_const())
        };
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

    /// Gives the value's memory back and keeps the key, and the lifetime if it was made with one.
    pub(super) fn forget_value(&mut self, has_lifetime: bool) {
        *self = match self.lifetime().filter(|_| has_lifetime) {
            Some(lifetime) => Self::living(self.key(), lifetime, &[], self.label()),
            None => Self::new(self.key(), &[], self.label()),
        };
    }

    #[inline]
    const fn key_len(&self) -> usize {
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

    #[inline]
    fn slice_pointer(&self) -> *mut [u8] {
        std::ptr::slice_from_raw_parts_mut(self.bytes.as_ptr(), self.len as usize)
    }
}

/// A counted slice of key, lifetime and value, taken apart. Written once, in place: a value may have gigabytes.
fn shared(key: &[u8], lifetime: &[u8], value: &[u8]) -> NonNull<u8> {
    let before = key.len() + lifetime.len();
    let bytes = Arc::<[u8]>::new_uninit_slice(before + value.len());
    // Safety: the slice is fresh, so it has one owner and overlaps nothing; the copies together fill it.
    #[expect(unsafe_code, reason = "filling a slice without writing it twice")]
    unsafe {
        let start: *mut u8 = Arc::as_ptr(&bytes).cast_mut().cast();
        std::ptr::copy_nonoverlapping(key.as_ptr(), start, key.len());
        std::ptr::copy_nonoverlapping(lifetime.as_ptr(), start.add(key.len()), lifetime.len());
        std::ptr::copy_nonoverlapping(value.as_ptr(), start.add(before), value.len());
        NonNull::new_unchecked(Arc::into_raw(bytes.assume_init()).cast_mut().cast())
    }
}

impl Drop for Payload {
    #[inline]
    fn drop(&mut self) {
        // Safety: `new` took a box or an `Arc` of exactly `len` bytes apart, and the length tells which of the two.
        #[expect(unsafe_code, reason = "what `new` took apart is put together again, once")]
        unsafe {
            if (self.len as usize) < SHARED_FROM_BYTES {
                drop(Box::from_raw(self.slice_pointer()));
            } else {
                drop(Arc::from_raw(self.slice_pointer().cast_const()));
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_value_and_label_come_back_small_and_large() {
        for value_bytes in [0, 1, 100, SHARED_FROM_BYTES - 4, SHARED_FROM_BYTES, 1 << 20] {
            for lifetime in [None, Some(&[5; LIFETIME_BYTES])] {
                let (value, skipped) = (vec![7; value_bytes], lifetime.map_or(0, |_| LIFETIME_BYTES));
                let mut payload = match lifetime {
                    Some(lifetime) => Payload::living(b"key", lifetime, &value, 0x7abc),
                    None => Payload::new(b"key", &value, 0x7abc),
                };
                let all =
                    |payload: &Payload| (payload.key().to_vec(), payload.value(skipped).to_vec(), payload.label());
                assert_eq!(all(&payload), (b"key".to_vec(), value.clone(), 0x7abc));
                assert_eq!(payload.lifetime().filter(|_| lifetime.is_some()), lifetime);
                payload.set_label(3);
                payload.forget_value(lifetime.is_some());
                assert_eq!(all(&payload), (b"key".to_vec(), Vec::new(), 3));
                assert_eq!(payload.lifetime().filter(|_| lifetime.is_some()), lifetime);
            }
        }
    }

    #[test]
    fn a_share_outlives_the_entry() {
        let payload = Payload::living(b"key", &[5; LIFETIME_BYTES], &vec![9; 1 << 20], 0);
        let share = payload.share(LIFETIME_BYTES, Form::Raw).expect("large");
        drop(payload);
        assert_eq!(share.value().bytes(), vec![9; 1 << 20]);
        assert!(Payload::new(b"key", b"small", 0).share(0, Form::Raw).is_none());
    }
}
