//! ```text
//!   None bool int float str bytes  ---here--->  the bytes of pickle.dumps(value, 5)  ---here--->  the value
//!   everything else                ---C pickle->                                    ---C pickle->
//! ```
//! Values to bytes and back. Plain values of exactly these types are written and read here, without a call into Python,
//! byte for byte as pickle would; subclasses, integers beyond 64 bits and strings that are no UTF-8 are left to pickle.
//! Containers of plain values are written in `small` or by pickle, and read in `plain`.
//!
//! Promise: what is stored is always a plain protocol 5 pickle, unless its first byte is a tag that says what else it is.

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyFloat, PyInt, PyString, PyTuple};

use rayon::prelude::*;

use super::buffers::{self, Pickled};
use super::errors::{raise, serialization};
use super::plain;
use super::small;
use crate::dictionary::Library;
use crate::entry::{Form, Key, Value};
use crate::error::Error;
use crate::message::{Kept, Lent, Read};
use crate::packed::Parts;
use crate::runtime::workers;
use crate::values::{Opened, Packing};
use crate::version::{Timestamp, Version};

/// Values of so many bytes are copied with the GIL released: a copy of 16 KiB takes about as long as letting go of it.
pub(super) const LARGE_BYTES: usize = 16 * 1024;

/// From this length on pickle writes a string outside of its frames.
const FRAME_BYTES_MAX: usize = 64 * 1024;

/// What is stored and is no pickle begins with a tag: 0 for buffers beside a pickle, the others for what a serializer wrote.
/// No pickle begins with so small a byte.
pub(super) const TAG_MAX: u8 = 3;

pub(super) const PROTO_5: [u8; 2] = [0x80, 5];
pub(super) const STOP: u8 = b'.';
pub(super) const MEMOIZE: u8 = 0x94;
const SHORT_BINUNICODE: u8 = 0x8c;
const BINUNICODE: u8 = b'X';
const SHORT_BINBYTES: u8 = b'C';
const BINBYTES: u8 = b'B';
const BYTEARRAY8: u8 = 0x96;
const LONG1: u8 = 0x8a;

/// Room for a plain value: most are shorter, and then nothing is allocated.
const SHORT_BYTES: usize = 192;

/// A value's bytes on their way into the cache.
pub(super) enum Encoded<'py> {
    /// The body of a one-frame pickle, or a whole pickle that needs no frame.
    Short { bytes: [u8; SHORT_BYTES], len: u8, framed: bool },
    /// The same, longer.
    Long { bytes: Vec<u8>, framed: bool },
    /// The body of a one-frame pickle of a small record.
    Small(small::Body),
    /// What pickle gave.
    Pickle(Bound<'py, PyBytes>),
}

impl Encoded<'_> {
    /// What a serializer wrote.
    pub(super) fn tagged(tag: u8, written: &[u8]) -> Self {
        let len = 1 + written.len();
        if len > SHORT_BYTES {
            return Self::Long { bytes: [&[tag], written].concat(), framed: false };
        }
        let mut bytes = [0; SHORT_BYTES];
        bytes[0] = tag;
        bytes[1..len].copy_from_slice(written);
        Self::Short { bytes, len: len as u8, framed: false }
    }

    /// The value as nodes take it.
    ///
    /// # Errors
    /// `ValueTooLargeError`.
    #[inline]
    pub(super) fn value(&self) -> PyResult<Value<'_>> {
        self.as_value().map_err(super::errors::raise)
    }

    /// The same without Python.
    #[inline]
    pub(super) fn as_value(&self) -> Result<Value<'_>, Error> {
        match self {
            Self::Short { bytes, len, framed: true } => Value::unframed(&bytes[..usize::from(*len)]),
            Self::Short { bytes, len, framed: false } => Value::new(&bytes[..usize::from(*len)]),
            Self::Long { bytes, framed: true } => Value::unframed(bytes),
            Self::Long { bytes, framed: false } => Value::new(bytes),
            Self::Small(body) => Value::unframed(body),
            Self::Pickle(bytes) => Value::new(bytes.as_bytes()),
        }
    }
}

