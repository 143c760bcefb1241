//! ```text
//!   a number, None, a bool  ->  its opcode and its bytes       a text  ->  what comes before it
//! ```
//! The opcodes of pickle protocol 5 for objects that hold no others.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt};

use super::codec::{BINBYTES, BINUNICODE, LONG1, SHORT_BINBYTES, SHORT_BINUNICODE};

/// What comes before a `str` or `bytes` of so many bytes. `None` above 4 GiB.
#[inline]
pub(super) fn text_head_of(len: usize, is_bytes: bool) -> Option<([u8; 5], usize)> {
    if is_bytes { text_head(len, SHORT_BINBYTES, BINBYTES) } else { text_head(len, SHORT_BINUNICODE, BINUNICODE) }
}

#[inline]
pub(super) fn text_head(len: usize, short: u8, long: u8) -> Option<([u8; 5], usize)> {
    let len = u32::try_from(len).ok()?;
    Some(match u8::try_from(len) {
        Ok(len) => ([short, len, 0, 0, 0], 2),
        Err(_) => {
            let [a, b, c, d] = len.to_le_bytes();
            ([long, a, b, c, d], 5)
        }
    })
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
