//! What a cache is made with. An invalid one cannot be built, so nobody inside checks again.

use std::fmt;
use std::time::Duration;

use crate::error::Error;
use crate::ids::NODES_MAX;
use crate::lifetime::check_ttl;

/// The least memory a node can have, in bytes: 16 KiB.
pub const NODE_BYTES_MIN: u64 = 16 * 1024;

/// The most memory a node can have, in bytes: 1 TiB.
pub const NODE_BYTES_MAX: u64 = 1 << 40;

/// How many owners must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quorum {
    /// One; the rest follow in the background.
    One,
    /// More than half of the replicas.
    Majority,
    /// Every owner that is live and can be reached.
    All,
    /// So many, from 1 to the number of replicas.
    Count(u8),
}

impl Quorum {
    /// How many owners that is, when `all` means every one that can be reached.
    #[inline]
    pub const fn wanted(self, replicas: u8) -> Option<u8> {
        match self {
            Self::One => Some(1),
            Self::Majority => Some(replicas / 2 + 1),
            Self::All => None,
            Self::Count(count) => Some(count),
        }
    }
}

/// How values are made smaller before they go to the nodes, if that saves at least an eighth. Nodes with values of different
/// settings mix: each value says how it is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4 from 1 KiB on: half the bytes of text and records, and hardly slower to read.
    #[default]
    Lz4,
    /// Zstandard, level 1, from 1 KiB on: a third of the bytes, and three times the time of LZ4.
    Zstd,
    /// Zstandard from 64 bytes on, with a dictionary that is trained in the background from values that were put. It is
    /// what makes values of 100 to 1,000 bytes smaller.
    ZstdDict,
}

impl Compression {
    /// Its name; none when values are left as they are.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Lz4 => Some("lz4"),
            Self::Zstd => Some("zstd"),
            Self::ZstdDict => Some("zstd-dict"),
        }
    }
}

/// A secret of 16 to 64 bytes under which values are signed. It is never printed, and no snapshot has it.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(Box<[u8]>);

impl SigningKey {
    /// The least and the most bytes it has.
    pub const BYTES: std::ops::RangeInclusive<usize> = 16..=64;

    /// A key of these bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] when they are fewer than 16 or more than 64.
    pub fn new(secret: &[u8]) -> Result<Self, Error> {
        if Self::BYTES.contains(&secret.len()) {
            return Ok(Self(secret.into()));
        }
        // Of a secret, only the length is told.
        let value = format!("a key of {} bytes", secret.len());
        Err(Error::Invalid { argument: "signing_key", value, expected: "of 16 to 64 bytes".to_owned() })
    }

    /// Its bytes.
    pub(crate) const fn secret(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(..)")
    }
}

/// The most signing keys a cache has: the present one, and the one before or after it.
pub const SIGNING_KEYS_MAX: usize = 2;

/// What a cache is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    nodes: u8,
    replicas: u8,
    node_bytes: u64,
    write_quorum: Quorum,
    read_quorum: Quorum,
    gossip_interval: Option<Duration>,
    compression: Compression,
    signing_keys: Vec<SigningKey>,
    default_ttl: Option<Duration>,
}

impl Config {
    /// `nodes` nodes, 1 to 100, that keep every entry `replicas` times: 1 to `nodes`, or `None` for `min(3, nodes)`.
    /// Each has 1 MiB.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a number is out of its range.
    pub fn new(nodes: usize, replicas: Option<usize>) -> Result<Self, Error> {
        let nodes_known = within("nodes", nodes, 1, usize::from(NODES_MAX))?;
        let replicas = within("replicas", replicas.unwrap_or_else(|| nodes.min(3)), 1, nodes)?;
        Ok(Self {
            nodes: nodes_known as u8,
            replicas: replicas as u8,
            node_bytes: 1 << 20,
            write_quorum: Quorum::All,
            read_quorum: Quorum::One,
            gossip_interval: Some(Duration::from_millis(100)),
            compression: Compression::Lz4,
            signing_keys: Vec::new(),
            default_ttl: None,
        })
    }

    /// Gives each node so many bytes: 16 KiB to 1 TiB.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is out of this range.
    pub fn node_bytes(mut self, bytes: u64) -> Result<Self, Error> {
        self.node_bytes = check_node_bytes("node_capacity", bytes)?;
        Ok(self)
    }

    /// How many owners must have a write before it is answered; [`Quorum::All`] unless told.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a count that is 0 or above the replicas.
    pub fn write_quorum(mut self, quorum: Quorum) -> Result<Self, Error> {
        self.write_quorum = self.check_quorum("write_quorum", quorum)?;
        Ok(self)
    }

    /// How many owners a read asks, to answer with the newest; [`Quorum::One`] unless told.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a count that is 0 or above the replicas.
    pub fn read_quorum(mut self, quorum: Quorum) -> Result<Self, Error> {
        self.read_quorum = self.check_quorum("read_quorum", quorum)?;
        Ok(self)
    }

    /// The time between two rounds of gossip, or `None` for none but those that are asked for; 100 ms unless told.
    ///
    /// # Errors
    /// [`Error::Invalid`] below a millisecond or above an hour.
    pub fn gossip_interval(mut self, interval: Option<Duration>) -> Result<Self, Error> {
        let (least, most) = (Duration::from_millis(1), Duration::from_secs(3600));
        if let Some(interval) = interval.filter(|interval| !(least..=most).contains(interval)) {
            let value = format!("{} s", interval.as_secs_f64());
            let expected = "from 0.001 s to 3600 s, or None".to_owned();
            return Err(Error::Invalid { argument: "gossip_interval", value, expected });
        }
        self.gossip_interval = interval;
        Ok(self)
    }

