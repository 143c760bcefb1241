//! ```text
//!   tag          1 byte: what it is, and how its value is stored; the other bits are 0
//!   key length   1 to 3 bytes, 7 bits in each, the low ones first
//!   value length 1 to 5 bytes, the same
//!   timestamp    8 bytes, little-endian, as the digest
//!   digest       8 bytes, for a put
//!   lifetime     8 bytes, for a put that has one
//!   key, value   as a node stores them
//! ```
//! One write in a snapshot: this pair of functions is all that knows how it is laid out.

use crate::entry::{Form, KEY_BYTES_MAX, Key, VALUE_BYTES_MAX, Value};
use crate::lifetime::Lifetime;
use crate::message::Write;
use crate::version::{Kind, Timestamp, Version};

/// A remove.
const REMOVED: u8 = 1;
/// A value that is stored without its envelope.
const UNFRAMED: u8 = 2;
/// A value that is stored packed: its digest is that of what was packed, and is checked when it is unpacked.
const PACKED: u8 = 4;
/// Added to the tag of a value that has a lifetime.
const LIVING: u8 = 8;

/// A record takes so many bytes at most beside its key and its value.
pub(super) const HEAD_BYTES_MAX: usize = 41;

/// Appends a write.
#[inline]
pub fn encode(to: &mut Vec<u8>, key: &[u8], version: Version, value: Option<Value<'_>>) {
    let tag = match value {
        None => REMOVED,
        Some(value) => match value.form() {
            Form::Raw => 0,
            Form::Unframed => UNFRAMED,
            Form::Packed => PACKED,
        },
    };
    let living = if version.lifetime.is_none() { 0 } else { LIVING };
    let bytes = value.map_or(&[][..], Value::bytes);
    to.reserve(HEAD_BYTES_MAX + key.len() + bytes.len());
    to.push(tag | living);
    push_length(to, key.len());
    push_length(to, bytes.len());
    to.extend_from_slice(&version.timestamp.get().to_le_bytes());
    if value.is_some() {
        to.extend_from_slice(&version.digest.to_le_bytes());
    }
    if living != 0 {
        to.extend_from_slice(&version.lifetime.to_bytes());
    }
    to.extend_from_slice(key);
    to.extend_from_slice(bytes);
}

/// Takes a write off the front. Its digest is as it was written: [`is_true`] says whether it is the value's.
///
/// # Errors
/// What is wrong with it.
#[inline]
pub fn decode<'a>(from: &mut &'a [u8]) -> Result<Write<'a>, &'static str> {
    let [tag] = *take::<1>(from)?;
    let (tag, is_living) = (tag & !LIVING, tag & LIVING != 0);
    if ![0, REMOVED, UNFRAMED, PACKED].contains(&tag) || (tag == REMOVED && is_living) {
        return Err("its tag is not known");
    }
    let (key_bytes, value_bytes) = (take_length(from)?, take_length(from)?);
    if key_bytes > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX || (tag == REMOVED && value_bytes > 0) {
        return Err("its length is out of range");
    }
    let timestamp = u64::from_le_bytes(*take::<8>(from)?);
    let timestamp = Timestamp::new(timestamp).ok_or("its timestamp is out of range")?;
    let version = match tag {
        REMOVED => Version::remove(timestamp),
        _ => Version::put(timestamp, u64::from_le_bytes(*take::<8>(from)?)),
    };
    let lifetime = if is_living { Lifetime::from_bytes(*take::<8>(from)?) } else { Lifetime::NONE };
    if lifetime.is_none() && is_living {
        return Err("its lifetime is out of range");
    }
    let version = version.living(lifetime);
    let key = take_bytes(from, key_bytes)?;
    let bytes = take_bytes(from, value_bytes)?;
    if std::str::from_utf8(key).is_err() {
        return Err("its key is not UTF-8");
    }
    let key = Key::new(key).map_err(|_| "its key is too long")?;
    let value = match tag {
        REMOVED => None,
        UNFRAMED => Some(Value::unframed(bytes).map_err(|_| "its value is too long")?),
        PACKED => Some(Value::packed_before(bytes, version.digest).map_err(|_| "its value is too long")?),
        _ => Some(Value::new(bytes).map_err(|_| "its value is too long")?),
    };
    // A pickle is stored without its envelope, or the same value would have two digests.
    if tag == 0 && value.is_some_and(Value::is_unframed) {
        return Err("its value is not as a node stores it");
    }
    Ok(Write { key, version, value })
}

