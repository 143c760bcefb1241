//! ```text
//!   what a node lends  -> Taken: an object at once, if it is plain  ->  the value
//!                      -> else its bytes, unpacked without the GIL, then read: here, in plain, or by C pickle
//! ```
//! Bytes to values. What `encode` writes without pickle is read without it; containers of plain values are read in `plain`.
//!
//! Promise: while a node lends, no Python code can run; with `decode="plain"` no pickle is ever run.

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyTuple};
use rayon::prelude::*;

use super::buffers;
use super::codec::{
    BINBYTES, BINUNICODE, Copying, LARGE_BYTES, LONG1, MEMOIZE, PROTO_5, SHORT_BINBYTES, SHORT_BINUNICODE, STOP,
    TAG_MAX, bytes_object, bytes_of, call, float_object, int_object, long, small_int, text_object,
};
use super::errors::raise;
use super::plain;
use crate::dictionary::Library;
use crate::entry::{Form, Key, Value};
use crate::error::{Error, Need};
use crate::message::{Kept, Lent, Read};
use crate::packed::Parts;
use crate::runtime::workers;
use crate::shortage;
use crate::values::{Opened, Packing};
use crate::version::{Timestamp, Version};

/// A value that was lent by a node. Small, because it is moved in the middle of every read.
pub(super) enum Taken {
    Nothing,
    /// It was plain, and is a Python object already.
    Object(Py<PyAny>),
    /// The bytes of a pickle, or what else was stored, as a Python object.
    Bytes(Py<PyBytes>),
    /// Not yet a Python object, and its version.
    Kept(Box<(Kept, Version)>),
    /// It cannot be unpacked.
    Broken(Box<Error>),
}

/// What unpacks the values of a cache.
#[derive(Clone, Copy)]
pub(super) struct Unpacker<'a> {
    pub(super) packing: &'a Packing,
    /// Where the dictionaries are.
    pub(super) library: &'a dyn Library,
}

impl Taken {
    /// Takes what a node lends, while it lends it, with the GIL: makes only objects that the garbage collector does not
    /// track, so that no Python code can run meanwhile. What is packed or signed is only copied.
    #[inline]
    pub(super) fn take(py: Python<'_>, packing: &Packing, read: Read, lent: Lent<'_>) -> Self {
        let value = match lent {
            Lent::Now(value) if packing.left(value.form()) => value,
            lent => return Self::keep(read, lent),
        };
        if let Some(object) = decode_plain(py, value.bytes()) {
            return Self::Object(object.unbind());
        }
        // The node is held: the GIL is not let go of here. A failure to make bytes means that memory is exhausted; the
        // next attempt, with no node held, will say so.
        match whole(py, value, Copying::Attached) {
            Ok(bytes) => Self::Bytes(bytes.unbind()),
            Err(_) => Self::keep(read, Lent::Now(value)),
        }
    }

    /// Takes what a node lends without the GIL.
    pub(super) fn keep(read: Read, lent: Lent<'_>) -> Self {
        // Only a value that is live is lent, under its version.
        read.known.version().map_or(Self::Nothing, |version| Self::Kept(Box::new((lent.keep(), version))))
    }

    /// What is to be unpacked or to be verified, and its version.
    #[inline]
    fn closed(&self, packing: &Packing) -> Option<(Value<'_>, Version)> {
        match self {
            Self::Kept(kept) if !packing.left(kept.0.value().form()) => Some((kept.0.value(), kept.1)),
            _ => None,
        }
    }

    /// Bytes that it takes unpacked, if it is packed.
    #[inline]
    pub(super) fn unpacked_bytes(&self, packing: &Packing) -> usize {
        let parts = self.closed(packing).and_then(|(value, _)| Parts::read(value.bytes()).ok());
        parts.map_or(0, |parts| parts.bytes)
    }

