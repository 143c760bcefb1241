//! ```text
//!   None bool int float str bytes   ---here--->   the bytes of pickle.dumps(value, 5)
//!   small records of these          ---small--->
//!   everything else                 ---C pickle-> (large buffers beside it: buffers)
//! ```
//! Values to bytes. Plain values of exactly these types are written here, without a call into Python, byte for byte as pickle
//! would; subclasses, integers beyond 64 bits and strings that are no UTF-8 are left to pickle.
//!
//! Promise: what is stored is always a plain protocol 5 pickle, unless its first byte is a tag that says what else it is.

use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyString};

use super::buffers::{self, Pickled};
use super::codec::{
    BINBYTES, BINUNICODE, BYTEARRAY8, LARGE_BYTES, MEMOIZE, PROTO_5, SHORT_BINBYTES, SHORT_BINUNICODE, STOP,
};
use super::errors::{raise, serialization};
use super::given::type_name;
use super::opcodes::{number_opcodes, text_head};
use super::small;
use crate::entry::Value;
use crate::error::{Error, Need};
use crate::shortage;

/// From this length on pickle writes a string outside of its frames.
const FRAME_BYTES_MAX: usize = 64 * 1024;

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
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn tagged(tag: u8, written: &[u8]) -> Result<Self, Error> {
        let len = 1 + written.len();
        if len > SHORT_BYTES {
            return shortage::joined(Need::Value, &[&[tag], written]).map(|bytes| Self::Long { bytes, framed: false });
        }
        let mut bytes = [0; SHORT_BYTES];
        bytes[0] = tag;
        bytes[1..len].copy_from_slice(written);
        Ok(Self::Short { bytes, len: len as u8, framed: false })
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
        return match encode_text(value.py(), bytes.as_bytes(), SHORT_BINBYTES, BINBYTES) {
            Some(encoded) => encoded.map_err(raise),
            None => Ok(Encoded::Pickle(bytes.clone())),
        };
    }
    if let Ok(text) = value.cast_exact::<PyString>() {
        if let Some(encoded) =
            text.to_str().ok().and_then(|text| encode_text(value.py(), text.as_bytes(), SHORT_BINUNICODE, BINUNICODE))
        {
            return encoded.map_err(raise);
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
        Ok(array) => encode_byte_array(array),
        Err(_) => pickle(value),
    }
}

/// `bytearray`: copied once, and meanwhile nobody can resize it.
fn encode_byte_array<'py>(array: &Bound<'py, PyByteArray>) -> PyResult<Encoded<'py>> {
    // What comes before it is written when the length of what was copied is known.
    const HEAD: usize = PROTO_5.len() + 1 + 8;
    let mut bytes = shortage::vector(Need::Value, HEAD + array.len() + 2).map_err(raise)?;
    bytes.resize(HEAD, 0);
    buffers::append(&mut bytes, array)?;
    shortage::reserve(Need::Value, &mut bytes, 2).map_err(raise)?;
    let len = bytes.len() - HEAD;
    let framed = len < FRAME_BYTES_MAX;
    bytes[..2].copy_from_slice(&PROTO_5);
    bytes[2] = BYTEARRAY8;
    bytes[3..HEAD].copy_from_slice(&(len as u64).to_le_bytes());
    bytes.extend_from_slice(&[MEMOIZE, STOP]);
    if framed {
        bytes.drain(..PROTO_5.len());
    }
    Ok(Encoded::Long { bytes, framed })
}

/// `str` and `bytes`. `None` above 4 GiB.
#[inline]
fn encode_text<'py>(py: Python<'py>, text: &[u8], short: u8, long: u8) -> Option<Result<Encoded<'py>, Error>> {
    if text.len() + 4 <= SHORT_BYTES {
        let mut bytes = [0; SHORT_BYTES];
        bytes[..2].copy_from_slice(&[short, text.len() as u8]);
        bytes[2..2 + text.len()].copy_from_slice(text);
        bytes[2 + text.len()..4 + text.len()].copy_from_slice(&[MEMOIZE, STOP]);
        return Some(Ok(Encoded::Short { bytes, len: text.len() as u8 + 4, framed: true }));
    }
    let head = text_head(text.len(), short, long)?;
    let head = &head.0[..head.1];
    if text.len() >= LARGE_BYTES {
        // The caller keeps the object alive, and neither kind ever changes.
        return Some(py.detach(|| long_text(head, text)).map(|(bytes, framed)| Encoded::Long { bytes, framed }));
    }
    Some(long_text(head, text).map(|(bytes, framed)| Encoded::Long { bytes, framed }))
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
        shortage::reserve(Need::Value, buffer, self.len())?;
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
fn long_text(head: &[u8], text: &[u8]) -> Result<(Vec<u8>, bool), Error> {
    let framed = text.len() < FRAME_BYTES_MAX;
    let proto = if framed { &[][..] } else { &PROTO_5 };
    Ok((shortage::joined(Need::Value, &[proto, head, text, &[MEMOIZE, STOP]])?, framed))
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

fn pickle<'py>(value: &Bound<'py, PyAny>) -> PyResult<Encoded<'py>> {
    match buffers::pickle(value) {
        Ok(Pickled::Pickle(bytes)) => Ok(Encoded::Pickle(bytes)),
        Ok(Pickled::Joined(bytes)) => Ok(Encoded::Long { bytes, framed: false }),
        Err(error) => {
            let what = format!("a value of type {} cannot be pickled", type_name(value));
            Err(serialization(value.py(), &what, error))
        }
    }
}
