//! ```text
//!   opcodes of a pickle  ->  a stack of Python objects, and marks in it  ->  the value
//!      anything but plain data: not here, pickle itself reads it
//! ```
//! Reads pickles of plain data: `dict`, `list`, `tuple`, `set` and `frozenset` of `None`, `bool`, `int`, `float`, `str` and
//! `bytes`, shared references included. It does so without the objects that an unpickler is made of, which take longer
//! than a small value.
//!
//! Promise: what it returns is what `pickle.loads` returns; whatever it does not know it leaves to pickle. It imports and
//! calls nothing, does not recurse, and allocates nothing for a length that the bytes do not have.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFrozenSet, PyList, PySet, PyTuple};

use super::codec::{bytes_object, int_object, long, small_int, text_object};

/// Objects for which the stack has room at first: those of a dict of ten.
const STACK: usize = 24;

/// Why a value was not read.
enum Stop {
    /// It shares references: what was met must be remembered.
    Shares,
    /// It is not plain, or broken: pickle will tell.
    NotPlain,
}

/// Reads a plain value: `None` when it is not one, which is no error.
pub(super) fn decode<'py>(py: Python<'py>, pickle: &[u8]) -> Option<Bound<'py, PyAny>> {
    // Remembering each string and container costs more than reading twice the few values that share.
    match Reader::new(py, pickle, false).read() {
        Ok(value) => Some(value),
        Err(Stop::Shares) => Reader::new(py, pickle, true).read().ok(),
        Err(Stop::NotPlain) => None,
    }
}

struct Reader<'py, 'b> {
    py: Python<'py>,
    rest: &'b [u8],
    stack: Vec<Bound<'py, PyAny>>,
    marks: Vec<usize>,
    /// What was memoized, when it is remembered.
    memo: Option<Vec<Bound<'py, PyAny>>>,
}

impl<'py, 'b> Reader<'py, 'b> {
    fn new(py: Python<'py>, pickle: &'b [u8], remember: bool) -> Self {
        let memo = remember.then(Vec::new);
        Self { py, rest: pickle, stack: Vec::with_capacity(STACK), marks: Vec::new(), memo }
    }

