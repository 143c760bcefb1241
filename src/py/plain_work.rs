//! ```text
//!   a long string  ->  the first that is equal to it: the same object needs not be compared
//!   another key    ->  what hashing and comparing it visits, how many there are of its hash  ->  its cost
//!   the length of the pickle  ->  what all keys together may cost
//! ```
//! A few bytes of a pickle can say "that long key once more", "twice what I said before", or "one more key of this hash":
//! what takes no time to read may take hours to put into a dict or a set. Here that time is counted before it is spent.
//!
//! Promise: the time that keys take is at most proportional to the length of their pickle. What pickle writes of a value that
//! was a dict or a set before is far below.

use std::collections::HashMap;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyString, PyTuple};

/// What is granted for each byte. Hashing a tuple of a hundred objects that is a key for the second time takes a hundred
/// visits, and the six bytes that say so are granted 384.
const VISITS_PER_BYTE: usize = 64;

/// Bytes of a string that are compared, or of an integer that are hashed, in the time of a visit.
const BYTES_PER_VISIT: usize = 16;

/// A string of more bytes takes long to compare. A letter has four of them at most.
const TEXT_BYTES_MAX: usize = 255;
const TEXT_LETTER_BYTES_MAX: usize = 4;

/// Tuples in tuples are hashed and compared by recursion. Pickle's writer gives up before this depth.
const HASHED_DEPTH_MAX: usize = 1000;

/// A key is compared with each that has its hash, which takes so many visits for a number of `decimal`.
const VISITS_PER_TWIN: usize = 8;

/// So many keys may have any hashes: to compare each of them with each takes no time.
const TWINS_FROM: usize = 256;

/// What the keys of a pickle may still cost.
pub(super) struct Work<'py> {
    visits: usize,
    /// There is a string that takes long to compare.
    has_long_text: bool,
    /// Long strings that were keys, each with the first that is equal to it. Held, so that no other object has their place.
    long_texts: HashMap<usize, [Bound<'py, PyAny>; 2]>,
    /// The first of each.
    first_texts: Option<Bound<'py, PyDict>>,
    /// There is an integer of more than 64 bits.
    has_long_int: bool,
    /// Keys of the kinds whose hashes can be chosen.
    chosen: usize,
    /// How many of them have a hash, in each container.
    of_hash: HashMap<(usize, isize), usize>,
}

impl<'py> Work<'py> {
    pub(super) fn new(pickle_bytes: usize) -> Self {
        Self {
            visits: pickle_bytes.saturating_mul(VISITS_PER_BYTE),
            has_long_text: false,
            long_texts: HashMap::new(),
            first_texts: None,
            has_long_int: false,
            chosen: 0,
            of_hash: HashMap::new(),
        }
    }

    /// A string of so many bytes was met.
    #[inline]
    pub(super) const fn met_text(&mut self, bytes: usize) {
        self.has_long_text |= bytes > TEXT_BYTES_MAX;
    }

    /// Whether strings take long to compare, and are to be replaced by the first of each before they become keys.
    #[inline]
    pub(super) const fn has_long_text(&self) -> bool {
        self.has_long_text
    }

    /// The first key that is equal to this one, for a long string: each is compared once, however often it is a key.
    pub(super) fn first(&mut self, key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let is_text = key.is_exact_instance_of::<PyString>() || key.is_exact_instance_of::<PyBytes>();
        if !is_text || key.len()? <= TEXT_BYTES_MAX / TEXT_LETTER_BYTES_MAX {
            return Ok(None);
        }
        let address = key.as_ptr() as usize;
        if let Some([_, first]) = self.long_texts.get(&address) {
            return Ok(Some(first.clone()));
        }
        let texts = self.first_texts.get_or_insert_with(|| PyDict::new(key.py()));
        let first = match texts.get_item(key)? {
            Some(first) => first,
            None => {
                texts.set_item(key, key)?;
                key.clone()
            }
        };
        self.long_texts.insert(address, [key.clone(), first.clone()]);
        Ok(Some(first))
    }

    /// An integer of so many bytes was met.
    #[inline]
    pub(super) const fn met_int(&mut self, bytes: usize) {
        self.has_long_int |= bytes > size_of::<i64>();
    }

    /// Pays for a key of a container. False when it is too much.
    #[inline]
    pub(super) fn key(&mut self, container: usize, key: &Bound<'_, PyAny>) -> bool {
        // The hash of a string is kept, and is salted; of short numbers there are only a few of one hash.
        let is_short = key.is_exact_instance_of::<PyString>()
            || key.is_exact_instance_of::<PyBytes>()
            || (!self.has_long_int && key.is_exact_instance_of::<PyInt>())
            || key.is_exact_instance_of::<PyFloat>()
            || key.is_exact_instance_of::<PyBool>()
            || key.is_none();
        is_short || self.object(container, key)
    }

    #[inline(never)]
    fn object(&mut self, container: usize, key: &Bound<'_, PyAny>) -> bool {
        let before = self.visits;
        if !self.visit(key) {
            return false;
        }
        self.chosen += 1;
        if self.chosen <= TWINS_FROM {
            return true;
        }
        // What cannot be hashed is told where it is put into the container.
        let Ok(hash) = key.hash() else { return true };
        let twins = self.of_hash.entry((container, hash)).or_default();
        let cost = twins.saturating_mul((before - self.visits).max(VISITS_PER_TWIN));
        *twins += 1;
        self.pay(cost)
    }

    #[inline]
    const fn pay(&mut self, visits: usize) -> bool {
        match self.visits.checked_sub(visits) {
            Some(left) => {
                self.visits = left;
                true
            }
            None => false,
        }
    }

    /// Pays for what hashing an object, or comparing it with an equal one, visits: everything in tuples and frozensets, as
    /// often as it is there. False when it is too much, or too deep.
    fn visit(&mut self, object: &Bound<'_, PyAny>) -> bool {
        // What is yet to be visited of each on the way down.
        let mut way = Vec::new();
        let mut next = Some(object.clone());
        loop {
            if let Some(object) = next.take() {
                if !self.pay(self.cost(&object)) {
                    return false;
                }
                if object.is_exact_instance_of::<PyFrozenSet>() || object.is_exact_instance_of::<PyTuple>() {
                    if way.len() == HASHED_DEPTH_MAX {
                        return false;
                    }
                    let Ok(within) = object.try_iter() else { return false };
                    way.push(within);
                }
            } else if way.is_empty() {
                return true;
            }
            while let Some(within) = way.last_mut() {
                next = within.next().and_then(Result::ok);
                if next.is_some() {
                    break;
                }
                way.pop();
            }
        }
    }

    /// What hashing or comparing one object costs, without what is in it.
    fn cost(&self, object: &Bound<'_, PyAny>) -> usize {
        let bytes = if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            bytes.as_bytes().len()
        } else if object.is_exact_instance_of::<PyString>() {
            object.len().unwrap_or(usize::MAX)
        } else if self.has_long_int && object.is_exact_instance_of::<PyInt>() {
            let bits = object.call_method0("bit_length").and_then(|bits| bits.extract::<usize>());
            bits.map_or(usize::MAX, |bits| bits / 8)
        } else {
            0
        };
        1 + bytes / BYTES_PER_VISIT
    }
}
