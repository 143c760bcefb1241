//! ```text
//!   a long string  ->  the first that is equal to it: the same object needs not be compared
//!   another key    ->  what hashing and comparing it visits, how many there are of its hash, how many slots are taken on
//!                      the way to its own (`plain_slots`)  ->  its cost
//!   the length of the pickle  ->  what all keys together may cost
//! ```
//! A few bytes of a pickle can say "that long key once more", "twice what I said before", or "one more key of this hash":
//! what takes no time to read may take hours to put into a dict or a set. Here that time is counted before it is spent.
//!
//! Promise: the time that keys take is at most proportional to the length of their pickle. What pickle writes of a value that
//! was a dict or a set before is far below.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PySet, PyString, PyTuple};

use super::plain_slots::Slots;
use super::plain_types;

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

/// So many keys that cost no more than this may have any hashes: to compare each of them with each takes no time.
const TWINS_FROM: usize = 256;
const TWIN_VISITS_MAX: usize = 16;

/// Comparing an integer with a number of `decimal` writes it in tens, which takes a visit for so many of its bytes squared.
const SQUARED_BYTES_PER_VISIT: usize = 1024;

/// A taken slot on the way of a key takes so long to look at.
const VISITS_PER_SLOT: usize = 2;

/// So many keys may have any slots. A frozenset may be compared again and again.
const SLOTS_FROM: usize = 256;
const FROZEN_SLOTS_FROM: usize = 16;

/// Slots are counted once it took so long for each byte to put keys into containers. Usual ones take a tenth of that.
const UNCOUNTED_PER_BYTE: Duration = Duration::from_nanos(100);

/// So many keys are put into a container before it is seen how long that took, and how many of them it had.
pub(super) const KEYS_AT_ONCE: usize = 250;

/// What one key costs.
#[derive(Default)]
struct Cost {
    /// Of hashing it, or comparing it with an equal one.
    visits: usize,
    /// More when it is compared with numbers of `decimal`.
    converts: usize,
    /// It is one of them, or has one.
    has_decimal: bool,
}

/// The keys of a hash in a container.
#[derive(Default)]
struct Twins {
    keys: usize,
    /// What comparing a number of `decimal` with each costs.
    converts: usize,
    with_decimal: usize,
}

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
    /// Keys that are no strings.
    numbers: usize,
    /// Keys of the kinds whose hashes can be equal.
    chosen: usize,
    /// How many of them have a hash, in each container.
    of_hash: HashMap<(usize, isize), Twins>,
    /// What was paid for their comparisons.
    compared: usize,
    /// For how long keys may yet be put into containers of many without counting slots, and since when they are.
    uncounted: Duration,
    began: Option<Instant>,
    /// Dicts and sets of many keys whose slots are counted. Held, so that no other object has their place.
    slots: HashMap<usize, (Bound<'py, PyAny>, Slots)>,
    /// How many frozensets were made: each is a container of its own while its keys are told.
    frozensets: usize,
    /// What looking for the keys of a frozenset in an equal one costs, where it is more than their number.
    frozen: HashMap<usize, usize>,
}