    /// Unpacks many, by all cores and without the GIL.
    pub(super) fn unpack_all(py: Python<'_>, unpacker: Unpacker<'_>, keys: &[Key<'_>], all: &mut [Self]) {
        let Unpacker { packing, library } = unpacker;
        let closed = |(at, taken): (usize, _)| Taken::closed(taken, packing).map(|found| (at, found));
        let closed: Vec<_> = all.iter().enumerate().filter_map(closed).collect();
        // Signatures take time; to look for a length takes none.
        let open = |&(at, (value, version)): &(usize, _)| (at, packing.open(keys[at], version, value, library));
        let opened: Vec<_> = if packing.signs() {
            py.detach(|| workers::divide(|| closed.par_iter().with_min_len(4).map(open).collect()))
        } else {
            closed.iter().map(open).collect()
        };
        let (mut rooms, mut broken) = (Vec::new(), Vec::new());
        for (at, opened) in opened {
            match opened {
                // Where there is no memory for it, who reads it will say so.
                Ok(opened) => rooms.extend(Room::new(py, opened).map(|room| (at, room))),
                Err(error) => broken.push((at, error)),
            }
        }
        py.detach(|| workers::divide(|| rooms.par_iter_mut().with_min_len(4).for_each(|(_, room)| room.fill(packing))));
        let full: Vec<_> = rooms.into_iter().map(|(at, room)| (at, room.full())).collect();
        full.into_iter().for_each(|(at, full)| all[at] = full);
        broken.into_iter().for_each(|(at, error)| all[at] = Self::Broken(Box::new(error)));
    }

    /// Unpacked, if it was packed.
    ///
    /// # Errors
    /// `SerializationError` when it is corrupt or not signed as it should be; `MemoryError`.
    #[inline]
    pub(super) fn unpacked(self, py: Python<'_>, unpacker: Unpacker<'_>, key: Key<'_>) -> PyResult<Self> {
        match self {
            Self::Kept(kept) if !unpacker.packing.left(kept.0.value().form()) => {
                unpack(py, unpacker, key, kept.1, kept.0.value())
            }
            Self::Broken(error) => Err(raise(*error)),
            taken => Ok(taken),
        }
    }

    /// The Python object, with no node held, of what is not packed.
    ///
    /// # Errors
    /// What pickle raised; with `plain_only`, a `ValueError` for what is not plain data.
    #[inline]
    pub(super) fn into_object(self, py: Python<'_>, plain_only: bool) -> PyResult<Bound<'_, PyAny>> {
        match self {
            Self::Object(object) => Ok(object.into_bound(py)),
            Self::Bytes(bytes) => {
                let bytes = bytes.bind(py);
                match decode(py, bytes.as_bytes(), plain_only) {
                    Some(value) => value,
                    None => unpickle(bytes.as_any()),
                }
            }
            Self::Nothing => Ok(py.None().into_bound(py)),
            Self::Broken(error) => Err(raise(*error)),
            Self::Kept(kept) => {
                let value = kept.0.value();
                if let Some(object) = decode_plain(py, value.bytes()) {
                    return Ok(object);
                }
                match decode(py, value.bytes(), plain_only) {
                    Some(value) => value,
                    None if is_lent(value.form(), value.bytes().len()) => {
                        unpickle(Bound::new(py, buffers::Lending(kept.0))?.as_any())
                    }
                    None => unpickle(whole(py, value, Copying::Detached)?.as_any()),
                }
            }
        }
    }
}

/// Reads what needs no unpickler: nothing when it is for one.
#[inline]
fn decode<'py>(py: Python<'py>, bytes: &[u8], plain_only: bool) -> Option<PyResult<Bound<'py, PyAny>>> {
    if let Some(&tag) = bytes.first()
        && tag <= TAG_MAX
    {
        return Some(decode_tagged(py, bytes, plain_only));
    }
    if plain_only {
        return Some(plain::decode(py, bytes).and_then(|value| value.ok_or_else(|| not_plain(py, bytes))));
    }
    if plain::is_quicker(bytes) { plain::decode(py, bytes).transpose() } else { decode_plain(py, bytes).map(Ok) }
}

