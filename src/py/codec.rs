//! ```text
//!   None bool int float str bytes  ---here--->  the bytes of pickle.dumps(value, 5)  ---here--->  the value
//!   everything else                ---C pickle->                                    ---C pickle->
//! ```
//! Values to bytes and back. Plain values of exactly these types are written and read here, without a call into Python,
//! byte for byte as pickle would; subclasses, integers beyond 64 bits and strings that are no UTF-8 are left to pickle.
//! Containers of plain values are written by pickle and read in `plain`.
//!
//! Promise: what is stored is always a plain protocol 5 pickle.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString, PyTuple};

use super::errors::{raise, serialization};
use super::plain;
use crate::dictionary::Library;
use crate::entry::{Form, Key, Value};
use crate::error::Error;
use crate::message::{Kept, Lent, Read};
use crate::values::Packing;
use crate::version::{Timestamp, Version};

/// Values of so many bytes are copied with the GIL released: a copy of 16 KiB takes about as long as letting go of it.
pub(super) const LARGE_BYTES: usize = 16 * 1024;

/// From this length on pickle writes a string outside of its frames.
const FRAME_BYTES_MAX: usize = 64 * 1024;

const PROTO_5: [u8; 2] = [0x80, 5];
const STOP: u8 = b'.';
const MEMOIZE: u8 = 0x94;
const SHORT_BINUNICODE: u8 = 0x8c;
const BINUNICODE: u8 = b'X';
const SHORT_BINBYTES: u8 = b'C';
const BINBYTES: u8 = b'B';
const LONG1: u8 = 0x8a;

/// Room for a plain value: most are shorter, and then nothing is allocated.
const SHORT_BYTES: usize = 192;

/// A value's bytes on their way into the cache.
pub(super) enum Encoded<'py> {
    /// The body of a one-frame pickle, or a whole pickle that needs no frame.
    Short { bytes: [u8; SHORT_BYTES], len: u8, framed: bool },
    /// The same, longer.
    Long { bytes: Vec<u8>, framed: bool },
    /// What pickle gave.
    Pickle(Bound<'py, PyBytes>),
}

impl Encoded<'_> {
    /// The value as nodes take it.
    #[inline]
    pub(super) fn value(&self) -> PyResult<Value<'_>> {
        let value = match self {
            Self::Short { bytes, len, framed: true } => Value::unframed(&bytes[..usize::from(*len)]),
            Self::Short { bytes, len, framed: false } => Value::new(&bytes[..usize::from(*len)]),
            Self::Long { bytes, framed: true } => Value::unframed(bytes),
            Self::Long { bytes, framed: false } => Value::new(bytes),
            Self::Pickle(bytes) => Value::new(bytes.as_bytes()),
        };
        value.map_err(raise)
    }
}

/// Turns a value into bytes.
///
/// # Errors
/// `SerializationError` from the error that pickle raised.
#[inline]
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
    match encode_number(value) {
        Some((bytes, len, framed)) => Ok(Encoded::Short { bytes, len, framed }),
        None => pickle(value),
    }
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
    let len = u32::try_from(text.len()).ok()?;
    let head = match u8::try_from(len) {
        Ok(len) => ([short, len, 0, 0, 0], 2),
        Err(_) => {
            let [a, b, c, d] = len.to_le_bytes();
            ([long, a, b, c, d], 5)
        }
    };
    let head = &head.0[..head.1];
    if text.len() >= LARGE_BYTES {
        // The caller keeps the object alive, and neither kind ever changes.
        let (bytes, framed) = py.detach(|| long_text(head, text));
        return Some(Encoded::Long { bytes, framed });
    }
    let (bytes, framed) = long_text(head, text);
    Some(Encoded::Long { bytes, framed })
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
    body[len] = STOP;
    // Pickle frames what has at least four bytes.
    let framed = len + 1 >= 4;
    let start = if framed { 0 } else { PROTO_5.len() };
    let mut bytes = [0; SHORT_BYTES];
    bytes[..start].copy_from_slice(&PROTO_5[..start]);
    bytes[start..start + 12].copy_from_slice(&body);
    Some((bytes, (start + len + 1) as u8, framed))
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
    /// The bytes of a pickle, as a Python object.
    Pickle(Py<PyBytes>),
    /// Not yet a Python object.
    Kept(Box<Outside>),
}

