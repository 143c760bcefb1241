//! ```text
//!   magic, format version, header      what the cache was made with, and when this was saved
//!   block                              a dictionary that values in later blocks need, or
//!                                      records: keys with their versions and values, the coldest first
//!   block ..                           each with its length, its count and its checksum, compressed if that saves
//!   footer                             how many blocks and records, and a checksum over all checksums
//! ```
//! A snapshot: the contents of a cache as a file. `record`, `block`, `writer` and `reader` are its format and know bytes
//! only; `file` replaces a file as a whole or not at all.
//!
//! Promise: whatever bytes are read, the answer is what was written or a [`Fault`]: every byte is under a checksum, no
//! length is believed that the file does not have, and nothing panics.
//!
//! The checksums find damage, not malice: values are pickles, and who can write the file decides what they do.

pub mod block;
pub mod file;
pub mod reader;
pub mod record;
pub mod writer;

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::config::{Compression, Config, Quorum};
use crate::error::{Error, Need};
use xxhash_rust::xxh3::xxh3_64;

/// How a snapshot begins. No text begins so, and a transfer that changes line ends or cuts the eighth bit damages it.
pub const MAGIC: [u8; 8] = *b"\x8fDCC\r\n\x1a\n";

/// The format that is written, and the only one that is read.
pub const FORMAT: u16 = 1;

/// Bytes before the header's body: magic, format version, length of the body.
pub const PREFIX_BYTES: usize = 12;

/// Bytes of the header's body that this format knows. A longer one has more to say, which may be left unread.
const BODY_BYTES: usize = 40;

/// The longest body of a header.
const BODY_BYTES_MAX: usize = u16::MAX as usize;

/// What is wrong with a snapshot, or with reading it.
#[derive(Debug)]
pub enum Fault {
    /// It is none, is damaged, or of another format.
    Format {
        /// At which byte of the file.
        at: u64,
        /// What is wrong there.
        why: String,
    },
    /// The file cannot be read or written.
    File(io::Error),
    /// There is no memory for so many bytes of it.
    NoMemory(u64),
}

impl Fault {
    pub(crate) fn format(at: u64, why: impl Into<String>) -> Self {
        Self::Format { at, why: why.into() }
    }