    fn read(mut self) -> Result<Bound<'py, PyAny>, Stop> {
        loop {
            let opcode = self.byte()?;
            if opcode == b'.' {
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
                self.text(length)?;
            }
            // MEMOIZE
            0x94 => {
                if let Some(memo) = &mut self.memo {
                    memo.push(self.stack.last().ok_or(Stop::NotPlain)?.clone());
                }
            }
            b'K' => self.small(opcode, 1)?,
            b'M' => self.small(opcode, 2)?,
            b'J' => self.small(opcode, 4)?,
            b'N' => self.stack.push(py.None().into_bound(py)),
            0x88 | 0x89 => self.stack.push(pyo3::types::PyBool::new(py, opcode == 0x88).to_owned().into_any()),
            b'G' => {
                let bits = self.take(8)?.try_into().map_err(|_| Stop::NotPlain)?;
                self.stack.push(pyo3::types::PyFloat::new(py, f64::from_be_bytes(bits)).into_any());
            }
            b'(' => self.marks.push(self.stack.len()),
            b'}' => self.stack.push(PyDict::new(py).into_any()),
            b']' => self.stack.push(PyList::empty(py).into_any()),
            b')' => self.stack.push(PyTuple::empty(py).into_any()),
            // SETITEM, SETITEMS
            b's' => {
                let start = self.stack.len().checked_sub(2).ok_or(Stop::NotPlain)?;
                self.set_items(start)?;
            }
            b'u' => {
                let start = self.mark()?;
                self.set_items(start)?;
            }
            // APPEND, APPENDS
            b'a' => {
                let start = self.stack.len().checked_sub(1).ok_or(Stop::NotPlain)?;
                self.append(start)?;
            }
            b'e' => {
                let start = self.mark()?;
                self.append(start)?;
            }
            // TUPLE1, TUPLE2, TUPLE3, TUPLE
            0x85..=0x87 => {
                let start = self.stack.len().checked_sub(usize::from(opcode - 0x84)).ok_or(Stop::NotPlain)?;
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

    fn step_seldom(&mut self, opcode: u8) -> Result<(), Stop> {
        let py = self.py;
        match opcode {
            b'X' => {
                let length = self.number(4)?;
                self.text(length)?;
            }
            b'C' => {
                let length = usize::from(self.byte()?);
                self.bytes(length)?;
            }
            b'B' => {
                let length = self.number(4)?;
                self.bytes(length)?;
            }
            0x8a => {
                let length = usize::from(self.byte()?);
                let int = long(self.take(length)?).ok_or(Stop::NotPlain)?;
                self.stack.push(int_object(py, int));
            }
            b'h' => {
                let at = usize::from(self.byte()?);
                self.recall(at)?;
            }
            b'j' => {
                let at = self.number(4)?;
                self.recall(at)?;
            }
            // EMPTY_SET, ADDITEMS, FROZENSET
            0x8f => self.stack.push(PySet::empty(py).map_err(drop_error)?.into_any()),
            0x90 => {
                let start = self.mark()?;
                let (below, items) = self.split(start)?;
                let set = below.cast::<PySet>().map_err(|_| Stop::NotPlain)?;
                items.iter().try_for_each(|item| set.add(item)).map_err(drop_error)?;
                self.stack.truncate(start);
            }
            0x91 => {
                let start = self.mark()?;
                let set = PyFrozenSet::new(py, &self.stack[start..]).map_err(drop_error)?;
                self.stack.truncate(start);
                self.stack.push(set.into_any());
            }
            // PROTO, FRAME
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            _ => return Err(Stop::NotPlain),
        }
        Ok(())
    }

    #[inline]
    fn set_items(&mut self, start: usize) -> Result<(), Stop> {
        let (below, items) = self.split(start)?;
        let dict = below.cast_exact::<PyDict>().map_err(|_| Stop::NotPlain)?;
        let pairs = items.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return Err(Stop::NotPlain);
        }
        for pair in pairs {
            dict.set_item(&pair[0], &pair[1]).map_err(drop_error)?;
        }
        self.stack.truncate(start);
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
        let tuple = PyTuple::new(self.py, self.stack.drain(start..)).map_err(drop_error)?;
        self.stack.push(tuple.into_any());
        Ok(())
    }

    /// The container below `start`, and what is above it.
    #[inline]
    fn split(&self, start: usize) -> Result<(&Bound<'py, PyAny>, &[Bound<'py, PyAny>]), Stop> {
        let (below, items) = self.stack.split_at_checked(start).ok_or(Stop::NotPlain)?;
        // What was put before a mark is not this mark's.
        let least = self.marks.last().copied().unwrap_or(0);
        let container = below.last().filter(|_| start > least).ok_or(Stop::NotPlain)?;
        Ok((container, items))
    }

    #[inline]
    fn mark(&mut self) -> Result<usize, Stop> {
        self.marks.pop().filter(|&start| start <= self.stack.len()).ok_or(Stop::NotPlain)
    }

    fn recall(&mut self, at: usize) -> Result<(), Stop> {
        let memo = self.memo.as_ref().ok_or(Stop::Shares)?;
        self.stack.push(memo.get(at).ok_or(Stop::NotPlain)?.clone());
        Ok(())
    }

    #[inline]
    fn text(&mut self, length: usize) -> Result<(), Stop> {
        let text = self.take(length)?;
        self.stack.push(text_object(self.py, text).ok_or(Stop::NotPlain)?);
        Ok(())
    }

    fn bytes(&mut self, length: usize) -> Result<(), Stop> {
        let bytes = self.take(length)?;
        self.stack.push(bytes_object(self.py, bytes).ok_or(Stop::NotPlain)?);
        Ok(())
    }

    #[inline]
    fn small(&mut self, opcode: u8, length: usize) -> Result<(), Stop> {
        let int = small_int(opcode, self.take(length)?).ok_or(Stop::NotPlain)?;
        self.stack.push(int_object(self.py, int));
        Ok(())
    }

    #[inline]
    fn number(&mut self, length: usize) -> Result<usize, Stop> {
        let little = self.take(length)?;
        Ok(little.iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte)))
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

/// An error on the way, as of a key that cannot be hashed: pickle will raise it.
fn drop_error(_: PyErr) -> Stop {
    Stop::NotPlain
}