#[cold]
fn decode_tagged<'py>(py: Python<'py>, bytes: &[u8], plain_only: bool) -> PyResult<Bound<'py, PyAny>> {
    if !buffers::is_tagged(bytes) {
        return Err(PyValueError::new_err("it was written by a serializer, and this cache has none"));
    }
    buffers::read(py, bytes, |pickle, beside| {
        if plain_only {
            plain::decode_beside(py, pickle, &beside)?.ok_or_else(|| not_plain(py, pickle))
        } else {
            buffers::loads(py, pickle, beside)
        }
    })
}

#[cold]
fn not_plain(py: Python<'_>, pickle: &[u8]) -> PyErr {
    PyValueError::new_err(format!("{}, and this cache has decode=\"plain\"", plain::refusal(py, pickle)))
}

/// An opened value, and Python bytes for it, which nobody else has.
struct Room<'a> {
    opened: Opened<'a>,
    bytes: Py<PyBytes>,
    /// Where they are, and how many.
    start: usize,
    len: usize,
    filled: Result<(), Error>,
}

impl<'a> Room<'a> {
    fn new(py: Python<'_>, opened: Opened<'a>) -> Option<Self> {
        let proto = if opened.form() == Form::Unframed { &PROTO_5[..] } else { &[] };
        let len = proto.len() + opened.bytes();
        let bytes = PyBytes::new_with(py, len, |bytes| {
            bytes[..proto.len()].copy_from_slice(proto);
            Ok(())
        });
        let bytes = bytes.ok()?;
        // Safety: they are Python bytes, and are kept.
        #[expect(unsafe_code, reason = "bytes that are filled by another thread")]
        let start = unsafe { ffi::PyBytes_AsString(bytes.as_ptr()) } as usize;
        Some(Self { opened, bytes: bytes.unbind(), start, len, filled: Ok(()) })
    }

    fn fill(&mut self, packing: &Packing) {
        // Safety: the object is fresh, of this length, initialized, alive, and nobody else knows it, so that it may be
        // written to, with or without the GIL.
        #[expect(unsafe_code, reason = "bytes that are filled by another thread")]
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.start as *mut u8, self.len) };
        let body = &mut bytes[self.len - self.opened.bytes()..];
        self.filled = packing.unpack_into(&self.opened, body);
    }

    fn full(self) -> Taken {
        match self.filled {
            Ok(()) => Taken::Bytes(self.bytes),
            Err(error) => Taken::Broken(Box::new(error)),
        }
    }
}

/// A value that is packed or signed, unpacked: a pickle without its frame, or what else was stored. Without the GIL when it
/// takes long.
fn unpack(py: Python<'_>, unpacker: Unpacker<'_>, key: Key<'_>, version: Version, value: Value<'_>) -> PyResult<Taken> {
    let Unpacker { packing, library } = unpacker;
    let is_long = packing.unpacks_long(value);
    let open = || packing.open(key, version, value, library);
    let opened = if is_long { py.detach(open) } else { open() }.map_err(raise)?;
    if is_lent(opened.form(), opened.bytes()) {
        let mut bytes = shortage::vector(Need::Value, opened.bytes()).map_err(raise)?;
        py.detach(|| {
            bytes.resize(opened.bytes(), 0);
            packing.unpack_into(&opened, &mut bytes)
        })
        .map_err(raise)?;
        return Ok(Taken::Kept(Box::new((Kept::Copy(bytes, opened.form()), version))));
    }
    let start = if opened.form() == Form::Unframed { PROTO_5.len() } else { 0 };
    let bytes = PyBytes::new_with(py, start + opened.bytes(), |bytes| {
        let (proto, body) = bytes.split_at_mut(start);
        proto.copy_from_slice(&PROTO_5[..start]);
        let mut unpack = || packing.unpack_into(&opened, body);
        if is_long { py.detach(unpack) } else { unpack() }.map_err(raise)
    })?;
    Ok(Taken::Bytes(bytes.unbind()))
}

