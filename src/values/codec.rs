//! ```text
//!   LZ4   block format, without a length          quick to read
//!   zstd  one frame, without its 4 magic bytes    smaller; with a dictionary also for small values
//! ```
//! The codecs, how much they can make of how little, how long they take, and the memory they work in.
//!
//! Promise: a decoder writes no more bytes than it is given room for, and room is taken only for what can come out.

use crate::lock::{Mutex, RawLock, raw};
use zstd::zstd_safe::{CCtx, CDict, DCtx, DDict, SafeResult};

use crate::packed::{BROKEN, Codec};

/// The level of Zstandard: the quickest of the levels that are meant for memory. Level 3 saves 3 % more with a dictionary,
/// and takes 360 KiB more for each of them.
pub(super) const LEVEL: i32 = 1;

/// What every frame of Zstandard begins with. It is not stored.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Idle contexts that are kept, and the room to work in that each keeps: about as many as compute at a time, not as many as
/// there are threads, because one that has packed large values has a megabyte.
const IDLE_MAX: usize = 4;
const SCRATCH_KEPT_BYTES: usize = 256 * 1024;

/// About how long packing takes. Measured on source text of 7 kB: 1.2, 3.5 and 3.5 ns a byte.
pub(super) const fn pack_ns(codec: Codec, bytes: usize) -> u64 {
    let bytes = bytes as u64;
    match codec {
        Codec::None => 0,
        Codec::Lz4 => bytes * 12 / 10,
        Codec::Zstd => 3_000 + bytes * 35 / 10,
        Codec::ZstdDictionary => 500 + bytes * 35 / 10,
    }
}

/// About how long unpacking takes, the digest (0.22 ns a byte) included: 0.3 and 1.2 ns a byte.
pub(super) const fn unpack_ns(codec: Codec, bytes: usize) -> u64 {
    let bytes = bytes as u64;
    match codec {
        Codec::None => 0,
        Codec::Lz4 => bytes * 5 / 10,
        Codec::Zstd => 500 + bytes * 14 / 10,
        Codec::ZstdDictionary => 300 + bytes * 14 / 10,
    }
}

/// What a codec works in: made once, used again and again.
#[derive(Default)]
pub(super) struct Contexts {
    encoder: Option<CCtx<'static>>,
    decoder: Option<DCtx<'static>>,
    scratch: Vec<u8>,
}

impl Contexts {
    pub(super) fn lz4(&mut self, bytes: &[u8], room: usize) -> Option<&[u8]> {
        let most = lz4_flex::block::get_maximum_output_size(bytes.len());
        if self.scratch.len() < most {
            // Without memory for it nothing is gained.
            self.scratch.try_reserve(most - self.scratch.len()).ok()?;
            self.scratch.resize(most, 0);
        }
        let len = lz4_flex::block::compress_into(bytes, &mut self.scratch).ok()?;
        (len <= room).then(|| &self.scratch[..len])
    }

    pub(super) fn zstd(&mut self, dictionary: Option<&CDict<'_>>, bytes: &[u8], room: usize) -> Option<&[u8]> {
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            none => none.insert(CCtx::try_create()?),
        };
        self.scratch.clear();
        self.scratch.try_reserve(room + MAGIC.len()).ok()?;
        // What does not fit in the room is an error, and no gain.
        match dictionary {
            Some(dictionary) => encoder.compress_using_cdict(&mut self.scratch, bytes, dictionary).ok()?,
            None => encoder.compress(&mut self.scratch, bytes, LEVEL).ok()?,
        };
        let packed = self.scratch.strip_prefix(&MAGIC)?;
        (packed.len() <= room).then_some(packed)
    }

    pub(super) fn unzstd(
        &mut self,
        dictionary: Option<&DDict<'_>>,
        packed: &[u8],
        to: &mut [u8],
    ) -> Result<(), &'static str> {
        let room = to.len();
        match self.run_zstd(dictionary, packed, to)? {
            Ok(written) if written == room => Ok(()),
            Err(code) if code == NO_ROOM_TO_WORK => Err(NO_MEMORY),
            _ => Err(BROKEN),
        }
    }

    /// Whether more comes out than there is room for, after what fits came out as it should.
    pub(super) fn zstd_begins(
        &mut self,
        dictionary: Option<&DDict<'_>>,
        packed: &[u8],
        to: &mut [u8],
    ) -> Result<(), &'static str> {
        match self.run_zstd(dictionary, packed, to)? {
            Err(code) if code == TOO_LITTLE_ROOM => Ok(()),
            Err(code) if code == NO_ROOM_TO_WORK => Err(NO_MEMORY),
            _ => Err(BROKEN),
        }
    }

    fn run_zstd(
        &mut self,
        dictionary: Option<&DDict<'_>>,
        packed: &[u8],
        to: &mut [u8],
    ) -> Result<SafeResult, &'static str> {
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            none => none.insert(DCtx::try_create().ok_or(NO_MEMORY)?),
        };
        self.scratch.clear();
        self.scratch.try_reserve(MAGIC.len() + packed.len()).map_err(|_| NO_MEMORY)?;
        self.scratch.extend_from_slice(&MAGIC);
        self.scratch.extend_from_slice(packed);
        Ok(match dictionary {
            Some(dictionary) => decoder.decompress_using_ddict(to, &self.scratch, dictionary),
            None => decoder.decompress(to, &self.scratch),
        })
    }
}

pub(super) const NO_MEMORY: &str = "there is not enough memory for it";

/// What Zstandard answers when what comes out does not fit: error 70, as all of its errors below zero.
const TOO_LITTLE_ROOM: usize = 0_usize.wrapping_sub(70);

/// What it answers when there is no memory for what it needs: error 64.
const NO_ROOM_TO_WORK: usize = 0_usize.wrapping_sub(64);

/// Whether more comes out than there is room for.
pub(super) fn lz4_begins(packed: &[u8], to: &mut [u8]) -> Result<(), &'static str> {
    match lz4_flex::block::decompress_into(packed, to) {
        Err(lz4_flex::block::DecompressError::OutputTooSmall { .. }) => Ok(()),
        _ => Err(BROKEN),
    }
}

pub(super) fn unlz4(packed: &[u8], to: &mut [u8]) -> Result<(), &'static str> {
    match lz4_flex::block::decompress_into(packed, to) {
        Ok(written) if written == to.len() => Ok(()),
        _ => Err(BROKEN),
    }
}

/// Contexts that are not in use.
#[derive(Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<Contexts>>,
}

impl Pool {
    /// Its lock.
    pub(super) fn locks(&self, each: &mut dyn FnMut(&RawLock)) {
        each(raw(&self.idle));
    }

    /// Runs something in a context of its own.
    pub(super) fn with<T>(&self, run: impl FnOnce(&mut Contexts) -> T) -> T {
        let mut contexts = self.idle.lock().pop().unwrap_or_default();
        let result = run(&mut contexts);
        if contexts.scratch.capacity() > SCRATCH_KEPT_BYTES {
            contexts.scratch = Vec::new();
        }
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX {
            idle.push(contexts);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unpacks_to_more_than_its_codec_can() {
        let zeros = vec![0; 10 << 20];
        let mut contexts = Contexts::default();
        let lz4 = contexts.lz4(&zeros, zeros.len()).expect("smaller").len();
        assert!(Codec::Lz4.unpacked_bytes_max(lz4) >= zeros.len() as u64);
        let zstd = contexts.zstd(None, &zeros, zeros.len()).expect("smaller").len();
        assert!(Codec::Zstd.unpacked_bytes_max(zstd) >= zeros.len() as u64);
    }
}
