//! ```text
//!   pack     value  ->  long enough?  ->  compressed  ->  smaller by an eighth?  ->  [ flag | length | body ]
//!                         no: as it is                      no: as it is
//!   unpack   [ flag | length | body ]  ->  decompressed  ->  is its digest the version's?  ->  value
//! ```
//! Values on their way to the nodes and back. Each packed value says in its first byte how it is packed, so that writers with
//! different settings mix and old entries stay readable.
//!
//! Promise: what is unpacked is what was packed, or an error: never another value, never more memory than its length says,
//! and never a length that the bytes cannot have.

use std::cell::RefCell;

use crate::config::Compression;
use crate::entry::{Form, VALUE_BYTES_MAX, Value};
use crate::error::Error;

/// Shorter values are left as they are: they do not shrink without a dictionary.
pub const PACKED_FROM_BYTES: usize = 1024;

/// The codec's bits of the flag byte.
const CODEC: u8 = 0b0000_0111;
const LZ4: u8 = 1;
const ZSTD: u8 = 2;
/// Set when the envelope of a pickle was taken off before.
const UNFRAMED: u8 = 0b0000_1000;

/// zstd's level: the quickest of the usual ones.
const ZSTD_LEVEL: i32 = 1;

/// What one byte of each codec can become at the most. lz4: a byte of 255 more; zstd: a block of 128 KiB from 4 bytes.
const LZ4_GROWS: usize = 255;
const ZSTD_GROWS: usize = 32 * 1024;

/// Whether [`pack`] would do anything.
#[inline]
pub const fn is_packable(value: Value<'_>, compression: Compression) -> bool {
    !matches!(compression, Compression::None) && value.bytes().len() >= PACKED_FROM_BYTES
}

/// Whether [`pack`] takes more than a few microseconds.
#[inline]
pub const fn takes_long(value: Value<'_>, compression: Compression) -> bool {
    is_packable(value, compression) && (matches!(compression, Compression::Zstd) || value.bytes().len() >= 4 * 1024)
}

/// The value as it is to be stored: packed into `buffer`, or as it is when that does not save an eighth.
pub fn pack<'a>(value: Value<'a>, compression: Compression, buffer: &'a mut Vec<u8>) -> Value<'a> {
    if !is_packable(value, compression) || value.form() == Form::Packed {
        return value;
    }
    let bytes = value.bytes();
    let codec = match compression {
        Compression::None => return value,
        Compression::Lz4 => LZ4,
        Compression::Zstd => ZSTD,
    };
    let framing = if value.form() == Form::Unframed { UNFRAMED } else { 0 };
    buffer.clear();
    buffer.push(codec | framing);
    push_length(buffer, bytes.len());
    if compress(codec, bytes, buffer).is_some() && buffer.len() <= bytes.len() / 8 * 7 {
        buffer.shrink_to_fit();
        return value.packed(buffer).unwrap_or(value);
    }
    value
}

/// Appends the compressed bytes. `None` when the codec fails, which costs nothing but space.
fn compress(codec: u8, bytes: &[u8], buffer: &mut Vec<u8>) -> Option<()> {
    let start = buffer.len();
    if codec == LZ4 {
        buffer.resize(start + lz4_flex::block::get_maximum_output_size(bytes.len()), 0);
        let len = lz4_flex::block::compress_into(bytes, &mut buffer[start..]).ok()?;
        buffer.truncate(start + len);
    } else {
        buffer.resize(start + zstd::zstd_safe::compress_bound(bytes.len()), 0);
        let len = with_zstd(|zstd| zstd.0.compress_to_buffer(bytes, &mut buffer[start..]).ok())?;
        buffer.truncate(start + len);
    }
    Some(())
}

/// A packed value, looked at from outside.
#[derive(Clone, Copy)]
pub struct Packed<'a> {
    codec: u8,
    form: Form,
    len: usize,
    body: &'a [u8],
}

impl<'a> Packed<'a> {
    /// Reads the flag byte and the length.
    ///
    /// # Errors
    /// [`Corrupt`] when this is no packed value.
    pub fn open(stored: &'a [u8]) -> Result<Self, Corrupt> {
        let (&flag, mut body) = stored.split_first().ok_or(Corrupt("it is empty"))?;
        let (codec, form) = (flag & CODEC, if flag & UNFRAMED != 0 { Form::Unframed } else { Form::Raw });
        let grows = match codec {
            LZ4 => LZ4_GROWS,
            ZSTD => ZSTD_GROWS,
            _ => return Err(Corrupt("it is packed in a way that is not known here")),
        };
        if flag & !(CODEC | UNFRAMED) != 0 {
            return Err(Corrupt("it is packed in a way that is not known here"));
        }
        let len = take_length(&mut body).ok_or(Corrupt("its length is broken"))?;
        if len > VALUE_BYTES_MAX || len > body.len().saturating_mul(grows) {
            return Err(Corrupt("it says that it is longer than it can be"));
        }
        Ok(Self { codec, form, len, body })
    }

    /// Bytes that it takes unpacked.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True when it is empty unpacked.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The form of what it unpacks to.
    #[inline]
    pub const fn form(&self) -> Form {
        self.form
    }

    /// More than a few microseconds.
    #[inline]
    pub const fn takes_long(&self) -> bool {
        self.len >= if self.codec == LZ4 { 16 * 1024 } else { 4 * 1024 }
    }

