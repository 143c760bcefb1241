//! ```text
//!   Key   bytes + hash, at most 64 KiB          Value  a pickle's bytes as a node stores them
//!   Item  what travels: key, version, dot, and what is held under it
//!
//!   Held  Live(value)  ->  Evicted (the value fell off)      a marker: knowledge without the value,
//!                      ->  Removed (a remove took it)        it refuses older versions
//! ```
//! Promise: a `Key` that is too long and a `Value` that is too long cannot be built, so nobody inside checks again.

use std::borrow::Cow;

use crate::clock::Dot;
use crate::error::{Error, Need};
use crate::hash::{self, KeyHash};
use crate::lifetime::LIFETIME_BYTES;
use crate::shortage;
use crate::version::{Version, digest_of};

/// The longest key, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 64 * 1024;

/// The longest value, in bytes: a length must fit 32 bits together with its key's.
pub const VALUE_BYTES_MAX: usize = u32::MAX as usize - 2 * KEY_BYTES_MAX;

/// A key and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    bytes: &'a [u8],
    hash: KeyHash,
}

impl<'a> Key<'a> {
    /// Hashes the key.
    ///
    /// # Errors
    /// [`Error::KeyTooLarge`] above 64 KiB.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.len() > KEY_BYTES_MAX {
            return Err(Error::KeyTooLarge { bytes: bytes.len(), bytes_max: KEY_BYTES_MAX });
        }
        Ok(Self { bytes, hash: KeyHash::of(bytes) })
    }

    /// A key that a node has in memory, and which was checked when it came.
    #[inline]
    pub(crate) fn stored(bytes: &'a [u8]) -> Self {
        Self { bytes, hash: KeyHash::of(bytes) }
    }

    /// The bytes of the key.
    #[inline]
    pub const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Its hash, the same everywhere.
    #[inline]
    pub const fn hash(self) -> KeyHash {
        self.hash
    }
}

/// `PROTO 5` and `FRAME`, with which nearly every pickle begins; the frame's length, 8 bytes, follows.
const FRAMED: [u8; 3] = [0x80, 5, 0x95];
/// Bytes of the envelope: three opcodes and the length.
pub const ENVELOPE_BYTES: usize = 11;

/// How the bytes of a value are to be read. Nodes carry it with the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// They are what was given.
    #[default]
    Raw = 0,
    /// They are what was given without the envelope of a protocol 5 pickle.
    Unframed = 1,
    /// Their first byte says how the rest is packed.
    Packed = 2,
}

impl Form {
    /// The form with this number, of two bits.
    #[inline]
    pub const fn of(number: u16) -> Self {
        match number {
            0 => Self::Raw,
            1 => Self::Unframed,
            _ => Self::Packed,
        }
    }
}

/// A value's bytes as a node stores them.
///
/// A protocol 5 pickle of one frame begins with 11 bytes that follow from its length. They are left out of memory and put
/// back by [`Value::whole`]: for values of 100 bytes that is 5 % more entries in a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    bytes: &'a [u8],
    form: Form,
    /// Of what was packed.
    packed_digest: u64,
}

impl<'a> Value<'a> {
    /// A value of any bytes: the envelope of a one-frame protocol 5 pickle is taken off, if there is one.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        if let Some((envelope, body)) = bytes.split_first_chunk::<ENVELOPE_BYTES>()
            && *envelope == envelope_of(body.len())
        {
            return Self::unframed(body);
        }
        Self::checked(bytes, Form::Raw, 0)
    }

    /// A protocol 5 pickle of one frame, given without its envelope.
    #[inline]
    pub fn unframed(body: &'a [u8]) -> Result<Self, Error> {
        Self::checked(body, Form::Unframed, 0)
    }

    /// What a value was packed into: it stays the same value, whatever the packing.
    #[inline]
    pub fn packed(self, into: &[u8]) -> Result<Value<'_>, Error> {
        Value::checked(into, Form::Packed, self.digest())
    }

    /// The same, of a value that was packed before and whose version has this digest.
    #[inline]
    pub fn packed_before(bytes: &'a [u8], digest: u64) -> Result<Self, Error> {
        Self::checked(bytes, Form::Packed, digest)
    }

    #[inline]
    fn checked(bytes: &'a [u8], form: Form, packed_digest: u64) -> Result<Self, Error> {
        if bytes.len() > VALUE_BYTES_MAX {
            return Err(Error::ValueTooLarge {
                key: None,
                bytes: bytes.len() as u64,
                bytes_max: VALUE_BYTES_MAX as u64,
            });
        }
        Ok(Self { bytes, form, packed_digest })
    }

    /// What a node has in memory, which came from a value built by the others.
    #[inline]
    pub(crate) const fn stored(bytes: &'a [u8], form: Form) -> Self {
        Self { bytes, form, packed_digest: 0 }
    }

    /// The bytes as stored.
    #[inline]
    pub const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// How they are to be read.
    #[inline]
    pub const fn form(self) -> Form {
        self.form
    }

    /// True when the envelope was taken off.
    #[inline]
    pub fn is_unframed(self) -> bool {
        self.form == Form::Unframed
    }

    /// The envelope that was taken off, if it was.
    #[inline]
    pub fn envelope(self) -> Option<[u8; ENVELOPE_BYTES]> {
        self.is_unframed().then(|| envelope_of(self.bytes.len()))
    }

    /// The bytes as they were given, of a value that is not packed.
    pub fn whole(self) -> Cow<'a, [u8]> {
        match self.envelope() {
            Some(envelope) => Cow::Owned([&envelope, self.bytes].concat()),
            None => Cow::Borrowed(self.bytes),
        }
    }

    /// The digest that settles equal timestamps: over the bytes before they were packed, which the bytes as given
    /// determine. Turned over for an unframed value, which is not the same as one that was given without an envelope.
    #[inline]
    pub fn digest(self) -> u64 {
        match self.form {
            Form::Raw => digest_of(hash::digest(self.bytes)),
            Form::Unframed => digest_of(!hash::digest(self.bytes)),
            Form::Packed => self.packed_digest,
        }
    }
}