impl<'py> Work<'py> {
    pub(super) fn new(pickle_bytes: usize) -> Self {
        Self {
            visits: pickle_bytes.saturating_mul(VISITS_PER_BYTE),
            has_long_text: false,
            long_texts: HashMap::new(),
            first_texts: None,
            has_long_int: false,
            numbers: 0,
            chosen: 0,
            of_hash: HashMap::new(),
            compared: 0,
            uncounted: UNCOUNTED_PER_BYTE.saturating_mul(u32::try_from(pickle_bytes).unwrap_or(u32::MAX)),
            began: None,
            slots: HashMap::new(),
            frozensets: 0,
            frozen: HashMap::new(),
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

    /// Whether the slots of containers are known, in which strings have theirs too.
    #[inline]
    pub(super) fn has_slots(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Pays for keys that are put into a dict or a set next. False when it is too much.
    #[inline]
    pub(super) fn keys<'a>(
        &mut self,
        container: &Bound<'py, PyAny>,
        keys: impl ExactSizeIterator<Item = &'a Bound<'py, PyAny>> + Clone,
    ) -> bool
    where
        'py: 'a,
    {
        let before = self.numbers;
        let address = container.as_ptr() as usize;
        if !keys.clone().all(|key| self.key(address, key, false)) {
            return false;
        }
        if self.numbers == before && self.slots.is_empty() {
            return true;
        }
        if keys.len() < SLOTS_FROM && container.len().is_ok_and(|length| length + keys.len() < SLOTS_FROM) {
            return true;
        }
        if !self.slots.contains_key(&address) {
            if !self.uncounted.is_zero() || self.numbers == before {
                self.began = Some(Instant::now());
                return true;
            }
            if !self.know(container) {
                return false;
            }
        }
        self.place(address, keys)
    }

    /// Those keys are in their container: one that was there already has taken no slot.
    #[inline]
    pub(super) fn put(&mut self, container: &Bound<'py, PyAny>) -> bool {
        if let Some(began) = self.began.take() {
            self.uncounted = self.uncounted.saturating_sub(began.elapsed());
            return true;
        }
        if self.slots.is_empty() {
            return true;
        }
        let Some((_, slots)) = self.slots.get(&(container.as_ptr() as usize)) else { return true };
        let length = container.len().unwrap_or_default();
        slots.len() == length || (self.pay(length) && self.know(container))
    }

    /// Finds the slots of the keys that a container has. A set does not tell in which order they came: they come again.
    #[inline(never)]
    fn know(&mut self, container: &Bound<'py, PyAny>) -> bool {
        let set = container.cast_exact::<PySet>().ok();
        let mut slots = Slots::new(set.is_some());
        let Ok(keys) = container.try_iter() else { return false };
        let keys: Vec<_> = keys.flatten().collect();
        for key in &keys {
            let Ok(hash) = key.hash() else { return false };
            let met = slots.add(hash, key.is_exact_instance_of::<PyString>(), self.visits);
            if !self.pay(VISITS_PER_SLOT.saturating_mul(met)) {
                return false;
            }
        }
        if let Some(set) = set {
            set.clear();
            if keys.iter().any(|key| set.add(key).is_err()) {
                return false;
            }
        }
        self.slots.insert(container.as_ptr() as usize, (container.clone(), slots));
        true
    }

    /// Pays for the taken slots on the ways of new keys.
    #[inline(never)]
    fn place<'a>(&mut self, address: usize, keys: impl Iterator<Item = &'a Bound<'py, PyAny>>) -> bool
    where
        'py: 'a,
    {
        let Some((_, slots)) = self.slots.get_mut(&address) else { return true };
        for key in keys {
            // What cannot be hashed is told where it is put into the container.
            let Ok(hash) = key.hash() else { return true };
            let met = slots.add(hash, key.is_exact_instance_of::<PyString>(), self.visits);
            match self.visits.checked_sub(VISITS_PER_SLOT.saturating_mul(met)) {
                Some(left) => self.visits = left,
                None => return false,
            }
        }
        true
    }

    /// Pays for the keys of a frozenset: what looking for them again costs. Nothing when it is too much.
    pub(super) fn frozen_keys(&mut self, keys: &[Bound<'py, PyAny>]) -> Option<usize> {
        let (numbers, compared) = (self.numbers, self.compared);
        self.frozensets += 1;
        // No object is there.
        let container = usize::MAX - self.frozensets;
        if !keys.iter().all(|key| self.key(container, key, true)) {
            return None;
        }
        let mut met = 0;
        if self.numbers > numbers && keys.len() >= FROZEN_SLOTS_FROM {
            let mut slots = Slots::new(true);
            for key in keys {
                // What cannot be hashed is told where the frozenset is made.
                let Ok(hash) = key.hash() else { break };
                let on_way = VISITS_PER_SLOT.saturating_mul(slots.add(hash, false, self.visits));
                if !self.pay(on_way) {
                    return None;
                }
                met += on_way;
            }
        }
        Some(met + self.compared - compared)
    }

    /// A frozenset was made of those keys.
    pub(super) fn made(&mut self, frozenset: &Bound<'_, PyFrozenSet>, cost: usize) {
        let address = frozenset.as_ptr() as usize;
        if cost > 0 {
            self.frozen.insert(address, cost);
        } else if !self.frozen.is_empty() {
            self.frozen.remove(&address);
        }
    }

    /// Pays for a key of a container. False when it is too much.
    #[inline]
    fn key(&mut self, container: usize, key: &Bound<'_, PyAny>, is_frozen: bool) -> bool {
        // The hash of a string is kept, and is salted.
        if key.is_exact_instance_of::<PyString>() || key.is_exact_instance_of::<PyBytes>() {
            return true;
        }
        self.numbers += 1;
        // Of short numbers there are only a few of one hash.
        let is_short = (!self.has_long_int && key.is_exact_instance_of::<PyInt>())
            || key.is_exact_instance_of::<PyFloat>()
            || key.is_exact_instance_of::<PyBool>()
            || key.is_none();
        is_short || self.object(container, key, is_frozen)
    }

    #[inline(never)]
    fn object(&mut self, container: usize, key: &Bound<'_, PyAny>, is_frozen: bool) -> bool {
        let Some(cost) = self.visit(key) else { return false };
        self.chosen += 1;
        let is_cheap = cost.visits <= TWIN_VISITS_MAX && cost.converts == 0 && !cost.has_decimal;
        if is_cheap && !is_frozen && self.chosen <= TWINS_FROM {
            return true;
        }
        // What cannot be hashed is told where it is put into the container.
        let Ok(hash) = key.hash() else { return true };
        let twins = self.of_hash.entry((container, hash)).or_default();
        let compared = twins.keys.saturating_mul(cost.visits.max(VISITS_PER_TWIN));
        let converted = cost.converts.saturating_mul(twins.with_decimal);
        let converts = if cost.has_decimal { twins.converts } else { 0 };
        twins.keys += 1;
        twins.converts = twins.converts.saturating_add(cost.converts);
        twins.with_decimal += usize::from(cost.has_decimal);
        let all = compared.saturating_add(converted).saturating_add(converts);
        self.compared = self.compared.saturating_add(all);
        self.pay(all)
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
    /// often as it is there. Nothing when it is too much, or too deep.
    fn visit(&mut self, object: &Bound<'_, PyAny>) -> Option<Cost> {
        let before = self.visits;
        let mut cost = Cost::default();
        // What is yet to be visited of each on the way down, and how often each may be compared.
        let mut way = Vec::new();
        let mut next = Some(object.clone());
        loop {
            if let Some(object) = next.take() {
                let mut times: usize = way.last().map_or(1, |(_, times)| *times);
                let bytes = self.bytes(&object);
                let frozen = object.cast_exact::<PyFrozenSet>().ok();
                let again = frozen.and_then(|_| self.frozen.get(&(object.as_ptr() as usize))).copied();
                if !self.pay((1 + bytes / BYTES_PER_VISIT).saturating_add(again.unwrap_or(0))) {
                    return None;
                }
                if frozen.is_some() || object.is_exact_instance_of::<PyTuple>() {
                    if way.len() == HASHED_DEPTH_MAX {
                        return None;
                    }
                    if again.is_some() {
                        times = times.saturating_mul(object.len().unwrap_or(usize::MAX));
                    }
                    way.push((object.try_iter().ok()?, times));
                } else if bytes > 0 && object.is_exact_instance_of::<PyInt>() {
                    let converts = bytes.saturating_mul(bytes) / SQUARED_BYTES_PER_VISIT;
                    cost.converts = cost.converts.saturating_add(converts.saturating_mul(times));
                } else {
                    cost.has_decimal = cost.has_decimal || plain_types::is_decimal(&object);
                }
            } else if way.is_empty() {
                cost.visits = before - self.visits;
                return Some(cost);
            }
            while let Some((within, _)) = way.last_mut() {
                next = within.next().and_then(Result::ok);
                if next.is_some() {
                    break;
                }
                way.pop();
            }
        }
    }

    /// Bytes of an object that are hashed or compared, without what is in it.
    fn bytes(&self, object: &Bound<'_, PyAny>) -> usize {
        if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            bytes.as_bytes().len()
        } else if object.is_exact_instance_of::<PyString>() {
            object.len().unwrap_or(usize::MAX)
        } else if self.has_long_int && object.is_exact_instance_of::<PyInt>() {
            let bits = object.call_method0("bit_length").and_then(|bits| bits.extract::<usize>());
            bits.map_or(usize::MAX, |bits| bits / 8)
        } else {
            0
        }
    }
}