/// Whether the unpickler reads a value's bytes where they are: a copy that is Python's would stay with the C library.
fn is_lent(form: Form, bytes: usize) -> bool {
    form != Form::Unframed && bytes >= LARGE_BYTES
}

/// A value's pickle as Python bytes. The frame that was taken off stays off: it only told a length.
fn whole<'py>(py: Python<'py>, value: Value<'_>, copying: Copying) -> PyResult<Bound<'py, PyBytes>> {
    let proto = if value.is_unframed() { &PROTO_5[..] } else { &[] };
    bytes_of(py, &[proto, value.bytes()], copying)
}

/// The answer to a read that found something: `(value, timestamp)`.
#[inline]
pub(super) fn hit<'py>(
    py: Python<'py>,
    value: Bound<'py, PyAny>,
    timestamp: Timestamp,
) -> PyResult<Bound<'py, PyTuple>> {
    // Safety: each object is checked for null before it is used, and `PyTuple_SetItem` takes over the reference it is
    // given, also when it fails, which it does not in a fresh tuple of two.
    #[expect(unsafe_code, reason = "the safe way takes 6 ns more of a get's 80")]
    unsafe {
        let tuple = Bound::from_owned_ptr_or_err(py, ffi::PyTuple_New(2))?;
        ffi::PyTuple_SetItem(tuple.as_ptr(), 0, value.into_ptr());
        let number = Bound::from_owned_ptr_or_err(py, ffi::PyLong_FromLongLong(timestamp.get() as i64))?;
        ffi::PyTuple_SetItem(tuple.as_ptr(), 1, number.into_ptr());
        Ok(tuple.cast_into_unchecked())
    }
}

/// Reads a plain value: `None` when it is not one, which is no error.
#[inline]
fn decode_plain<'py>(py: Python<'py>, bytes: &[u8]) -> Option<Bound<'py, PyAny>> {
    let (&STOP, body) = bytes.split_last()? else { return None };
    let body = body.strip_prefix(&PROTO_5).unwrap_or(body);
    let (&opcode, rest) = body.split_first()?;
    match (opcode, rest.len()) {
        (SHORT_BINUNICODE | SHORT_BINBYTES, 2..) => {
            let text = text(&rest[1..], usize::from(rest[0]))?;
            if opcode == SHORT_BINBYTES { bytes_object(py, text) } else { text_object(py, text) }
        }
        (BINUNICODE | BINBYTES, 5..) => {
            let (len, rest) = rest.split_first_chunk::<4>()?;
            let text = text(rest, u32::from_le_bytes(*len) as usize)?;
            if opcode == BINBYTES { bytes_object(py, text) } else { text_object(py, text) }
        }
        (b'K' | b'M' | b'J', _) => small_int(opcode, rest).and_then(|int| int_object(py, int)),
        (LONG1, 1..) if rest.len() == 1 + usize::from(rest[0]) => long(&rest[1..]).and_then(|int| int_object(py, int)),
        (b'G', 8) => float_object(py, f64::from_be_bytes(rest.try_into().ok()?)),
        (b'N', 0) => Some(py.None().into_bound(py)),
        (0x88 | 0x89, 0) => Some(PyBool::new(py, opcode == 0x88).to_owned().into_any()),
        _ => None,
    }
}

/// The payload of a string that is all there is: `len` bytes and `MEMOIZE`.
#[inline]
fn text(rest: &[u8], len: usize) -> Option<&[u8]> {
    match rest.split_last() {
        Some((&MEMOIZE, text)) if text.len() == len => Some(text),
        _ => None,
    }
}

static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn unpickle<'py>(pickled: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = pickled.py();
    let loads = LOADS.get_or_try_init(py, || py.import("pickle")?.getattr("loads").map(Bound::unbind))?.bind(py);
    call(loads, &[pickled.as_ptr()])
}