/// Turns a value into bytes.
///
/// # Errors
/// `SerializationError` from the error that pickle raised.
#[inline(always)]
pub(super) fn encode<'py>(value: &Bound<'py, PyAny>) -> PyResult<Encoded<'py>> {
    if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        return Ok(encode_text(value.py(), bytes.as_bytes(), SHORT_BINBYTES, BINBYTES)
            .unwrap_or_else(|| Encoded::Pickle(bytes.clone())));
    }
    if let Ok(text) = value.cast_exact::<PyString>() {
        if let Some(encoded) =
            text.to_str().ok().and_then(|text| encode_text(value.py(), text.as_bytes(), SHORT_BINUNICODE, BINUNICODE))
        {
            return Ok(encoded);
        }
        return pickle(value);
    }
    if let Some((bytes, len, framed)) = encode_number(value) {
        return Ok(Encoded::Short { bytes, len, framed });
    }
    encode_object(value)
}

// Not inlined: what is written without it is faster so.
#[inline(never)]
fn encode_object<'py>(value: &Bound<'py, PyAny>) -> PyResult<Encoded<'py>> {
    if let Some(body) = small::encode(value) {
        return Ok(Encoded::Small(body));
    }
    match value.cast_exact::<PyByteArray>() {
        Ok(array) => Ok(encode_byte_array(array)),
        Err(_) => pickle(value),
    }
}

/// `bytearray`: copied with the GIL held, since it may be changed by whoever has it.
fn encode_byte_array<'py>(array: &Bound<'py, PyByteArray>) -> Encoded<'py> {
    // Safety: the GIL is held and no Python code runs while the slice is there.
    #[expect(unsafe_code, reason = "a large array is copied once")]
    let array = unsafe { array.as_bytes() };
    let framed = array.len() < FRAME_BYTES_MAX;
    let proto = if framed { &[][..] } else { &PROTO_5 };
    let length = (array.len() as u64).to_le_bytes();
    Encoded::Long { bytes: [proto, &[BYTEARRAY8], &length, array, &[MEMOIZE, STOP]].concat(), framed }
}

/// `str` and `bytes`. `None` above 4 GiB.
#[inline]
fn encode_text<'py>(py: Python<'py>, text: &[u8], short: u8, long: u8) -> Option<Encoded<'py>> {
    if text.len() + 4 <= SHORT_BYTES {
        let mut bytes = [0; SHORT_BYTES];
        bytes[..2].copy_from_slice(&[short, text.len() as u8]);
        bytes[2..2 + text.len()].copy_from_slice(text);
        bytes[2 + text.len()..4 + text.len()].copy_from_slice(&[MEMOIZE, STOP]);
        return Some(Encoded::Short { bytes, len: text.len() as u8 + 4, framed: true });
    }
    let head = text_head(text.len(), short, long)?;
    let head = &head.0[..head.1];
    if text.len() >= LARGE_BYTES {
        // The caller keeps the object alive, and neither kind ever changes.
        let (bytes, framed) = py.detach(|| long_text(head, text));
        return Some(Encoded::Long { bytes, framed });
    }
    let (bytes, framed) = long_text(head, text);
    Some(Encoded::Long { bytes, framed })
}

/// What comes before a `str` or `bytes` of so many bytes. `None` above 4 GiB.
#[inline]
pub(super) fn text_head_of(len: usize, is_bytes: bool) -> Option<([u8; 5], usize)> {
    if is_bytes { text_head(len, SHORT_BINBYTES, BINBYTES) } else { text_head(len, SHORT_BINUNICODE, BINUNICODE) }
}

#[inline]
fn text_head(len: usize, short: u8, long: u8) -> Option<([u8; 5], usize)> {
    let len = u32::try_from(len).ok()?;
    Some(match u8::try_from(len) {
        Ok(len) => ([short, len, 0, 0, 0], 2),
        Err(_) => {
            let [a, b, c, d] = len.to_le_bytes();
            ([long, a, b, c, d], 5)
        }
    })
}

