//! ```text
//!   the bytes of a dict's key  ->  one of 1,024 places  ->  the same `str` as last time, or a new one
//! ```
//! The short strings that dicts have for keys. Records of one kind have the same keys again and again: a `str` that is
//! there already takes no memory, and knows its hash.
//!
//! Promise: at most 1,024 strings of at most 31 bytes are kept. Nobody waits: who finds the table in use goes without.

use crate::lock::{Mutex, MutexGuard};
use pyo3::prelude::*;

use super::codec::text_object;

/// Records of a few dozen kinds, and room for collisions. A power of two.
const PLACES: usize = 1024;
const TEXT_BYTES_MAX: usize = 31;

/// Held while a value is read, which may run a finalizer that reads another: that one goes without.
static TABLE: Mutex<KeyStrings> = Mutex::new(KeyStrings([const { Place::EMPTY }; PLACES]));

pub(super) struct KeyStrings([Place; PLACES]);

struct Place {
    text: [u8; TEXT_BYTES_MAX],
    len: u8,
    object: Option<Py<PyAny>>,
}

impl Place {
    const EMPTY: Self = Self { text: [0; TEXT_BYTES_MAX], len: 0, object: None };
}

/// The table, unless somebody uses it.
#[inline]
pub(super) fn table() -> Option<MutexGuard<'static, KeyStrings>> {
    TABLE.try_lock()
}

impl KeyStrings {
    /// The `str` of these bytes; nothing when they are no UTF-8.
    #[inline]
    pub(super) fn get<'py>(&mut self, py: Python<'py>, text: &[u8]) -> Option<Bound<'py, PyAny>> {
        if text.len() > TEXT_BYTES_MAX {
            return text_object(py, text);
        }
        let place = &mut self.0[place_of(text)];
        if let Some(object) = &place.object
            && place.text[..usize::from(place.len)] == *text
        {
            return Some(object.bind(py).clone());
        }
        let object = text_object(py, text)?;
        place.text[..text.len()].copy_from_slice(text);
        place.len = text.len() as u8;
        place.object = Some(object.clone().unbind());
        Some(object)
    }
}

/// The first and the last eight bytes and the length, multiplied by 2**64 divided by the golden ratio (Knuth, 6.4).
#[inline]
fn place_of(text: &[u8]) -> usize {
    let word = |part: &[u8]| part.iter().rev().fold(0, |word: u64, &byte| word << 8 | u64::from(byte));
    let (first, last) = match (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => (word(text), 0),
    };
    let mixed = (first ^ last.rotate_left(29) ^ text.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (64 - PLACES.trailing_zeros())) as usize
}