/// A value outside of Python.
pub(super) enum Outside {
    /// As it was stored, and its version.
    Stored(Kept, Version),
    /// Unpacked.
    Unpacked(Vec<u8>, Form),
    /// Not to be unpacked.
    Broken(Error),
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
            Ok(bytes) => Self::Pickle(bytes.unbind()),
            Err(_) => Self::keep(read, Lent::Now(value)),
        }
    }

    /// Takes what a node lends without the GIL.
    #[inline(never)]
    pub(super) fn keep(read: Read, lent: Lent<'_>) -> Self {
        // Only a value that is live is lent, under its version.
        read.known
            .version()
            .map_or(Self::Nothing, |version| Self::Kept(Box::new(Outside::Stored(lent.keep(), version))))
    }

    /// Unpacks what is packed or signed, on the calling thread and without the GIL. What is neither stays as it is.
    pub(super) fn unpack(self, key: Key<'_>, packing: &Packing, library: &dyn Library) -> Self {
        let Self::Kept(kept) = self else { return self };
        let unpacked = match &*kept {
            Outside::Stored(stored, version) if !packing.left(stored.value().form()) => {
                packing.unpack(key, *version, stored.value(), library)
            }
            _ => return Self::Kept(kept),
        };
        Self::Kept(Box::new(match unpacked {
            Ok((bytes, form)) => Outside::Unpacked(bytes.into_owned(), form),
            Err(error) => Outside::Broken(error),
        }))
    }

    /// The Python object, with no node held.
    ///
    /// # Errors
    /// `SerializationError` from the error that pickle raised, or of a value that cannot be unpacked.
    #[inline]
    pub(super) fn into_object<'py>(
        self,
        py: Python<'py>,
        key: Key<'_>,
        packing: &Packing,
        library: &dyn Library,
    ) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Object(object) => Ok(object.into_bound(py)),
            Self::Pickle(bytes) => unpickle(bytes.bind(py)),
            Self::Nothing => Ok(py.None().into_bound(py)),
            Self::Kept(kept) => kept.into_object(py, key, packing, library),
        }
    }
}

impl Outside {
    /// By itself, so that the way of a short value stays short.
    #[inline(never)]
    fn into_object<'py>(
        self,
        py: Python<'py>,
        key: Key<'_>,
        packing: &Packing,
        library: &dyn Library,
    ) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Stored(kept, version) => unpack_and_decode(py, key, version, kept.value(), packing, library),
            Self::Unpacked(bytes, form) => decode(py, Value::stored(&bytes, form)),
            Self::Broken(error) => Err(raise(error)),
        }
    }
}

/// Opens a value as it was stored and unpacks it, without the GIL when that takes long, and decodes it.
fn unpack_and_decode<'py>(
    py: Python<'py>,
    key: Key<'_>,
    version: Version,
    stored: Value<'_>,
    packing: &Packing,
    library: &dyn Library,
) -> PyResult<Bound<'py, PyAny>> {
    let is_long = packing.unpacks_long(stored);
    let open = || packing.open(key, version, stored, library);
    let opened = if is_long { py.detach(open) } else { open() }.map_err(raise)?;
    if let Some(plain) = opened.plain() {
        return decode(py, plain);
    }
    let start = if opened.form() == Form::Unframed { PROTO_5.len() } else { 0 };
    let pickled = PyBytes::new_with(py, start + opened.bytes(), |bytes| {
        let (proto, body) = bytes.split_at_mut(start);
        proto.copy_from_slice(&PROTO_5[..start]);
        let mut unpack = || packing.unpack_into(&opened, body);
        if is_long { py.detach(unpack) } else { unpack() }.map_err(raise)
    })?;
    match decode_plain(py, pickled.as_bytes()) {
        Some(object) => Ok(object),
        None => unpickle(&pickled),
    }
}

#[inline(never)]
fn decode<'py>(py: Python<'py>, value: Value<'_>) -> PyResult<Bound<'py, PyAny>> {
    match decode_plain(py, value.bytes()) {
        Some(object) => Ok(object),
        None => unpickle(&whole(py, value, Copying::Detached)?),
    }
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

static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static PROTOCOL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn function<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyAny>>,
    name: &str,
) -> PyResult<&'py Bound<'py, PyAny>> {
    Ok(cell.get_or_try_init(py, || py.import("pickle")?.getattr(name).map(Bound::unbind))?.bind(py))
}

fn pickle<'py>(value: &Bound<'py, PyAny>) -> PyResult<Encoded<'py>> {
    let py = value.py();
    let dumps = function(py, &DUMPS, "dumps")?;
    let protocol = PROTOCOL.get_or_init(py, || int_object(py, 5).unbind()).bind(py);
    let pickled = call(dumps, &[value.as_ptr(), protocol.as_ptr()]);
    let pickled = pickled.map_err(|error| {
        serialization(py, &format!("a value of type {} cannot be pickled", type_name(value)), error)
    })?;
    Ok(Encoded::Pickle(pickled.cast_into::<PyBytes>()?))
}

fn unpickle<'py>(pickled: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyAny>> {
    let py = pickled.py();
    if let Some(value) = plain::decode(py, pickled.as_bytes()) {
        return Ok(value);
    }
    let loads = function(py, &LOADS, "loads")?;
    call(loads, &[pickled.as_ptr()]).map_err(|error| serialization(py, "a stored value cannot be unpickled", error))
}

/// Calls with one or two arguments that the caller keeps alive: under the stable ABI 10 to 30 ns quicker than `call1`.
fn call<'py>(callable: &Bound<'py, PyAny>, arguments: &[*mut ffi::PyObject]) -> PyResult<Bound<'py, PyAny>> {
    let nothing = std::ptr::null_mut::<ffi::PyObject>();
    let second = arguments.get(1).copied().unwrap_or(nothing);
    // Safety: callable and arguments are alive, the list ends with a null pointer, and the answer is a new reference or
    // null with an exception set.
    #[expect(unsafe_code, reason = "the call that pickle's cost is measured with")]
    unsafe {
        let answer = ffi::PyObject_CallFunctionObjArgs(callable.as_ptr(), arguments[0], second, nothing);
        Bound::from_owned_ptr_or_err(callable.py(), answer)
    }
}

/// A type's name for a message; a type that cannot tell it is called what it is.
pub(super) fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "unknown".to_owned(), |name| name.to_string())
}