/// Whether the digest of a write is that of its value.
#[inline]
pub fn is_true(write: &Write<'_>) -> bool {
    match write.value {
        Some(value) => write.version.is_same_value(Version::put(write.version.timestamp, value.digest())),
        None => write.version.kind() == Kind::Remove,
    }
}

#[inline]
fn push_length(to: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        to.push(length as u8 | 0x80);
        length >>= 7;
    }
    to.push(length as u8);
}

#[inline]
fn take_length(from: &mut &[u8]) -> Result<usize, &'static str> {
    let mut length = 0;
    for shift in (0..35).step_by(7) {
        let [byte] = *take::<1>(from)?;
        length |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return usize::try_from(length).map_err(|_| "its length is out of range");
        }
    }
    Err("its length is out of range")
}

#[inline]
fn take<'a, const N: usize>(from: &mut &'a [u8]) -> Result<&'a [u8; N], &'static str> {
    let (taken, rest) = from.split_first_chunk::<N>().ok_or("it ends early")?;
    *from = rest;
    Ok(taken)
}

#[inline]
fn take_bytes<'a>(from: &mut &'a [u8], length: usize) -> Result<&'a [u8], &'static str> {
    let (taken, rest) = from.split_at_checked(length).ok_or("it ends early")?;
    *from = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(timestamp: u64) -> Timestamp {
        Timestamp::new(timestamp).expect("small")
    }

    #[test]
    fn what_is_encoded_comes_back() {
        let long = vec![b'x'; 70_000];
        let pickle = b"\x80\x05\x95\x04\0\0\0\0\0\0\0K\x01K.";
        let key = |bytes| Key::new(bytes).expect("short");
        let ends = Lifetime::new(1, Some(std::time::Duration::from_secs(9)));
        let put = |name, bytes, time| Write::put(key(name), at(time), Value::new(bytes).expect("short"));
        let writes = [
            put(b"", b"", 0),
            put(b"key", b"value", 1),
            put(b"pickle", pickle, i64::MAX as u64),
            put(&long[..KEY_BYTES_MAX], &long, 7),
            Write::put(key(b"packed"), at(8), Value::packed_before(b"smaller", 99).expect("short")),
            Write::put_living(key(b"ends"), at(8), Value::new(b"value").expect("short"), ends),
            Write::remove(key("schlüssel".as_bytes()), at(9)),
        ];
        let mut bytes = Vec::new();
        for write in &writes {
            encode(&mut bytes, write.key.bytes(), write.version, write.value);
        }
        let mut rest = &bytes[..];
        for write in &writes {
            let back = decode(&mut rest).expect("whole");
            assert_eq!((back.key, back.version, back.value), (write.key, write.version, write.value));
            assert!(is_true(&back));
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn what_was_never_encoded_is_refused() {
        let mut good = Vec::new();
        encode(&mut good, b"key", Version::put(at(1), 0), Some(Value::new(b"value").expect("short")));
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            decode(&mut &bytes[..]).err()
        };
        assert_eq!(changed(0, 16), Some("its tag is not known"));
        assert_eq!(changed(0, REMOVED | LIVING), Some("its tag is not known"));
        let mut living = good.clone();
        living[0] |= LIVING;
        living.splice(19..19, [0; 8]);
        assert_eq!(decode(&mut &living[..]).err(), Some("its lifetime is out of range"));
        assert_eq!(changed(0, 3), Some("its tag is not known"));
        assert_eq!(changed(0, REMOVED), Some("its length is out of range"));
        assert_eq!(changed(2, 6), Some("it ends early"));
        assert_eq!(changed(10, 0x80), Some("its timestamp is out of range"));
        assert_eq!(changed(19, 0xff), Some("its key is not UTF-8"));
        for end in 0..good.len() {
            assert_eq!(decode(&mut &good[..end]).err(), Some("it ends early"), "{end}");
        }
        assert!(!is_true(&decode(&mut &good[..]).expect("whole")), "a digest of 0 is not the value's");
    }

    #[test]
    fn a_pickle_with_its_envelope_on_is_not_what_a_node_stores() {
        let pickle = b"\x80\x05\x95\x04\0\0\0\0\0\0\0K\x01K.";
        let mut bytes = Vec::new();
        encode(&mut bytes, b"key", Version::put(at(1), 0), Some(Value::stored(pickle, Form::Raw)));
        assert_eq!(decode(&mut &bytes[..]).err(), Some("its value is not as a node stores it"));
    }
}