    /// Unpacks into `to`, which has exactly [`Packed::len`] bytes, and checks them against the version's digest.
    ///
    /// # Errors
    /// [`Corrupt`] when the bytes are not what was packed; then `to` holds anything.
    pub fn unpack(&self, digest: u64, to: &mut [u8]) -> Result<(), Corrupt> {
        let len = match self.codec {
            LZ4 => lz4_flex::block::decompress_into(self.body, to).ok(),
            _ => with_zstd(|zstd| zstd.1.decompress_to_buffer(self.body, to).ok()),
        };
        if len != Some(self.len) || Value::stored(to, self.form).digest() != digest {
            return Err(Corrupt("it is not what was stored"));
        }
        Ok(())
    }
}

/// The bytes of a value as they were given, packed or not.
///
/// # Errors
/// [`Corrupt`] when it is packed and corrupt.
pub fn unpack(value: Value<'_>, digest: u64) -> Result<Vec<u8>, Corrupt> {
    if value.form() != Form::Packed {
        return Ok(value.whole().into_owned());
    }
    let packed = Packed::open(value.bytes())?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(packed.len()).map_err(|_| Corrupt("there is no memory for it"))?;
    bytes.resize(packed.len(), 0);
    packed.unpack(digest, &mut bytes)?;
    Ok(match Value::stored(&bytes, packed.form()).envelope() {
        Some(envelope) => [&envelope, &bytes[..]].concat(),
        None => bytes,
    })
}

type Zstd = (zstd::bulk::Compressor<'static>, zstd::bulk::Decompressor<'static>);

/// Runs with this thread's contexts of zstd: making them anew takes longer than most values.
fn with_zstd<T>(run: impl FnOnce(&mut Zstd) -> Option<T>) -> Option<T> {
    thread_local! {
        static CONTEXTS: RefCell<Option<Zstd>> = const { RefCell::new(None) };
    }
    CONTEXTS.with_borrow_mut(|contexts| {
        if contexts.is_none() {
            *contexts = Some((zstd::bulk::Compressor::new(ZSTD_LEVEL).ok()?, zstd::bulk::Decompressor::new().ok()?));
        }
        run(contexts.as_mut()?)
    })
}

/// Stored bytes are not what was stored, and why that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt(&'static str);

impl Corrupt {
    /// The error of a read of this key.
    pub fn of(self, key: &str) -> Error {
        Error::Serialization(format!("the stored value of {key:?} is corrupt: {}", self.0))
    }
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow (LEB128).
fn push_length(buffer: &mut Vec<u8>, mut len: usize) {
    while len >= 0x80 {
        buffer.push(len as u8 | 0x80);
        len >>= 7;
    }
    buffer.push(len as u8);
}

fn take_length(bytes: &mut &[u8]) -> Option<usize> {
    let mut len = 0_u64;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        len |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return usize::try_from(len).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        // Repeated pieces, so that there is something to save.
        (prop::collection::vec(any::<u8>(), 1..200), 1..80_usize).prop_map(|(piece, times)| piece.repeat(times))
    }

    fn any_compression() -> impl Strategy<Value = Compression> {
        prop::sample::select(vec![Compression::None, Compression::Lz4, Compression::Zstd])
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(bytes in any_bytes(), compression in any_compression()) {
            let (value, mut buffer) = (Value::new(&bytes).expect("short"), Vec::new());
            let packed = pack(value, compression, &mut buffer);
            prop_assert_eq!(packed.digest(), value.digest());
            prop_assert!(packed.bytes().len() <= value.bytes().len());
            prop_assert_eq!(unpack(packed, value.digest()).expect("whole"), bytes);
        }

        #[test]
        fn a_byte_that_changed_or_is_missing_is_an_error_or_changes_nothing(
            bytes in any_bytes(), compression in any_compression(), at in any::<prop::sample::Index>(), with in 1..=255_u8,
            is_cut in any::<bool>(),
        ) {
            let (value, mut buffer) = (Value::new(&bytes).expect("short"), Vec::new());
            let packed = pack(value, compression, &mut buffer);
            prop_assume!(packed.form() == Form::Packed);
            let mut broken = packed.bytes().to_vec();
            let at = at.index(broken.len());
            if is_cut { broken.truncate(at) } else { broken[at] ^= with }
            match unpack(Value::stored(&broken, Form::Packed), value.digest()) {
                Err(_) => {}
                Ok(unpacked) => prop_assert_eq!(unpacked, bytes),
            }
        }
    }

    #[test]
    fn what_does_not_shrink_by_an_eighth_stays_as_it_is() {
        let mut word = 1_u64;
        let random: Vec<u8> = std::iter::repeat_with(|| {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (word >> 56) as u8
        })
        .take(5_000)
        .collect();
        let value = Value::new(&random).expect("short");
        for compression in [Compression::Lz4, Compression::Zstd] {
            assert_eq!(pack(value, compression, &mut Vec::new()), value);
        }
        let short = vec![7; PACKED_FROM_BYTES - 1];
        assert_eq!(pack(Value::new(&short).expect("short"), Compression::Zstd, &mut Vec::new()).form(), Form::Raw);
    }

    #[test]
    fn a_bomb_is_not_given_the_memory_it_asks_for() {
        // Four gigabytes from a few bytes.
        for codec in [LZ4, ZSTD] {
            let mut bomb = vec![codec];
            push_length(&mut bomb, VALUE_BYTES_MAX);
            bomb.extend([0; 100]);
            assert!(Packed::open(&bomb).is_err());
        }
        // More than it says.
        let zeros = vec![0; 1 << 20];
        let mut buffer = Vec::new();
        let packed = pack(Value::new(&zeros).expect("short"), Compression::Zstd, &mut buffer);
        let body = &packed.bytes()[1 + 3..];
        let mut small = vec![ZSTD];
        push_length(&mut small, 1_000);
        small.extend(body);
        assert!(unpack(Value::stored(&small, Form::Packed), 0).is_err());
    }
}
