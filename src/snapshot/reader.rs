//! ```text
//!   header  ->  blocks, one after the other, as they were stored  ->  footer: was that all, and in this order?
//! ```
//! Reads a snapshot front to back from anything that gives bytes. It hands out blocks that are not unpacked yet, so that
//! many can be unpacked at a time.

use std::io::{ErrorKind, Read};

use xxhash_rust::xxh3::Xxh3;

use super::block::{FOOTER, HEAD_BYTES, Head, Packed};
use super::writer::{FOOTER_BYTES, footer_body};
use super::{ENDS_HERE, Fault, Header, PREFIX_BYTES, Totals, word};

/// A snapshot that is being read.
pub struct Reader<R> {
    from: R,
    header: Header,
    at: u64,
    length: u64,
    blocks: u64,
    chain: Xxh3,
}

impl<R: Read> Reader<R> {
    /// Reads the header of a snapshot that has `length` bytes.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn new(mut from: R, length: u64) -> Result<Self, Fault> {
        let (header, bytes) = read_header(&mut from, length)?;
        let mut chain = Xxh3::new();
        chain.update(&bytes);
        Ok(Self { from, header, at: bytes.len() as u64, length, blocks: 0, chain })
    }

    /// What the header says.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The next block of records, or, after the last, what the footer says there were. The caller has counted whether
    /// that is true of the records; of the blocks it is.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn go_on(&mut self) -> Result<Next, Fault> {
        let at = self.at;
        let mut head = [0; HEAD_BYTES];
        self.take(&mut head)?;
        let head = Head::new(head);
        head.check().map_err(|why| Fault::format(at, why))?;
        if head.stored_bytes() > self.length - self.at {
            return Err(Fault::format(self.length, ENDS_HERE));
        }
        let len = head.stored_bytes() as usize;
        let mut stored = Vec::new();
        stored.try_reserve_exact(len).map_err(|_| Fault::NoMemory(len as u64))?;
        stored.resize(len, 0);
        self.take(&mut stored)?;
        let packed = Packed { at, head, stored };
        if head.kind() == FOOTER {
            return self.footer(packed).map(Next::Footer);
        }
        self.blocks += 1;
        self.chain.update(&head.checksum().to_le_bytes());
        Ok(Next::Block(packed))
    }

    fn footer(&mut self, packed: Packed) -> Result<Totals, Fault> {
        let at = packed.at;
        let body = packed.unpack()?.body;
        let totals = totals_of(&body);
        if body != footer_body(totals, self.chain.digest()) || totals.blocks != self.blocks {
            return Err(Fault::format(at, "blocks are missing, doubled or out of order"));
        }
        if self.at != self.length {
            return Err(Fault::format(self.at, "something follows the end"));
        }
        Ok(totals)
    }

    fn take(&mut self, to: &mut [u8]) -> Result<(), Fault> {
        if to.len() as u64 > self.length - self.at {
            return Err(Fault::format(self.length, ENDS_HERE));
        }
        fill(&mut self.from, to, self.at)?;
        self.at += to.len() as u64;
        Ok(())
    }
}

/// What comes next in a snapshot.
#[derive(Debug)]
pub enum Next {
    /// Records.
    Block(Packed),
    /// Nothing more: what there was.
    Footer(Totals),
}

/// Reads a header, and gives its bytes as well.
pub(super) fn read_header(from: &mut impl Read, length: u64) -> Result<(Header, Vec<u8>), Fault> {
    let mut prefix = [0; PREFIX_BYTES];
    if length < PREFIX_BYTES as u64 {
        // Too short to be one; but what it has may say that it never was.
        let begun = &mut prefix[..length as usize];
        fill(from, begun, 0)?;
        let is_begun = begun.iter().zip(super::MAGIC).all(|(is, should)| *is == should) && length > 0;
        let why = if is_begun { ENDS_HERE } else { "it is no snapshot of a cache" };
        return Err(Fault::format(if is_begun { length } else { 0 }, why));
    }
    fill(from, &mut prefix, 0)?;
    let bytes_all = Header::length(&prefix)?;
    if length < bytes_all as u64 {
        return Err(Fault::format(length, ENDS_HERE));
    }
    let mut bytes = prefix.to_vec();
    bytes.resize(bytes_all, 0);
    fill(from, &mut bytes[PREFIX_BYTES..], PREFIX_BYTES as u64)?;
    Ok((Header::decode(&bytes)?, bytes))
}

/// Bytes of a footer, its head included.
pub(super) const FOOTER_BYTES_ALL: usize = HEAD_BYTES + FOOTER_BYTES;

/// Reads a footer that begins at this byte of the file, as far as it can be told without the blocks before it.
pub(super) fn read_footer(from: &mut impl Read, at: u64) -> Result<Totals, Fault> {
    let (mut head, mut stored) = ([0; HEAD_BYTES], vec![0; FOOTER_BYTES]);
    fill(from, &mut head, at)?;
    fill(from, &mut stored, at + HEAD_BYTES as u64)?;
    let head = Head::new(head);
    if head.check().is_err() || head.kind() != FOOTER || head.stored_bytes() != FOOTER_BYTES as u64 {
        return Err(Fault::format(at, "there is no footer where it should be: the file is damaged or not whole"));
    }
    Ok(totals_of(&Packed { at, head, stored }.unpack()?.body))
}

fn totals_of(body: &[u8]) -> Totals {
    Totals { blocks: word(body, 0), entries: word(body, 8), removes: word(body, 16), record_bytes: word(body, 24) }
}

fn fill(from: &mut impl Read, to: &mut [u8], at: u64) -> Result<(), Fault> {
    from.read_exact(to).map_err(|error| match error.kind() {
        // It was longer a moment ago.
        ErrorKind::UnexpectedEof => Fault::format(at, ENDS_HERE),
        _ => Fault::File(error),
    })
}
