//! ```text
//!   opcodes of a pickle  ->  a stack of Python objects, and marks in it  ->  the value
//!      anything but plain data: not here; pickle itself reads it, or the cache refuses it
//! ```
//! Reads pickles of plain data: `dict`, `list`, `tuple`, `set` and `frozenset` of `None`, `bool`, `int`, `float`, `str`,
//! `bytes`, `bytearray` and the classes in `plain_types`; references that are shared or go round in circles included. It
//! does so without the objects that an unpickler is made of, which take longer than a small value.
//!
//! Promise: what it returns is what `pickle.loads` returns. It imports nothing that the bytes name, calls nothing but the
//! classes in `plain_types`, gives back none of them, does not recurse, and allocates nothing for a length or an index that
//! the bytes do not have. It takes time in proportion to them (`plain_work` counts what a key may cost).

use crate::lock::MutexGuard;
use pyo3::exceptions::PyMemoryError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFrozenSet, PyList, PySet, PyString, PyTuple, PyType};
use smallvec::SmallVec;

use super::codec::{
    PROTO_5, byte_array, bytes_object, dict_object, float_object, int_object, list_object, long, small_int,
    text_object, tuple_object,
};
use super::errors::{self, raise};
use super::key_strings::{self, KeyStrings};
use super::plain_types;
use super::plain_work::{KEYS_AT_ONCE, Work};
use crate::error::Need;
use crate::shortage;

/// Objects for which the stack has room at first: those of a dict of ten.
const STACK: usize = 24;

/// Why a value was not read.
enum Stop {
    /// It shares references: what was met must be remembered.
    Shares,
    /// It is not plain, or broken: pickle will tell.
    NotPlain,
    /// There is no memory for it.
    Memory(PyErr),
}

/// Values are read faster here than by pickle up to this length of their pickle, and dicts of any.
const QUICKER_BYTES_MAX: usize = 1024;

/// Whether this is likely to be plain, and read faster than by pickle.
#[inline]
pub(super) fn is_quicker(pickle: &[u8]) -> bool {
    match pickle.strip_prefix(&PROTO_5).unwrap_or(pickle) {
        // A dict; a bytearray, which pickle would copy from a copy.
        [b'}' | 0x96, ..] => true,
        // Most often the name of a class.
        [0x8c, ..] => false,
        _ => pickle.len() <= QUICKER_BYTES_MAX,
    }
}

/// Reads a plain value: `None` when it is not one, which is no error.
///
/// # Errors
/// `MemoryError`.
pub(super) fn decode<'py>(py: Python<'py>, pickle: &[u8]) -> PyResult<Option<Bound<'py, PyAny>>> {
    // Remembering each string and container costs more than reading twice the few values that share.
    match Reader::new(py, pickle, &[], false).read() {
        Err(Stop::Shares) => decode_beside(py, pickle, &[]),
        read => found(read),
    }
}

fn found<T>(read: Result<T, Stop>) -> PyResult<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(Stop::Shares | Stop::NotPlain) => Ok(None),
        Err(Stop::Memory(error)) => Err(error),
    }
}

/// The same of a pickle with these buffers beside it: `bytearray`s, and `bytes` for those that may not be written to.
pub(super) fn decode_beside<'py>(
    py: Python<'py>,
    pickle: &[u8],
    buffers: &[Bound<'py, PyAny>],
) -> PyResult<Option<Bound<'py, PyAny>>> {
    found(Reader::new(py, pickle, buffers, true).read())
}

/// Why these bytes are not plain data: what they would import, if that is why.
pub(super) fn refusal(py: Python<'_>, pickle: &[u8]) -> String {
    let mut reader = Reader::new(py, pickle, &[], true);
    let _ = reader.run();
    match reader.foreign {
        Some(name) => format!("it would import {}", errors::printable(&name)),
        None => {
            let at = pickle.len() - reader.rest.len();
            format!("it is broken, or not a pickle of plain data, at byte {at} of {}", pickle.len())
        }
    }
}

/// A mark in the stack.
#[derive(Clone, Copy)]
struct Mark {
    start: usize,
    /// What follows are keys and values in turns.
    in_dict: bool,
}