/// A string that is encoded later, by a thread that need not hold the GIL: strings never change.
pub(super) struct Later<'a> {
    head: ([u8; 5], usize),
    text: &'a [u8],
}

impl<'a> Later<'a> {
    /// Nothing for what is to be encoded now.
    #[inline]
    pub(super) fn of(value: &'a Bound<'_, PyAny>) -> Option<Self> {
        let (text, short, long) = if let Ok(bytes) = value.cast_exact::<PyBytes>() {
            (bytes.as_bytes(), SHORT_BINBYTES, BINBYTES)
        } else {
            (value.cast_exact::<PyString>().ok()?.to_str().ok()?.as_bytes(), SHORT_BINUNICODE, BINUNICODE)
        };
        Some(Self { head: text_head(text.len(), short, long)?, text })
    }

    /// The value as nodes take it, put together in a buffer.
    pub(super) fn value<'b>(&self, buffer: &'b mut Vec<u8>) -> Result<Value<'b>, Error> {
        let framed = self.text.len() < FRAME_BYTES_MAX;
        buffer.clear();
        buffer.extend_from_slice(if framed { &[][..] } else { &PROTO_5 });
        buffer.extend_from_slice(&self.head.0[..self.head.1]);
        buffer.extend_from_slice(self.text);
        buffer.extend_from_slice(&[MEMOIZE, STOP]);
        if framed { Value::unframed(buffer) } else { Value::new(buffer) }
    }

    /// How long it will be, or a little more.
    pub(super) const fn len(&self) -> usize {
        self.text.len() + 9
    }
}

/// The bytes of a long string, and whether they are a frame's body.
fn long_text(head: &[u8], text: &[u8]) -> (Vec<u8>, bool) {
    let framed = text.len() < FRAME_BYTES_MAX;
    let proto = if framed { &[][..] } else { &PROTO_5 };
    ([proto, head, text, &[MEMOIZE, STOP]].concat(), framed)
}

/// `None`, `bool`, `int` of 64 bits and `float`: the bytes, their number, and whether pickle frames them.
#[inline]
fn encode_number(value: &Bound<'_, PyAny>) -> Option<([u8; SHORT_BYTES], u8, bool)> {
    let (mut body, len) = number_opcodes(value)?;
    body[len] = STOP;
    // Pickle frames what has at least four bytes.
    let framed = len + 1 >= 4;
    let start = if framed { 0 } else { PROTO_5.len() };
    let mut bytes = [0; SHORT_BYTES];
    bytes[..start].copy_from_slice(&PROTO_5[..start]);
    bytes[start..start + 12].copy_from_slice(&body);
    Some((bytes, (start + len + 1) as u8, framed))
}

/// Their opcodes, and how many bytes that is.
#[inline(always)]
pub(super) fn number_opcodes(value: &Bound<'_, PyAny>) -> Option<([u8; 12], usize)> {
    let mut body = [0; 12];
    let len = if let Ok(int) = value.cast_exact::<PyInt>() {
        encode_int(int.extract().ok()?, &mut body)
    } else if let Ok(float) = value.cast_exact::<PyFloat>() {
        body[0] = b'G';
        body[1..9].copy_from_slice(&float.value().to_be_bytes());
        9
    } else if value.is_none() {
        body[0] = b'N';
        1
    } else if let Ok(bool) = value.cast_exact::<PyBool>() {
        body[0] = if bool.is_true() { 0x88 } else { 0x89 };
        1
    } else {
        return None;
    };
    Some((body, len))
}