    /// What a caller is told about the file at this path.
    pub fn of(self, path: &Path) -> Error {
        match self {
            Self::NoMemory(bytes) => Error::OutOfMemory { what: Need::File, bytes },
            Self::Format { at, why } => Error::Snapshot { path: path.to_owned(), at, why },
            Self::File(error) => {
                Error::File { path: path.to_owned(), os_error: error.raw_os_error(), why: error.to_string() }
            }
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

/// What a snapshot says of the cache before its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the cache was made with.
    pub config: Config,
    /// When it was saved, by the cache's own clock: microseconds since 1970.
    pub saved_at_us: u64,
}

impl Header {
    /// The first bytes of a snapshot.
    pub fn encode(&self) -> Vec<u8> {
        let config = &self.config;
        let mut bytes = MAGIC.to_vec();
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend((BODY_BYTES as u16).to_le_bytes());
        bytes.extend(self.saved_at_us.to_le_bytes());
        bytes.extend(config.bytes_of_a_node().to_le_bytes());
        bytes.extend(config.interval().map_or(0, |interval| interval.as_nanos() as u64).to_le_bytes());
        bytes.extend([config.nodes(), config.replicas()]);
        bytes.extend(quorum_bytes(config.writes()));
        bytes.extend(quorum_bytes(config.reads()));
        bytes.push(match config.packs() {
            Compression::None => 0,
            Compression::Lz4 => 1,
            Compression::Zstd => 2,
            Compression::ZstdDict => 3,
        });
        bytes.push(0);
        bytes.extend(config.ttl().map_or(0, |ttl| ttl.as_nanos() as u64).to_le_bytes());
        // Room for what later releases have to say of a cache.
        bytes.resize(PREFIX_BYTES + BODY_BYTES, 0);
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    /// How many bytes the header has in all, by its first [`PREFIX_BYTES`].
    ///
    /// # Errors
    /// [`Fault::Format`] for what is no snapshot, or one of another format.
    pub fn length(prefix: &[u8; PREFIX_BYTES]) -> Result<usize, Fault> {
        if prefix[..8] != MAGIC {
            let at = prefix.iter().zip(MAGIC).position(|(is, should)| *is != should).unwrap_or_default();
            return Err(Fault::format(at as u64, "it is no snapshot of a cache"));
        }
        let format = u16::from_le_bytes([prefix[8], prefix[9]]);
        if format != FORMAT {
            let why = format!("it is in format {format}, and this release reads format {FORMAT} only");
            return Err(Fault::format(8, why));
        }
        let body = usize::from(u16::from_le_bytes([prefix[10], prefix[11]]));
        if !(BODY_BYTES..=BODY_BYTES_MAX).contains(&body) {
            return Err(Fault::format(10, format!("a header of {body} bytes is too short")));
        }
        Ok(PREFIX_BYTES + body + 8)
    }

    /// Reads a header, given whole.
    ///
    /// # Errors
    /// [`Fault::Format`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let Some((before, checksum)) = bytes.split_last_chunk::<8>().filter(|(before, _)| before.len() >= 52) else {
            return Err(Fault::format(bytes.len() as u64, ENDS_HERE));
        };
        if xxh3_64(before) != u64::from_le_bytes(*checksum) {
            return Err(Fault::format(0, "the checksum of the header is wrong"));
        }
        let body = &before[PREFIX_BYTES..];
        let (nodes, replicas) = (usize::from(body[24]), usize::from(body[25]));
        let interval = word(body, 16);
        let config = Config::new(nodes, Some(replicas))
            .and_then(|config| config.node_bytes(word(body, 8)))
            .and_then(|config| config.gossip_interval((interval > 0).then(|| Duration::from_nanos(interval))));
        let config = config.and_then(|config| config.write_quorum(quorum([body[26], body[27]])?));
        let config = config.and_then(|config| config.read_quorum(quorum([body[28], body[29]])?));
        let config = config.and_then(|config| Ok(config.compression(compression(body[30])?)));
        let ttl = word(body, 32);
        let config = config.and_then(|config| config.default_ttl((ttl > 0).then(|| Duration::from_nanos(ttl))));
        let config =
            config.map_err(|_| Fault::format(PREFIX_BYTES as u64, "the configuration is out of its ranges"))?;
        Ok(Self { config, saved_at_us: word(body, 0) })
    }
}

/// What is said of a file that is shorter than it says.
pub(crate) const ENDS_HERE: &str = "the file ends here, and is not whole";

/// What a snapshot holds in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Blocks, of records and of dictionaries.
    pub blocks: u64,
    /// Keys with their values.
    pub entries: u64,
    /// Keys that were removed, and are remembered so that older puts stay refused.
    pub removes: u64,
    /// Bytes of the records, before they were compressed.
    pub record_bytes: u64,
}

/// All that is known of a snapshot without its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// What its header says.
    pub header: Header,
    /// What its footer says.
    pub totals: Totals,
    /// Bytes of the file.
    pub file_bytes: u64,
}

fn quorum_bytes(quorum: Quorum) -> [u8; 2] {
    match quorum {
        Quorum::One => [0, 0],
        Quorum::Majority => [1, 0],
        Quorum::All => [2, 0],
        Quorum::Count(count) => [3, count],
    }
}

fn quorum([kind, count]: [u8; 2]) -> Result<Quorum, Error> {
    match kind {
        0 => Ok(Quorum::One),
        1 => Ok(Quorum::Majority),
        2 => Ok(Quorum::All),
        3 => Ok(Quorum::Count(count)),
        _ => Err(Error::Invalid { argument: "a quorum", value: kind.to_string(), expected: "from 0 to 3".to_owned() }),
    }
}

fn compression(number: u8) -> Result<Compression, Error> {
    match number {
        0 => Ok(Compression::None),
        1 => Ok(Compression::Lz4),
        2 => Ok(Compression::Zstd),
        3 => Ok(Compression::ZstdDict),
        _ => Err(Error::Invalid {
            argument: "compression",
            value: number.to_string(),
            expected: "from 0 to 3".to_owned(),
        }),
    }
}

/// The little-endian word at a place; 0 where there is none.
pub(crate) fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>);
    word.map_or(0, |word| u64::from_le_bytes(*word))
}

/// The little-endian half word at a place; 0 where there is none.
pub(crate) fn half(bytes: &[u8], at: usize) -> u32 {
    let half = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>);
    half.map_or(0, |half| u32::from_le_bytes(*half))
}