struct Reader<'py, 'b> {
    py: Python<'py>,
    rest: &'b [u8],
    stack: SmallVec<[Bound<'py, PyAny>; STACK]>,
    marks: SmallVec<[Mark; 8]>,
    /// What was memoized, when it is remembered.
    memo: Option<Vec<Bound<'py, PyAny>>>,
    /// Buffers that were not met yet.
    beside: &'b [Bound<'py, PyAny>],
    keys: Option<MutexGuard<'static, KeyStrings>>,
    /// What hashing and comparing keys may still cost.
    work: Work<'py>,
    /// A class was named. It is called, and is no value.
    has_class: bool,
    /// What it stopped at: a name that is not in the list of plain classes.
    foreign: Option<String>,
}

impl<'py, 'b> Reader<'py, 'b> {
    fn new(py: Python<'py>, pickle: &'b [u8], beside: &'b [Bound<'py, PyAny>], remember: bool) -> Self {
        Self {
            py,
            rest: pickle,
            stack: SmallVec::new(),
            marks: SmallVec::new(),
            memo: remember.then(Vec::new),
            beside,
            keys: key_strings::table(),
            work: Work::new(pickle.len() + beside.iter().map(|buffer| buffer.len().unwrap_or(0)).sum::<usize>()),
            has_class: false,
            foreign: None,
        }
    }

    fn read(mut self) -> Result<Bound<'py, PyAny>, Stop> {
        self.run()
    }

    fn run(&mut self) -> Result<Bound<'py, PyAny>, Stop> {
        loop {
            let opcode = self.byte()?;
            if opcode == b'.' {
                self.check_values(self.stack.len().saturating_sub(1))?;
                let value = self.stack.pop().ok_or(Stop::NotPlain)?;
                return if self.stack.is_empty() && self.marks.is_empty() { Ok(value) } else { Err(Stop::NotPlain) };
            }
            self.step(opcode)?;
        }
    }

    #[inline]
    fn step(&mut self, opcode: u8) -> Result<(), Stop> {
        let py = self.py;
        match opcode {
            0x8c => {
                let length = usize::from(self.byte()?);
                self.short_text(length)?;
            }
            // MEMOIZE
            0x94 => {
                let top = self.above(1)?;
                if let Some(memo) = &mut self.memo {
                    memo.push(self.stack[top].clone());
                }
            }
            b'K' => self.small(opcode, 1)?,
            b'M' => self.small(opcode, 2)?,
            b'J' => self.small(opcode, 4)?,
            b'N' => self.stack.push(py.None().into_bound(py)),
            0x88 | 0x89 => self.stack.push(PyBool::new(py, opcode == 0x88).to_owned().into_any()),
            b'G' => {
                let bits = self.take(8)?.try_into().map_err(|_| Stop::NotPlain)?;
                self.stack.push(float_object(py, f64::from_be_bytes(bits)).ok_or_else(no_memory)?);
            }
            b'(' => {
                let above_fence = self.stack.len() > self.fence();
                let dict = self.stack.last().and_then(|below| below.cast_exact::<PyDict>().ok());
                let in_dict = dict.is_some() && above_fence;
                if let Some(dict) = dict.filter(|_| above_fence).cloned()
                    && self.fields(&dict)?
                {
                    return Ok(());
                }
                self.marks.push(Mark { start: self.stack.len(), in_dict });
            }
            b'}' => self.stack.push(dict_object(py).ok_or_else(no_memory)?),
            b']' => self.stack.push(list_object(py).ok_or_else(no_memory)?),
            b')' => self.stack.push(PyTuple::empty(py).into_any()),
            // SETITEM, SETITEMS
            b's' => {
                let start = self.above(2)?;
                self.set_items(start)?;
            }
            b'u' => {
                let start = self.mark()?;
                self.set_items(start)?;
            }
            // APPEND, APPENDS
            b'a' => {
                let start = self.above(1)?;
                self.append(start)?;
            }
            b'e' => {
                let start = self.mark()?;
                self.append(start)?;
            }
            // TUPLE1, TUPLE2, TUPLE3, TUPLE
            0x85..=0x87 => {
                let start = self.above(usize::from(opcode - 0x84))?;
                self.tuple(start)?;
            }
            b't' => {
                let start = self.mark()?;
                self.tuple(start)?;
            }
            _ => self.step_seldom(opcode)?,
        }
        Ok(())
    }

    /// The fields of a dict, if all are short texts that lead to atoms: they need no place in the stack. False when they are
    /// not, and nothing was read.
    #[inline]
    fn fields(&mut self, dict: &Bound<'py, PyDict>) -> Result<bool, Stop> {
        if self.work.has_slots() || !are_flat(self.rest) {
            return Ok(false);
        }
        while let [0x8c, length, rest @ ..] = self.rest
            && let Some((text, [0x94, opcode, rest @ ..])) = rest.split_at_checked(usize::from(*length))
            && let Some(bytes) = atom_bytes(*opcode, rest)
        {
            let key = match &mut self.keys {
                Some(keys) => keys.get(self.py, text),
                None => text_object(self.py, text),
            };
            let key = key.map_or_else(|| surrogates(self.py, text), Ok)?;
            let (atom, rest) = rest.split_at(bytes);
            let value = self.atom(*opcode, atom)?;
            dict.set_item(&key, &value).map_err(drop_error)?;
            self.rest = rest;
            if let Some(memo) = &mut self.memo {
                memo.push(key);
                if matches!(opcode, 0x8c | b'C') {
                    memo.push(value);
                }
            }
        }
        // The opcode that ends them.
        self.take(1)?;
        Ok(true)
    }

    /// An atom of `are_flat`.
    #[inline]
    fn atom(&self, opcode: u8, bytes: &'b [u8]) -> Result<Bound<'py, PyAny>, Stop> {
        let py = self.py;
        Ok(match (opcode, bytes) {
            (0x8c, [_, text @ .., _]) => text_object(py, text).map_or_else(|| surrogates(py, text), Ok)?,
            (b'C', [_, text @ .., _]) => bytes_object(py, text).ok_or_else(no_memory)?,
            (b'G', bits) => {
                let bits = bits.try_into().map_err(|_| Stop::NotPlain)?;
                float_object(py, f64::from_be_bytes(bits)).ok_or_else(no_memory)?
            }
            (b'N', _) => py.None().into_bound(py),
            (0x88 | 0x89, _) => PyBool::new(py, opcode == 0x88).to_owned().into_any(),
            (_, int) => int_object(py, small_int(opcode, int).ok_or(Stop::NotPlain)?).ok_or_else(no_memory)?,
        })
    }

    fn step_seldom(&mut self, opcode: u8) -> Result<(), Stop> {
        let py = self.py;
        match opcode {
            // BINUNICODE, BINUNICODE8
            b'X' | 0x8d => {
                let length = self.number(if opcode == b'X' { 4 } else { 8 })?;
                self.text(length)?;
            }
            // SHORT_BINBYTES, BINBYTES, BINBYTES8
            b'C' | b'B' | 0x8e => {
                let length = self.number(if opcode == b'C' {
                    1
                } else if opcode == b'B' {
                    4
                } else {
                    8
                })?;
                let bytes = self.take(length)?;
                self.work.met_text(length);
                self.stack.push(bytes_object(py, bytes).ok_or_else(no_memory)?);
            }
            // BYTEARRAY8
            0x96 => {
                let length = self.number(8)?;
                let bytes = self.take(length)?;
                self.stack.push(byte_array(py, bytes).map_err(drop_error)?);
            }
            // LONG1, LONG4
            0x8a | 0x8b => {
                let length = self.number(if opcode == 0x8a { 1 } else { 4 })?;
                let bytes = self.take(length)?;
                self.work.met_int(length);
                let int = match long(bytes) {
                    Some(int) => int_object(py, int).ok_or_else(no_memory)?,
                    None => long_object(py, bytes).map_err(drop_error)?,
                };
                self.stack.push(int);
            }
            // BINGET, LONG_BINGET
            b'h' | b'j' => {
                let at = self.number(if opcode == b'h' { 1 } else { 4 })?;
                let memo = self.memo.as_ref().ok_or(Stop::Shares)?;
                self.stack.push(memo.get(at).ok_or(Stop::NotPlain)?.clone());
            }
            // BINPUT, LONG_BINPUT: pickle numbers what it remembers in order.
            b'q' | b'r' => {
                let at = self.number(if opcode == b'q' { 1 } else { 4 })?;
                let top = self.above(1)?;
                let memo = self.memo.as_mut().ok_or(Stop::Shares)?;
                let top = self.stack[top].clone();
                if at == memo.len() {
                    memo.push(top);
                } else {
                    *memo.get_mut(at).ok_or(Stop::NotPlain)? = top;
                }
            }
            // POP, POP_MARK, DUP
            b'0' if self.above(1).is_ok() => drop(self.stack.pop()),
            b'0' | b'1' => {
                let start = self.mark()?;
                self.stack.truncate(start);
            }
            b'2' => {
                self.memo.as_ref().ok_or(Stop::Shares)?;
                let at = self.above(1)?;
                self.stack.push(self.stack[at].clone());
            }
            // EMPTY_SET, ADDITEMS, FROZENSET
            0x8f => self.stack.push(PySet::empty(py).map_err(drop_error)?.into_any()),
            0x90 => {
                let start = self.mark()?;
                let (below, _) = self.split(start)?;
                let set = below.cast_exact::<PySet>().map_err(|_| Stop::NotPlain)?.clone();
                self.add_items(&set, start)?;
                self.stack.truncate(start);
            }
            0x91 => {
                let start = self.mark()?;
                self.check_values(start)?;
                self.share_texts(start, self.stack.len(), 1)?;
                // It takes as long in a set, which tells of keys that are there twice.
                if self.stack.len() - start > 4 * KEYS_AT_ONCE {
                    let set = PySet::empty(py).map_err(drop_error)?;
                    self.add_items(&set, start)?;
                }
                let keys = &self.stack[start..];
                let cost = self.work.frozen_keys(keys).ok_or(Stop::NotPlain)?;
                let set = PyFrozenSet::new(py, keys).map_err(drop_error)?;
                self.work.made(&set, cost);
                self.stack.truncate(start);
                self.stack.push(set.into_any());
            }
            // STACK_GLOBAL, GLOBAL
            0x93 => {
                let start = self.above(2)?;
                let text = |at: usize| self.stack[at].cast_exact::<PyString>().map_err(|_| Stop::NotPlain);
                let (module, name) = (text(start)?.clone(), text(start + 1)?.clone());
                self.stack.truncate(start);
                self.class(&module.to_string_lossy(), &name.to_string_lossy())?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.class(module, name)?;
            }
            // REDUCE
            b'R' => {
                let start = self.above(2)?;
                let arguments = self.stack[start + 1].cast_exact::<PyTuple>().map_err(|_| Stop::NotPlain)?;
                let object = plain_types::call(&self.stack[start], arguments).ok_or(Stop::NotPlain)?;
                self.stack.truncate(start);
                self.stack.push(object);
            }
            // NEXT_BUFFER, READONLY_BUFFER
            0x97 => {
                let (buffer, others) = self.beside.split_first().ok_or(Stop::NotPlain)?;
                self.beside = others;
                if let Ok(bytes) = buffer.cast_exact::<PyBytes>() {
                    self.work.met_text(bytes.as_bytes().len());
                }
                self.stack.push(buffer.clone());
            }
            0x98 if self.stack[self.above(1)?].is_exact_instance_of::<PyBytes>() => {}
            // PROTO, FRAME
            0x80 if self.byte()? <= 5 => {}
            0x95 if self.number(8)? <= self.rest.len() => {}
            _ => return Err(Stop::NotPlain),
        }
        Ok(())
    }

    #[inline]
    fn set_items(&mut self, start: usize) -> Result<(), Stop> {
        let (below, items) = self.split(start)?;
        let dict = below.cast_exact::<PyDict>().map_err(|_| Stop::NotPlain)?.clone();
        if !items.len().is_multiple_of(2) {
            return Err(Stop::NotPlain);
        }
        let end = self.stack.len();
        for from in (start..end).step_by(2 * KEYS_AT_ONCE) {
            let to = end.min(from + 2 * KEYS_AT_ONCE);
            self.check_keys(&dict, from, to, 2)?;
            for pair in self.stack[from..to].chunks_exact(2) {
                dict.set_item(&pair[0], &pair[1]).map_err(drop_error)?;
            }
            self.check_put(&dict)?;
        }
        self.stack.truncate(start);
        Ok(())
    }

    fn add_items(&mut self, set: &Bound<'py, PySet>, start: usize) -> Result<(), Stop> {
        let end = self.stack.len();
        for from in (start..end).step_by(KEYS_AT_ONCE) {
            let to = end.min(from + KEYS_AT_ONCE);
            self.check_keys(set, from, to, 1)?;
            self.stack[from..to].iter().try_for_each(|item| set.add(item)).map_err(drop_error)?;
            self.check_put(set)?;
        }
        Ok(())
    }

    fn append(&mut self, start: usize) -> Result<(), Stop> {
        let (below, items) = self.split(start)?;
        let list = below.cast_exact::<PyList>().map_err(|_| Stop::NotPlain)?;
        items.iter().try_for_each(|item| list.append(item)).map_err(drop_error)?;
        self.stack.truncate(start);
        Ok(())
    }

    fn tuple(&mut self, start: usize) -> Result<(), Stop> {
        self.check_values(start)?;
        let tuple = tuple_object(self.py, self.stack.drain(start..)).ok_or_else(no_memory)?;
        self.stack.push(tuple);
        Ok(())
    }

    /// A class, by the name that the bytes give it.
    fn class(&mut self, module: &str, name: &str) -> Result<(), Stop> {
        let Some(class) = plain_types::find(self.py, module, name) else {
            self.foreign = Some(format!("{module}.{name}"));
            return Err(Stop::NotPlain);
        };
        self.has_class = true;
        self.stack.push(class);
        Ok(())
    }

    /// Refuses a class among what becomes part of the value: it may only be called.
    #[inline]
    fn check_values(&self, start: usize) -> Result<(), Stop> {
        let is_class = |object: &Bound<'_, PyAny>| object.is_instance_of::<PyType>();
        if self.has_class && self.stack[start..].iter().any(is_class) { Err(Stop::NotPlain) } else { Ok(()) }
    }

    /// Puts the first that is equal in the place of long strings: every `step`th object, which become keys.
    #[inline]
    fn share_texts(&mut self, from: usize, to: usize, step: usize) -> Result<(), Stop> {
        // Without a memo every string is there once.
        if self.work.has_long_text() && self.memo.is_some() {
            for key in self.stack[from..to].iter_mut().step_by(step) {
                if let Some(first) = self.work.first(key).map_err(drop_error)? {
                    *key = first;
                }
            }
        }
        Ok(())
    }

    /// Refuses keys that take longer to hash and to compare than the bytes justify: every `step`th object.
    #[inline]
    fn check_keys(&mut self, container: &Bound<'py, PyAny>, from: usize, to: usize, step: usize) -> Result<(), Stop> {
        self.share_texts(from, to, step)?;
        let keys = self.stack[from..to].iter().step_by(step);
        if self.work.keys(container, keys) { Ok(()) } else { Err(Stop::NotPlain) }
    }

    /// Tells that those keys are in their container.
    #[inline]
    fn check_put(&mut self, container: &Bound<'py, PyAny>) -> Result<(), Stop> {
        if self.work.put(container) { Ok(()) } else { Err(Stop::NotPlain) }
    }

    /// The container below `start`, and what is above it: values.
    #[inline]
    fn split(&self, start: usize) -> Result<(&Bound<'py, PyAny>, &[Bound<'py, PyAny>]), Stop> {
        self.check_values(start)?;
        let (below, items) = self.stack.split_at_checked(start).ok_or(Stop::NotPlain)?;
        let container = below.last().filter(|_| start > self.fence()).ok_or(Stop::NotPlain)?;
        Ok((container, items))
    }

    /// Where the topmost `count` objects start.
    #[inline]
    fn above(&self, count: usize) -> Result<usize, Stop> {
        self.stack.len().checked_sub(count).filter(|&start| start >= self.fence()).ok_or(Stop::NotPlain)
    }

    /// What was put before a mark is not what comes after it.
    #[inline]
    fn fence(&self) -> usize {
        self.marks.last().map_or(0, |mark| mark.start)
    }

    #[inline]
    fn mark(&mut self) -> Result<usize, Stop> {
        self.marks.pop().map(|mark| mark.start).filter(|&start| start <= self.stack.len()).ok_or(Stop::NotPlain)
    }

    /// A short text: if it is a dict's key, it may be there already.
    #[inline]
    fn short_text(&mut self, length: usize) -> Result<(), Stop> {
        let text = self.take(length)?;
        let is_key = match self.marks.last() {
            Some(mark) if mark.in_dict => (self.stack.len() - mark.start).is_multiple_of(2),
            _ => self.stack.last().is_some_and(Bound::is_exact_instance_of::<PyDict>),
        };
        let object = match &mut self.keys {
            Some(keys) if is_key => keys.get(self.py, text),
            _ => text_object(self.py, text),
        };
        match object {
            Some(object) => self.stack.push(object),
            None => self.stack.push(surrogates(self.py, text)?),
        }
        Ok(())
    }

    fn text(&mut self, length: usize) -> Result<(), Stop> {
        let text = self.take(length)?;
        self.work.met_text(length);
        let object = text_object(self.py, text).map_or_else(|| surrogates(self.py, text), Ok)?;
        self.stack.push(object);
        Ok(())
    }

    #[inline]
    fn small(&mut self, opcode: u8, length: usize) -> Result<(), Stop> {
        let int = small_int(opcode, self.take(length)?).ok_or(Stop::NotPlain)?;
        self.stack.push(int_object(self.py, int).ok_or_else(no_memory)?);
        Ok(())
    }

    #[inline]
    fn number(&mut self, length: usize) -> Result<usize, Stop> {
        let little = self.take(length)?;
        Ok(little.iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte)))
    }

    /// Text up to the end of a line.
    fn line(&mut self) -> Result<&'b str, Stop> {
        let end = self.rest.iter().position(|&byte| byte == b'\n').ok_or(Stop::NotPlain)?;
        let line = self.take(end)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| Stop::NotPlain)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Stop> {
        let (&byte, rest) = self.rest.split_first().ok_or(Stop::NotPlain)?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'b [u8], Stop> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Stop::NotPlain)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// Bytes of an atom after its opcode, its `MEMOIZE` included. Nothing when it is no atom, or is not there as a whole.
#[inline]
fn atom_bytes(opcode: u8, rest: &[u8]) -> Option<usize> {
    let bytes = match opcode {
        b'N' | 0x88 | 0x89 => return Some(0),
        b'K' => 1,
        b'M' => 2,
        b'J' => 4,
        b'G' => 8,
        0x8c | b'C' => {
            let length = usize::from(*rest.first()?);
            return (*rest.get(1 + length)? == 0x94).then_some(length + 2);
        }
        _ => return None,
    };
    (bytes <= rest.len()).then_some(bytes)
}

/// Whether there is nothing but short texts that lead to atoms, up to `SETITEMS`. Fields before something else cannot be told
/// from the items of a tuple.
#[inline]
fn are_flat(mut rest: &[u8]) -> bool {
    while let [0x8c, length, after @ ..] = rest {
        let Some((_, [0x94, opcode, after @ ..])) = after.split_at_checked(usize::from(*length)) else { return false };
        let Some(bytes) = atom_bytes(*opcode, after) else { return false };
        rest = &after[bytes..];
    }
    rest.first() == Some(&b'u')
}

/// An integer of any length, from its two's complement: by its digits to the base 16, which takes time in proportion to them.
fn long_object<'py>(py: Python<'py>, little: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let is_negative = little.last().is_some_and(|&byte| byte >= 0x80);
    let mut digits = shortage::vector(Need::Value, 2 * little.len() + 3).map_err(raise)?;
    digits.extend_from_slice(if is_negative { b"-0" } else { b"0" });
    let start = digits.len();
    let mut carry = is_negative;
    for byte in little {
        // Of a negative number, what it lacks to zero.
        let (byte, more) = if is_negative { (!byte).overflowing_add(u8::from(carry)) } else { (*byte, false) };
        carry = more;
        digits.extend([byte & 15, byte >> 4].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
    if carry {
        digits.push(b'1');
    }
    digits[start..].reverse();
    digits.push(0);
    // Safety: the text ends with a null byte, and the answer is a new reference or null with an exception set.
    #[expect(unsafe_code, reason = "`int.from_bytes` takes four times as long")]
    unsafe {
        let int = ffi::PyLong_FromString(digits.as_ptr().cast(), std::ptr::null_mut(), 16);
        Bound::from_owned_ptr_or_err(py, int)
    }
}

/// Text with lone surrogates, as pickle writes it.
#[cold]
fn surrogates<'py>(py: Python<'py>, text: &[u8]) -> Result<Bound<'py, PyAny>, Stop> {
    let bytes = bytes_object(py, text).ok_or_else(no_memory)?;
    bytes.call_method1("decode", ("utf-8", "surrogatepass")).map_err(drop_error)
}

/// An error on the way, as of a key that cannot be hashed: pickle will raise it. That there is no memory is told at once.
#[cold]
fn drop_error(error: PyErr) -> Stop {
    let is_memory = Python::attach(|py| error.is_instance_of::<PyMemoryError>(py));
    if is_memory { Stop::Memory(error) } else { Stop::NotPlain }
}

#[cold]
fn no_memory() -> Stop {
    Stop::Memory(PyMemoryError::new_err(()))
}