    /// How values are made smaller; [`Compression::Lz4`] unless told. Each value says how it is packed, so that caches with
    /// different settings read each other's.
    pub const fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Has values signed under the first of these keys, and accepted when they are signed under any of them: one key, or
    /// two while keys are exchanged. None, unless told: then nothing is signed, and what is signed is refused.
    ///
    /// # Errors
    /// [`Error::Invalid`] for more than two.
    pub fn signing_keys(mut self, keys: Vec<SigningKey>) -> Result<Self, Error> {
        if keys.len() > SIGNING_KEYS_MAX {
            let value = format!("{} keys", keys.len());
            return Err(Error::Invalid { argument: "signing_key", value, expected: "one key or two".to_owned() });
        }
        self.signing_keys = keys;
        Ok(self)
    }

    /// How long a value lives that is put without a time to live of its own, or `None` for ever; `None` unless told.
    ///
    /// # Errors
    /// [`Error::Invalid`] for 0 and above 100 years.
    pub fn default_ttl(mut self, ttl: Option<Duration>) -> Result<Self, Error> {
        self.default_ttl = ttl.map(|ttl| check_ttl("default_ttl", ttl)).transpose()?;
        Ok(self)
    }

    /// A quorum that these replicas can reach.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a count that is 0 or above the replicas.
    pub fn check_quorum(&self, argument: &'static str, quorum: Quorum) -> Result<Quorum, Error> {
        if let Quorum::Count(count) = quorum {
            within(argument, usize::from(count), 1, usize::from(self.replicas))?;
        }
        Ok(quorum)
    }

    /// How values are made smaller.
    #[inline]
    pub const fn packs(&self) -> Compression {
        self.compression
    }

    /// What values are signed under.
    pub fn keys(&self) -> &[SigningKey] {
        &self.signing_keys
    }

    /// Nodes at the start.
    pub const fn nodes(&self) -> u8 {
        self.nodes
    }

    /// Copies of each entry.
    pub const fn replicas(&self) -> u8 {
        self.replicas
    }

    /// Bytes of each node.
    pub const fn bytes_of_a_node(&self) -> u64 {
        self.node_bytes
    }

    /// Owners that must have a write.
    #[inline]
    pub const fn writes(&self) -> Quorum {
        self.write_quorum
    }

    /// Owners that a read asks.
    #[inline]
    pub const fn reads(&self) -> Quorum {
        self.read_quorum
    }

    /// How long a value lives that is put without a time to live of its own; `None` for ever.
    #[inline]
    pub const fn ttl(&self) -> Option<Duration> {
        self.default_ttl
    }

    /// The time between two rounds of gossip.
    pub const fn interval(&self) -> Option<Duration> {
        self.gossip_interval
    }
}

/// A node's bytes within their range.
pub(crate) fn check_node_bytes(argument: &'static str, bytes: u64) -> Result<u64, Error> {
    if !(NODE_BYTES_MIN..=NODE_BYTES_MAX).contains(&bytes) {
        let expected = format!("from {NODE_BYTES_MIN} bytes (16KiB) to {NODE_BYTES_MAX} (1TiB)");
        return Err(Error::Invalid { argument, value: format!("{bytes} bytes"), expected });
    }
    Ok(bytes)
}

fn within(argument: &'static str, value: usize, least: usize, most: usize) -> Result<usize, Error> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(Error::Invalid { argument, value: value.to_string(), expected: format!("from {least} to {most}") })
}

/// Reads a size: a number of bytes, or a number with a unit, in capital letters or small ones, as in `"64KiB"`, `"512m"` or
/// `"1.5 GB"`. `KiB`, `MiB`, `GiB` and `TiB` are of 1024, and so are their first letters alone, with or without an `i`, as
/// container tools read them; `kB`, `MB`, `GB` and `TB` are of 1000. `None` when it is not one.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000_u64.pow(2),
        "gb" => 1000_u64.pow(3),
        "tb" => 1000_u64.pow(4),
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "t" | "ti" | "tib" => 1 << 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    (bytes < u64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_numbers_with_a_unit() {
        for (text, bytes) in [
            ("65536", 65536),
            ("64KiB", 65536),
            ("1MiB", 1 << 20),
            ("2GB", 2_000_000_000),
            ("1.5 kB", 1500),
            (" 7 B ", 7),
            ("64kb", 64_000),
            ("512m", 512 << 20),
            ("1G", 1 << 30),
            ("1.5gib", 3 << 29),
            ("2 Mi", 2 << 20),
            ("3k", 3072),
            ("1t", 1 << 40),
        ] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "1 mibs", "m", "-1", "1e3", "1..5", "99999999TiB", "1\u{212a}"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_named_with_its_range() {
        let error = Config::new(3, Some(4)).expect_err("more replicas than nodes");
        assert_eq!(error.to_string(), "replicas is 4, but must be from 1 to 3; nothing was done");
        assert!(Config::new(0, None).is_err() && Config::new(101, None).is_err());
        assert_eq!(Config::new(2, None).expect("valid").replicas(), 2);
    }
}
