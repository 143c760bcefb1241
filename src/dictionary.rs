//! ```text
//!   samples of values -> a dictionary: bytes, and a number that follows from them
//!                            |  taught to every node before a value needs it
//!                            v
//!   Library:  find  <- who reads such a value      teach, adopt, forget  <- who trains dictionaries
//! ```
//! What small values have in common, kept once instead of in each of them; and where such dictionaries are kept.
//!
//! Promise: a dictionary is known by its bytes, or by 256 bits of their hash. Its number is a short name for them: the same
//! bytes have the same number everywhere, but who wants to can make others of that number, so that nothing is believed of a
//! dictionary because of it.

use std::sync::Arc;

use crate::hash;

/// The number of a dictionary, which each value that needs it carries.
pub type DictionaryId = u32;

/// The longest dictionary, in bytes.
pub const DICTIONARY_BYTES_MAX: usize = 16 * 1024;

/// A dictionary. Cloning it shares its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dictionary {
    id: DictionaryId,
    hash: [u8; 32],
    bytes: Arc<[u8]>,
}

impl Dictionary {
    /// What each takes in a node beside its bytes: its place in the list, the counters of its memory, its allocation.
    const BESIDE_BYTES: usize = size_of::<Self>() + 2 * size_of::<usize>() + 16;

    /// A dictionary of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self { id: hash::digest(bytes) as DictionaryId, hash: *blake3::hash(bytes).as_bytes(), bytes: bytes.into() }
    }

    /// Its number: 32 bits of the digest of its bytes.
    pub const fn id(&self) -> DictionaryId {
        self.id
    }

    /// The BLAKE3 hash of its bytes: nobody can make others that have it.
    pub const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it takes in a node.
    pub fn bytes_held(&self) -> usize {
        self.bytes.len() + Self::BESIDE_BYTES
    }
}

/// Where dictionaries are kept, beside the values that need them.
pub trait Library: Sync {
    /// The dictionary of this number.
    fn find(&self, id: DictionaryId) -> Option<Dictionary>;

    /// Gives every node a dictionary. True when it is kept and values may need it from now on.
    fn teach(&self, dictionary: &Dictionary) -> bool;

    /// The latest dictionary that came with a snapshot and that nobody keeps in use: from now on it is the asker's.
    fn adopt(&self) -> Option<Dictionary>;

    /// Those that came with snapshots and that nobody adopted.
    fn orphans(&self) -> Vec<DictionaryId>;

    /// Which of these a value needs, on any node, also on one that is cut off with its memory.
    fn needed(&self, of: &[DictionaryId]) -> Vec<DictionaryId>;

    /// No value that is put may unpack to more bytes: what a frame says beyond it is not believed.
    fn unpacked_bytes_max(&self) -> u64;

    /// Has every node forget those of these that no value needs now. Returns them; nothing while a snapshot is written or
    /// read, because it has values of its own.
    fn forget(&self, of: &[DictionaryId]) -> Vec<DictionaryId>;
}