/// The shortest of pickle's forms; returns its length.
#[inline]
fn encode_int(int: i64, body: &mut [u8; 12]) -> usize {
    let little = int.to_le_bytes();
    let (opcode, bytes) = match int {
        0..=0xff => (b'K', 1),
        0x100..=0xffff => (b'M', 2),
        _ if i32::try_from(int).is_ok() => (b'J', 4),
        _ => {
            // Two's complement in as few bytes as keep the sign.
            let bits = 65 - if int < 0 { int.leading_ones() } else { int.leading_zeros() };
            let bytes = bits.div_ceil(8) as usize;
            body[..2].copy_from_slice(&[LONG1, bytes as u8]);
            body[2..2 + bytes].copy_from_slice(&little[..bytes]);
            return 2 + bytes;
        }
    };
    body[0] = opcode;
    body[1..1 + bytes].copy_from_slice(&little[..bytes]);
    1 + bytes
}

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
                unpack(py, unpacker, key, kept.1, kept.0.value()).map(|bytes| Self::Bytes(bytes.unbind()))
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
                    None => unpickle(bytes),
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
                    None => unpickle(&whole(py, value, Copying::Detached)?),
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
        return Some(plain::decode(py, bytes).ok_or_else(|| not_plain(py, bytes)));
    }
    if plain::is_quicker(bytes) { plain::decode(py, bytes).map(Ok) } else { decode_plain(py, bytes).map(Ok) }
}

#[cold]
fn decode_tagged<'py>(py: Python<'py>, bytes: &[u8], plain_only: bool) -> PyResult<Bound<'py, PyAny>> {
    if !buffers::is_tagged(bytes) {
        return Err(PyValueError::new_err("it was written by a serializer, and this cache has none"));
    }
    buffers::read(py, bytes, |pickle, beside| {
        if plain_only {
            plain::decode_beside(py, pickle, &beside).ok_or_else(|| not_plain(py, pickle))
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

/// A value that is packed or signed as Python bytes: a pickle without its frame, or what else was stored. Without the GIL
/// when it takes long.
fn unpack<'py>(
    py: Python<'py>,
    unpacker: Unpacker<'_>,
    key: Key<'_>,
    version: Version,
    value: Value<'_>,
) -> PyResult<Bound<'py, PyBytes>> {
    let Unpacker { packing, library } = unpacker;
    let is_long = packing.unpacks_long(value);
    let open = || packing.open(key, version, value, library);
    let opened = if is_long { py.detach(open) } else { open() }.map_err(raise)?;
    let start = if opened.form() == Form::Unframed { PROTO_5.len() } else { 0 };
    PyBytes::new_with(py, start + opened.bytes(), |bytes| {
        let (proto, body) = bytes.split_at_mut(start);
        proto.copy_from_slice(&PROTO_5[..start]);
        let mut unpack = || packing.unpack_into(&opened, body);
        if is_long { py.detach(unpack) } else { unpack() }.map_err(raise)
    })
}

/// A value's pickle as Python bytes. The frame that was taken off stays off: it only told a length.
fn whole<'py>(py: Python<'py>, value: Value<'_>, copying: Copying) -> PyResult<Bound<'py, PyBytes>> {
    let proto = if value.is_unframed() { &PROTO_5[..] } else { &[] };
    bytes_of(py, &[proto, value.bytes()], copying)
}

/// Whether a long copy may let go of the GIL.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copying {
    Attached,
    Detached,
}

/// Python bytes of these parts, copied without the GIL when they are many.
#[inline]
fn bytes_of<'py>(py: Python<'py>, parts: &[&[u8]], copying: Copying) -> PyResult<Bound<'py, PyBytes>> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    // Safety: the object is fresh and nobody else knows it, so it may be filled, with or without the GIL; the parts
    // together have the length it was made with. Made zeroed first, as the safe way does it, a get takes 5 % longer.
    #[expect(unsafe_code, reason = "bytes that are filled once")]
    unsafe {
        let object = ffi::PyBytes_FromStringAndSize(std::ptr::null(), len as ffi::Py_ssize_t);
        let object = Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked::<PyBytes>();
        let start = ffi::PyBytes_AsString(object.as_ptr()) as usize;
        let fill = || {
            let mut to = start as *mut u8;
            for part in parts {
                std::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len());
                to = to.add(part.len());
            }
        };
        if len >= LARGE_BYTES && copying == Copying::Detached {
            py.detach(fill)
        } else {
            fill()
        }
        Ok(object)
    }
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
        (b'K' | b'M' | b'J', _) => small_int(opcode, rest).map(|int| int_object(py, int)),
        (LONG1, 1..) if rest.len() == 1 + usize::from(rest[0]) => long(&rest[1..]).map(|int| int_object(py, int)),
        (b'G', 8) => Some(PyFloat::new(py, f64::from_be_bytes(rest.try_into().ok()?)).into_any()),
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

