//! ```text
//!   header  ->  blocks, as they are sealed  ->  footer
//! ```
//! Writes a snapshot, front to back, into anything that takes bytes.

use std::io::Write;

use xxhash_rust::xxh3::Xxh3;

use super::block::{FOOTER, Sealed};
use super::{Fault, Header, Totals};

/// Bytes of the footer's body: four totals, and the checksum over all checksums.
pub(super) const FOOTER_BYTES: usize = 40;

/// A snapshot that is being written.
pub struct Writer<W> {
    to: W,
    totals: Totals,
    chain: Xxh3,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins with the header.
    ///
    /// # Errors
    /// [`Fault::File`], as from the other verbs.
    pub fn new(mut to: W, header: &Header) -> Result<Self, Fault> {
        let header = header.encode();
        to.write_all(&header)?;
        let mut chain = Xxh3::new();
        chain.update(&header);
        Ok(Self { to, totals: Totals::default(), chain, bytes: header.len() as u64 })
    }

    /// Writes a block.
    ///
    /// # Errors
    /// [`Fault::File`].
    pub fn write(&mut self, block: &Sealed) -> Result<(), Fault> {
        self.to.write_all(&block.bytes)?;
        self.chain.update(&block.checksum.to_le_bytes());
        self.bytes += block.bytes.len() as u64;
        self.totals.add(block.totals);
        Ok(())
    }

    /// Bytes that were written so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is written to.
    pub const fn to(&self) -> &W {
        &self.to
    }

    /// Writes the footer, and gives back what was written to, the totals, and how many bytes there are.
    ///
    /// # Errors
    /// [`Fault::File`].
    pub fn finish(mut self) -> Result<(W, Totals, u64), Fault> {
        let footer = Sealed::new(FOOTER, &footer_body(self.totals, self.chain.digest()), 0, Totals::default())?;
        self.to.write_all(&footer.bytes)?;
        self.to.flush()?;
        Ok((self.to, self.totals, self.bytes + footer.bytes.len() as u64))
    }
}

impl Totals {
    /// Adds what another part holds.
    pub const fn add(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.entries += other.entries;
        self.removes += other.removes;
        self.record_bytes += other.record_bytes;
    }
}

pub(super) fn footer_body(totals: Totals, chain: u64) -> [u8; FOOTER_BYTES] {
    let mut body = [0; FOOTER_BYTES];
    let words = [totals.blocks, totals.entries, totals.removes, totals.record_bytes, chain];
    for (place, word) in body.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    body
}
