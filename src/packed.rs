//! ```text
//!   [ flag | signature? | length | dictionary? | packed bytes ]      compressed
//!   [ flag | signature  | bytes ]                                    only signed
//!
//!   flag   0 0 0 0 | signed | unframed | codec: none, LZ4, zstd, zstd with a dictionary
//! ```
//! A packed value, taken apart: the one description of its layout. `values` makes and reads them; whoever keeps dictionaries
//! asks which one a value needs.
//!
//! Promise: nothing is believed but that the parts are there, and that no codec is asked for more bytes than it can make.

use crate::dictionary::DictionaryId;
use crate::entry::{Form, VALUE_BYTES_MAX, Value};

/// 128 bits: a forger who tries 2^40 values has one chance in 2^88.
pub const SIGNATURE_BYTES: usize = 16;

/// A length takes so many bytes at most, 7 bits in each.
pub const LENGTH_BYTES_MAX: usize = 5;

const CODEC_BITS: u8 = 0b11;
/// The envelope of a pickle was taken off before.
pub const UNFRAMED: u8 = 1 << 2;
/// A signature follows.
pub const SIGNED: u8 = 1 << 3;

/// What a value may take unpacked, in bytes of the largest node: 64 nodes full of it. A few bytes say "a gigabyte of zeros",
/// and who gets them takes memory for it.
const UNPACKED_NODES_MAX: u64 = 64;

/// The most bytes that a value may unpack to, where the largest node has so many.
pub const fn unpacked_bytes_max_of(node_bytes_max: u64) -> u64 {
    node_bytes_max.saturating_mul(UNPACKED_NODES_MAX)
}

/// The bytes that a stored value says it unpacks to; 0 for what says nothing that can be read.
pub fn unpacked_bytes(stored: Value<'_>) -> u64 {
    match stored.form() {
        Form::Packed => Parts::read(stored.bytes()).map_or(0, |parts| parts.bytes as u64),
        Form::Raw | Form::Unframed => stored.bytes().len() as u64,
    }
}

/// What is said of packed bytes that cannot have been packed so.
pub const BROKEN: &str = "its packed bytes are corrupt";

/// How a value's bytes are coded: the low bits of its flag byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    None,
    /// LZ4's block format, without a length.
    Lz4,
    /// One frame of Zstandard, without its magic bytes.
    Zstd,
    /// The same, with a dictionary.
    ZstdDictionary,
}

impl Codec {
    const fn from_bits(bits: u8) -> Self {
        match bits & CODEC_BITS {
            0 => Self::None,
            1 => Self::Lz4,
            2 => Self::Zstd,
            _ => Self::ZstdDictionary,
        }
    }

    /// The most bytes that so many packed ones can unpack to. LZ4: a byte of length stands for 255 bytes. Zstandard: the
    /// shortest block has 4 bytes and stands for 128 KiB.
    pub const fn unpacked_bytes_max(self, packed_bytes: usize) -> u64 {
        let factor = match self {
            Self::None => 1,
            Self::Lz4 => 255,
            Self::Zstd | Self::ZstdDictionary => 128 * 1024 / 4,
        };
        packed_bytes as u64 * factor + 64
    }
}

/// A packed value, taken apart.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// What it says of itself.
    pub flag: u8,
    /// How it is coded.
    pub codec: Codec,
    /// Its signature, if it has one.
    pub signature: Option<&'a [u8; SIGNATURE_BYTES]>,
    /// All that is signed of it beside the flag.
    pub body: &'a [u8],
    /// The dictionary that it needs.
    pub dictionary: Option<DictionaryId>,
    /// The bytes that it says it unpacks to.
    pub bytes: usize,
    /// What they were packed into.
    pub packed: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Takes it apart.
    ///
    /// # Errors
    /// Why it cannot be a packed value.
    pub fn read(stored: &'a [u8]) -> Result<Self, &'static str> {
        let (&flag, mut rest) = stored.split_first().ok_or(BROKEN)?;
        if flag & !(CODEC_BITS | UNFRAMED | SIGNED) != 0 {
            return Err("it is packed in a way that is not known here");
        }
        let codec = Codec::from_bits(flag);
        let mut signature = None;
        if flag & SIGNED != 0 {
            let (first, others) = rest.split_first_chunk().ok_or(BROKEN)?;
            (signature, rest) = (Some(first), others);
        } else if codec == Codec::None {
            // What is neither compressed nor signed has no flag byte.
            return Err(BROKEN);
        }
        let body = rest;
        if codec == Codec::None {
            return Ok(Self { flag, codec, signature, body, dictionary: None, bytes: rest.len(), packed: rest });
        }
        let (bytes, mut rest) = read_length(rest).ok_or(BROKEN)?;
        let mut dictionary = None;
        if codec == Codec::ZstdDictionary {
            let (id, others) = rest.split_first_chunk().ok_or(BROKEN)?;
            (dictionary, rest) = (Some(DictionaryId::from_le_bytes(*id)), others);
        }
        // No codec makes more of so few bytes, so no more memory is taken for them.
        if bytes > VALUE_BYTES_MAX || bytes as u64 > codec.unpacked_bytes_max(rest.len()) {
            return Err("its packed bytes are corrupt: it says that it unpacks to more bytes than it can");
        }
        Ok(Self { flag, codec, signature, body, dictionary, bytes, packed: rest })
    }

    /// The form of what it unpacks to.
    pub const fn form(&self) -> Form {
        if self.flag & UNFRAMED == 0 { Form::Raw } else { Form::Unframed }
    }
}

/// The dictionary that a stored value needs to be unpacked.
pub fn dictionary_of(stored: Value<'_>) -> Option<DictionaryId> {
    match stored.form() {
        Form::Packed => Parts::read(stored.bytes()).ok()?.dictionary,
        Form::Raw | Form::Unframed => None,
    }
}

/// Writes a length in front, 7 bits a byte, the lowest first; returns how many bytes it took.
pub fn write_length(to: &mut [u8], length: usize) -> usize {
    let (mut rest, mut at) = (length, 0);
    while rest >= 0x80 {
        to[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    to[at] = rest as u8;
    at + 1
}

/// Reads a length, and gives what comes after it. `None` when it does not end, or has more bytes than it needs.
fn read_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0u64;
    for (at, &byte) in bytes.iter().take(LENGTH_BYTES_MAX).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            let is_shortest = byte != 0 || at == 0;
            return is_shortest.then_some((usize::try_from(length).ok()?, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_comes_back_and_has_one_form() {
        for length in [0, 1, 127, 128, 300, 16_383, 16_384, u32::MAX as usize] {
            let mut bytes = [0; LENGTH_BYTES_MAX + 1];
            let len = write_length(&mut bytes, length);
            assert_eq!(read_length(&bytes[..len]), Some((length, &[][..])));
            assert_eq!(read_length(&bytes[..len - 1]), None, "a length that does not end");
        }
        assert_eq!(read_length(&[0x80, 0]), None, "a length that is longer than it needs to be");
        assert_eq!(read_length(&[0xff; 6]), None);
    }
}