#[inline]
pub(super) fn text_object<'py>(py: Python<'py>, text: &[u8]) -> Option<Bound<'py, PyAny>> {
    // Lone surrogates are left to pickle.
    PyString::from_bytes(py, text).ok().map(Bound::into_any)
}

#[inline]
pub(super) fn bytes_object<'py>(py: Python<'py>, text: &[u8]) -> Option<Bound<'py, PyAny>> {
    if text.len() < LARGE_BYTES {
        return Some(PyBytes::new(py, text).into_any());
    }
    // So long a value is a share: no node is held.
    bytes_of(py, &[text], Copying::Detached).ok().map(Bound::into_any)
}

#[inline]
pub(super) fn small_int(opcode: u8, rest: &[u8]) -> Option<i64> {
    match (opcode, rest) {
        (b'K', &[a]) => Some(i64::from(a)),
        (b'M', &[a, b]) => Some(i64::from(u16::from_le_bytes([a, b]))),
        (b'J', &[a, b, c, d]) => Some(i64::from(i32::from_le_bytes([a, b, c, d]))),
        _ => None,
    }
}

#[inline]
pub(super) fn long(rest: &[u8]) -> Option<i64> {
    if rest.is_empty() || rest.len() > 8 {
        return None;
    }
    let sign = if rest[rest.len() - 1] >= 0x80 { 0xff } else { 0 };
    let mut bytes = [sign; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    Some(i64::from_le_bytes(bytes))
}

#[inline]
pub(super) fn int_object(py: Python<'_>, int: i64) -> Bound<'_, PyAny> {
    // An `i64` always becomes an `int`.
    match int.into_pyobject(py) {
        Ok(int) => int.into_any(),
    }
}

static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn pickle<'py>(value: &Bound<'py, PyAny>) -> PyResult<Encoded<'py>> {
    match buffers::pickle(value) {
        Ok(Pickled::Pickle(bytes)) => Ok(Encoded::Pickle(bytes)),
        Ok(Pickled::Tagged(bytes)) => Ok(Encoded::Long { bytes, framed: false }),
        Err(error) => {
            let what = format!("a value of type {} cannot be pickled", type_name(value));
            Err(serialization(value.py(), &what, error))
        }
    }
}

fn unpickle<'py>(pickled: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyAny>> {
    let py = pickled.py();
    let loads = LOADS.get_or_try_init(py, || py.import("pickle")?.getattr("loads").map(Bound::unbind))?.bind(py);
    call(loads, &[pickled.as_ptr()])
}

/// Calls with one argument, or none, that the caller keeps alive: under the stable ABI 10 to 30 ns quicker than `call1`.
#[inline]
pub(super) fn call<'py>(callable: &Bound<'py, PyAny>, arguments: &[*mut ffi::PyObject]) -> PyResult<Bound<'py, PyAny>> {
    let nothing = std::ptr::null_mut::<ffi::PyObject>();
    let first = arguments.first().copied().unwrap_or(nothing);
    // Safety: callable and argument are alive, the list ends with a null pointer, and the answer is a new reference or
    // null with an exception set.
    #[expect(unsafe_code, reason = "the call that pickle's cost is measured with")]
    unsafe {
        let answer = ffi::PyObject_CallFunctionObjArgs(callable.as_ptr(), first, nothing);
        Bound::from_owned_ptr_or_err(callable.py(), answer)
    }
}

/// A type's name for a message; a type that cannot tell it is called what it is.
pub(super) fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "unknown".to_owned(), |name| name.to_string())
}
