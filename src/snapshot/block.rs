//! ```text
//!   kind  compression  0 0  | stored bytes | unpacked bytes | records | checksum     24 bytes
//!   1     1                   4              4                4         8
//!   stored bytes: records, one after the other, perhaps compressed
//! ```
//! A part of a snapshot that is written, checked and read by itself: about 256 KiB of records, or a single longer one.

use xxhash_rust::xxh3::Xxh3;

use super::{Fault, Totals, half, record, word};
use crate::dictionary::{DICTIONARY_BYTES_MAX, Dictionary};
use crate::entry::Value;
use crate::message::Write;
use crate::version::Version;

/// Bytes before what a block stores.
pub const HEAD_BYTES: usize = 24;

/// Records are gathered until a block has so many bytes: enough for compression to find what repeats, and for a
/// block's head not to count; little enough for every core to have some.
pub const BLOCK_BYTES: usize = 256 * 1024;

/// A longer record is not compressed: it would be held twice.
const COMPRESSED_BYTES_MAX: usize = 64 << 20;

/// LZ4 makes no more than so many bytes of one.
const EXPANSION_MAX: u64 = 255;

/// What a block is.
pub const RECORDS: u8 = 1;
/// Its body is one dictionary that values in later blocks may need; its number follows from its bytes.
pub const DICTIONARY: u8 = 2;
/// The last: its body is not records, but the totals.
pub const FOOTER: u8 = 0xff;

const PLAIN: u8 = 0;
const LZ4: u8 = 1;

/// Gathers records.
#[derive(Debug, Default)]
pub struct Builder {
    body: Vec<u8>,
    entries: u32,
    removes: u32,
}

impl Builder {
    /// Adds a write.
    pub fn push(&mut self, key: &[u8], version: Version, value: Option<Value<'_>>) {
        record::encode(&mut self.body, key, version, value);
        self.count(value.is_none());
    }

    /// Adds a write that is encoded already.
    pub fn push_encoded(&mut self, record: &[u8], is_remove: bool) {
        self.body.extend_from_slice(record);
        self.count(is_remove);
    }

    fn count(&mut self, is_remove: bool) {
        self.removes += u32::from(is_remove);
        self.entries += u32::from(!is_remove);
    }

    /// Whether nothing more of so many bytes should be added.
    pub fn is_full_for(&self, bytes: usize) -> bool {
        !self.body.is_empty() && self.body.len() + bytes > BLOCK_BYTES
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// Room for a record with so many bytes of key and value.
    ///
    /// # Errors
    /// [`Fault::NoMemory`].
    pub fn reserve(&mut self, bytes: usize) -> Result<(), Fault> {
        let more = record::HEAD_BYTES_MAX + bytes;
        // A long one is the only one in its block: not twice as much.
        let reserved =
            if bytes > BLOCK_BYTES { self.body.try_reserve_exact(more) } else { self.body.try_reserve(more) };
        reserved.map_err(|_| Fault::NoMemory(bytes as u64))
    }

    /// The block, ready to be written.
    ///
    /// # Errors
    /// [`Fault::NoMemory`].
    pub fn seal(&self) -> Result<Sealed, Fault> {
        let totals = Totals {
            blocks: 1,
            entries: self.entries.into(),
            removes: self.removes.into(),
            record_bytes: self.body.len() as u64,
        };
        Sealed::new(RECORDS, &self.body, self.entries + self.removes, totals)
    }
}

/// A block with a dictionary, ready to be written.
///
/// # Errors
/// [`Fault::NoMemory`].
pub fn seal_dictionary(dictionary: &Dictionary) -> Result<Sealed, Fault> {
    Sealed::new(DICTIONARY, dictionary.bytes(), 0, Totals { blocks: 1, ..Totals::default() })
}

/// A block as it is written.
#[derive(Debug)]
pub struct Sealed {
    pub(super) bytes: Vec<u8>,
    pub(super) checksum: u64,
    pub(super) totals: Totals,
}

impl Sealed {
    pub(super) fn new(kind: u8, body: &[u8], records: u32, totals: Totals) -> Result<Self, Fault> {
        let mut bytes = vec![0; HEAD_BYTES];
        let mut compression = LZ4;
        if kind == FOOTER || !compress(body, &mut bytes) {
            compression = PLAIN;
            bytes.truncate(HEAD_BYTES);
            bytes.try_reserve_exact(body.len()).map_err(|_| Fault::NoMemory(body.len() as u64))?;
            bytes.extend_from_slice(body);
        }
        (bytes[0], bytes[1]) = (kind, compression);
        // A record's lengths fit 32 bits together, and a longer body has one record.
        let stored = (bytes.len() - HEAD_BYTES) as u32;
        for (at, number) in [(4, stored), (8, body.len() as u32), (12, records)] {
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        let checksum = checksum(&bytes[..16], &bytes[HEAD_BYTES..]);
        bytes[16..HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
        Ok(Self { bytes, checksum, totals })
    }
}

/// Appends the body, compressed, if an eighth is saved.
fn compress(body: &[u8], to: &mut Vec<u8>) -> bool {
    if body.len() > COMPRESSED_BYTES_MAX {
        return false;
    }
    let start = to.len();
    let most = lz4_flex::block::get_maximum_output_size(body.len());
    if to.try_reserve(most).is_err() {
        return false;
    }
    to.resize(start + most, 0);
    match lz4_flex::block::compress_into(body, &mut to[start..]) {
        Ok(length) if length <= body.len() - body.len() / 8 => {
            to.truncate(start + length);
            true
        }
        _ => false,
    }
}

fn checksum(head: &[u8], stored: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(head);
    hasher.update(stored);
    hasher.digest()
}

/// What stands before a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    bytes: [u8; HEAD_BYTES],
}

impl Head {
    pub(super) const fn new(bytes: [u8; HEAD_BYTES]) -> Self {
        Self { bytes }
    }

