//! ```text
//!   {"name": "Ada", "tags": ["a"]}  ->  each object's opcodes, in one pass  ->  the bytes of pickle.dumps(value, 5)
//!      anything large, deep, or not of these types exactly: not here; pickle itself writes it
//! ```
//! Writes small `dict`s, `list`s and `tuple`s of `None`, `bool`, `int`, `float`, `str` and `bytes`: what records are made of.
//! It does so without the memo of a pickler, which takes longer than a small record.
//!
//! Promise: what it writes is what pickle writes, byte for byte, references that are shared or go round in circles included.
//! It runs no Python code, and gives up after a few dozen objects, or when another thread changes what it reads.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use smallvec::SmallVec;

use super::codec::{MEMOIZE, STOP};
use super::opcodes::{number_opcodes, text_head_of};

/// Objects that are remembered. They are looked for one by one, which for more takes longer than pickle's memo.
const MEMO: usize = 64;
/// Items of one container: of longer ones there is most often more than is remembered.
const ITEMS_MAX: usize = 64;
/// Containers in containers.
const DEPTH_MAX: usize = 6;
/// Bytes of one string: longer ones are a large part of a value, whose copying counts.
const TEXT_BYTES_MAX: usize = 1024;
/// Bytes of all, when the next object begins. Pickle divides what is longer into frames.
const BODY_BYTES_MAX: usize = 32 * 1024;
/// Pickle gives no frame to what is shorter.
const FRAMED_FROM_BYTES: usize = 4;

pub(super) type Body = SmallVec<[u8; 128]>;

struct Writer {
    body: Body,
    /// Where the objects that were memoized are. They are alive, since who holds the value holds them.
    memo: SmallVec<[usize; MEMO]>,
}

/// The body of a one-frame pickle of a small value; nothing when it is to be written by pickle.
#[inline]
pub(super) fn encode(value: &Bound<'_, PyAny>) -> Option<Body> {
    let mut writer = Writer { body: SmallVec::new(), memo: SmallVec::new() };
    writer.container(value, 0)?;
    writer.body.push(STOP);
    (writer.body.len() >= FRAMED_FROM_BYTES).then_some(writer.body)
}

/// The pairs of a dict, while other threads may change it where there is no GIL: then some may be missing or there twice.
struct Pairs<'a, 'py> {
    dict: &'a Bound<'py, PyDict>,
    at: ffi::Py_ssize_t,
}

impl<'py> Pairs<'_, 'py> {
    #[inline]
    fn next(&mut self) -> Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
        let (py, mut key, mut value) = (self.dict.py(), std::ptr::null_mut(), std::ptr::null_mut());
        // Safety: a place that is not one of the dict's ends the walk. The references that it lends are made our own before
        // anything can change the dict: the GIL is held, or where there is none, the dict's lock.
        #[expect(unsafe_code, reason = "pyo3's iterator panics when the dict is changed")]
        with_critical_section(self.dict, || unsafe {
            let is_there = ffi::PyDict_Next(self.dict.as_ptr(), &raw mut self.at, &raw mut key, &raw mut value) != 0;
            is_there.then(|| (Bound::from_borrowed_ptr(py, key), Bound::from_borrowed_ptr(py, value)))
        })
    }
}

impl Writer {
    fn container(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> Option<()> {
        if let Ok(dict) = value.cast_exact::<PyDict>() {
            let len = dict.len();
            self.begin(len, depth)?;
            if self.again(value) {
                return Some(());
            }
            self.body.push(b'}');
            self.memoize(value)?;
            if len > 1 {
                self.body.push(b'(');
            }
            let mut pairs = Pairs { dict, at: 0 };
            let mut left = len;
            while let Some((key, value)) = pairs.next() {
                left = left.checked_sub(1)?;
                self.object(&key, depth + 1)?;
                self.object(&value, depth + 1)?;
            }
            self.end(len, left, b's', b'u')?;
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            let len = list.len();
            self.begin(len, depth)?;
            if self.again(value) {
                return Some(());
            }
            self.body.push(b']');
            self.memoize(value)?;
            if len > 1 {
                self.body.push(b'(');
            }
            let mut left = len;
            for item in list {
                left = left.checked_sub(1)?;
                self.object(&item, depth + 1)?;
            }
            self.end(len, left, b'a', b'e')?;
        } else {
            let tuple = value.cast_exact::<PyTuple>().ok()?;
            self.begin(tuple.len(), depth)?;
            if tuple.is_empty() {
                self.body.push(b')');
                return Some(());
            }
            if self.again(value) {
                return Some(());
            }
            if tuple.len() > 3 {
                self.body.push(b'(');
            }
            for item in tuple.iter_borrowed() {
                self.object(&item, depth + 1)?;
            }
            // It may hold itself, through a list: pickle knows what to do then.
            if self.place_of(value).is_some() {
                return None;
            }
            self.body.push(if tuple.len() > 3 { b't' } else { 0x84 + tuple.len() as u8 });
            self.memoize(value)?;
        }
        Some(())
    }

    #[inline]
    fn begin(&self, items: usize, depth: usize) -> Option<()> {
        (items <= ITEMS_MAX && depth < DEPTH_MAX).then_some(())
    }

    /// Of so many items that there were at the beginning, so many are left: it was changed meanwhile, and pickle says so.
    #[inline]
    fn end(&mut self, items: usize, left: usize, one: u8, many: u8) -> Option<()> {
        match items {
            _ if left > 0 => return None,
            0 => {}
            1 => self.body.push(one),
            _ => self.body.push(many),
        }
        Some(())
    }

    #[inline]
    fn object(&mut self, object: &Bound<'_, PyAny>, depth: usize) -> Option<()> {
        let (text, is_bytes) = if let Ok(text) = object.cast_exact::<PyString>() {
            (text.to_str().ok()?.as_bytes(), false)
        } else if let Some((bytes, len)) = number_opcodes(object) {
            self.body.extend_from_slice(&bytes[..len]);
            return Some(());
        } else if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            (bytes.as_bytes(), true)
        } else {
            return self.container(object, depth);
        };
        if self.again(object) {
            return Some(());
        }
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let (head, len) = text_head_of(text.len(), is_bytes)?;
        self.body.extend_from_slice(&head[..len]);
        self.body.extend_from_slice(text);
        self.memoize(object)
    }

    /// Says which object it is, if it was met before.
    #[inline]
    fn again(&mut self, object: &Bound<'_, PyAny>) -> bool {
        match self.place_of(object) {
            Some(place) => {
                // BINGET: there are fewer than 256.
                self.body.extend_from_slice(&[b'h', place as u8]);
                true
            }
            None => false,
        }
    }

    #[inline]
    fn place_of(&self, object: &Bound<'_, PyAny>) -> Option<usize> {
        let address = object.as_ptr() as usize;
        self.memo.iter().position(|&met| met == address)
    }

    #[inline]
    fn memoize(&mut self, object: &Bound<'_, PyAny>) -> Option<()> {
        if self.memo.len() == MEMO || self.body.len() > BODY_BYTES_MAX {
            return None;
        }
        self.memo.push(object.as_ptr() as usize);
        self.body.push(MEMOIZE);
        Some(())
    }
}