fn envelope_of(body_bytes: usize) -> [u8; ENVELOPE_BYTES] {
    let mut envelope = [0; ENVELOPE_BYTES];
    envelope[..3].copy_from_slice(&FRAMED);
    envelope[3..].copy_from_slice(&(body_bytes as u64).to_le_bytes());
    envelope
}

/// What is held, or known, under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held<'a> {
    /// The value itself.
    Live(Value<'a>),
    /// A marker: this version was seen, and its value fell off the end or found no room.
    Evicted,
    /// A marker: this version is a remove.
    Removed,
}

/// What one node tells another about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// Which key.
    pub key: Key<'a>,
    /// Which write of it.
    pub version: Version,
    /// The name under which that write was accepted.
    pub dot: Dot,
    /// The value, or why there is none.
    pub held: Held<'a>,
}

/// Many items packed into one buffer: what a delta and a fix carry.
#[derive(Clone, Debug, Default)]
pub struct Items {
    bytes: Vec<u8>,
    rows: Vec<Row>,
    /// So many have a lifetime.
    living: usize,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    version: Version,
    dot: Dot,
    hash: KeyHash,
    key_end: usize,
    value_end: usize,
    what: What,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Live(Form),
    Evicted,
    Removed,
}

impl Items {
    /// Copies an item to the end, if there is memory for it.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], and these items are as they were.
    pub fn try_push(&mut self, item: Item<'_>) -> Result<(), Error> {
        let bytes = item.key.bytes.len() + if let Held::Live(value) = item.held { value.bytes.len() } else { 0 };
        shortage::reserve(Need::Value, &mut self.bytes, bytes)?;
        shortage::reserve(Need::Keys, &mut self.rows, 1)?;
        self.push(item);
        Ok(())
    }

    /// A copy, if there is memory for it.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn try_clone(&self) -> Result<Self, Error> {
        let bytes = shortage::joined(Need::Value, &[&self.bytes])?;
        let mut rows = shortage::vector(Need::Keys, self.rows.len())?;
        rows.extend_from_slice(&self.rows);
        Ok(Self { bytes, rows, living: self.living })
    }

    /// Copies an item to the end.
    pub fn push(&mut self, item: Item<'_>) {
        self.bytes.extend_from_slice(item.key.bytes);
        let key_end = self.bytes.len();
        let what = match item.held {
            Held::Live(value) => {
                self.bytes.extend_from_slice(value.bytes);
                What::Live(value.form)
            }
            Held::Evicted => What::Evicted,
            Held::Removed => What::Removed,
        };
        let value_end = self.bytes.len();
        self.living += usize::from(!item.version.lifetime.is_none());
        self.rows.push(Row { version: item.version, dot: item.dot, hash: item.key.hash, key_end, value_end, what });
    }

    /// The items in the order they were pushed.
    pub fn iter(&self) -> impl Iterator<Item = Item<'_>> {
        let mut start = 0;
        self.rows.iter().map(move |row| {
            let key = Key { bytes: &self.bytes[start..row.key_end], hash: row.hash };
            let value = &self.bytes[row.key_end..row.value_end];
            start = row.value_end;
            let held = match row.what {
                What::Live(form) => Held::Live(Value::stored(value, form)),
                What::Evicted => Held::Evicted,
                What::Removed => Held::Removed,
            };
            Item { key, version: row.version, dot: row.dot, held }
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes they take in a message: keys and values, 42 for each item's version, dot and lengths, and its lifetime if it
    /// has one.
    pub fn message_bytes(&self) -> usize {
        self.bytes.len() + 42 * self.rows.len() + LIFETIME_BYTES * self.living
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_of_a_pickle_is_taken_off_and_put_back() {
        let pickle = b"\x80\x05\x95\x04\0\0\0\0\0\0\0K\x01K."; // a frame of four bytes
        let value = Value::new(pickle).expect("short");
        assert_eq!((value.bytes(), value.is_unframed()), (&b"K\x01K."[..], true));
        assert_eq!(&*value.whole(), pickle);
    }

    #[test]
    fn bytes_that_only_look_like_an_envelope_stay_as_they_are() {
        for bytes in
            [&b""[..], b"\x80\x05\x95", b"\x80\x05\x95\x05\0\0\0\0\0\0\0K\x01K.", b"any bytes that are no pickle"]
        {
            let value = Value::new(bytes).expect("short");
            assert_eq!((&*value.whole(), value.is_unframed()), (bytes, false));
        }
    }

    #[test]
    fn a_key_of_64_kib_is_the_longest() {
        assert!(Key::new(&vec![b'k'; KEY_BYTES_MAX]).is_ok());
        assert!(matches!(Key::new(&vec![b'k'; KEY_BYTES_MAX + 1]), Err(Error::KeyTooLarge { .. })));
    }
}