    pub(super) const fn kind(self) -> u8 {
        self.bytes[0]
    }

    pub(super) fn stored_bytes(self) -> u64 {
        half(&self.bytes, 4).into()
    }

    pub(super) fn unpacked_bytes(self) -> u64 {
        half(&self.bytes, 8).into()
    }

    fn records(self) -> u32 {
        half(&self.bytes, 12)
    }

    pub(super) fn checksum(self) -> u64 {
        word(&self.bytes, 16)
    }

    /// What is wrong with it, as far as it can be told without what is stored.
    pub(super) fn check(self) -> Result<(), String> {
        let [kind, compression, reserved @ ..] = self.bytes;
        let is_sane = match compression {
            PLAIN => self.unpacked_bytes() == self.stored_bytes(),
            LZ4 => {
                kind != FOOTER
                    && self.unpacked_bytes() <= self.stored_bytes() * EXPANSION_MAX
                    && self.unpacked_bytes() <= COMPRESSED_BYTES_MAX as u64
            }
            _ => false,
        };
        if ![RECORDS, DICTIONARY, FOOTER].contains(&kind) {
            return Err(format!("a block of kind {kind} is not known"));
        }
        let is_sane = is_sane && (kind != DICTIONARY || self.is_sane_dictionary());
        if !is_sane || reserved[..2] != [0, 0] {
            return Err("the head of a block is damaged".to_owned());
        }
        Ok(())
    }
}

impl Head {
    fn is_sane_dictionary(self) -> bool {
        (1..=DICTIONARY_BYTES_MAX as u64).contains(&self.unpacked_bytes()) && self.records() == 0
    }
}

/// A block as it was read, not yet checked.
#[derive(Debug)]
pub struct Packed {
    pub(super) at: u64,
    pub(super) head: Head,
    pub(super) stored: Vec<u8>,
}

impl Packed {
    /// Where in the file it begins.
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// The checksum that it says it has.
    pub fn checksum(&self) -> u64 {
        self.head.checksum()
    }

    /// Bytes that it says it has when it is unpacked.
    pub fn unpacked_bytes(&self) -> u64 {
        self.head.unpacked_bytes()
    }

    /// Checks it against its checksum, and unpacks it.
    ///
    /// # Errors
    /// [`Fault::Format`].
    pub fn unpack(self) -> Result<Block, Fault> {
        let Self { at, head, stored } = self;
        if checksum(&head.bytes[..16], &stored) != head.checksum() {
            return Err(Fault::format(at, "the checksum of a block is wrong"));
        }
        let body = match head.bytes[1] {
            LZ4 => {
                let len = head.unpacked_bytes() as usize;
                let mut body = Vec::new();
                body.try_reserve_exact(len).map_err(|_| Fault::NoMemory(len as u64))?;
                body.resize(len, 0);
                match lz4_flex::block::decompress_into(&stored, &mut body) {
                    Ok(written) if written == len => body,
                    _ => return Err(Fault::format(at, "a block cannot be decompressed")),
                }
            }
            _ => stored,
        };
        Ok(Block { at, kind: head.kind(), body, records: head.records() })
    }
}

/// A block that is what was written.
#[derive(Debug)]
pub struct Block {
    at: u64,
    kind: u8,
    pub(super) body: Vec<u8>,
    records: u32,
}

impl Block {
    /// The dictionary that it holds, if it holds one.
    pub fn dictionary(&self) -> Option<Dictionary> {
        (self.kind == DICTIONARY).then(|| Dictionary::new(&self.body))
    }

    /// Its writes, in their order; none when it holds a dictionary.
    pub fn writes(&self) -> impl Iterator<Item = Result<Write<'_>, Fault>> {
        let body = if self.kind == DICTIONARY { &[][..] } else { &self.body[..] };
        let (mut rest, mut number) = (body, 0_u32);
        std::iter::from_fn(move || {
            if rest.is_empty() && number == self.records {
                return None;
            }
            number = number.saturating_add(1);
            let write = record::decode(&mut rest);
            if write.is_err() {
                // Nothing is looked for behind what cannot be read.
                (rest, number) = (&[], self.records);
            }
            let wrong = |why| Fault::format(self.at, format!("record {number} of this block cannot be read: {why}"));
            Some(write.map_err(wrong))
        })
    }

    /// Looks at every record: lengths, keys, timestamps, and digests against values. A dictionary is right when its checksum
    /// is: its number follows from its bytes.
    ///
    /// # Errors
    /// [`Fault::Format`] for the first that is wrong.
    pub fn check(&self) -> Result<Totals, Fault> {
        if self.kind == DICTIONARY {
            return Ok(Totals { blocks: 1, ..Totals::default() });
        }
        let mut totals = Totals { blocks: 1, record_bytes: self.body.len() as u64, ..Totals::default() };
        for write in self.writes() {
            let write = write?;
            if !record::is_true(&write) {
                return Err(Fault::format(self.at, "the digest of a value in this block is wrong"));
            }
            totals.entries += u64::from(write.value.is_some());
            totals.removes += u64::from(write.value.is_none());
        }
        if totals.entries + totals.removes != u64::from(self.records) {
            return Err(Fault::format(self.at, "this block has more records than it says"));
        }
        Ok(totals)
    }
}
