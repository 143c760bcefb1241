//! What can go wrong, and what became of the cache. Every message says it, because that is what a caller must decide on.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::ids::NodeId;
use crate::shown::{Quoted, Shown};

/// A key as a message shows it.
pub fn short(key: &[u8]) -> String {
    Quoted(&String::from_utf8_lossy(key)).to_string()
}

/// What memory is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// An entry in a node.
    Entry,
    /// The bytes of a value, on their way in or out.
    Value,
    /// A list of keys, or of what is known of them.
    Keys,
    /// What is read from a file, or is to be written to it.
    File,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entry => "an entry",
            Self::Value => "the bytes of a value",
            Self::Keys => "a list of keys",
            Self::File => "what a file holds",
        })
    }
}

/// Why a call failed. Each variant says what happened to the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// An argument is out of its range. Nothing was done.
    Invalid {
        /// Which argument.
        argument: &'static str,
        /// What was given.
        value: String,
        /// What it must be.
        expected: String,
    },
    /// The key is longer than any key may be. Nothing was written.
    KeyTooLarge {
        /// Its bytes in UTF-8.
        bytes: usize,
        /// The most a key may have.
        bytes_max: usize,
    },
    /// The entry can never fit on the nodes it belongs to. Nothing was written and nothing was evicted.
    ValueTooLarge {
        /// Its key, as a message shows it; nothing for a value that is too long for any node.
        key: Option<String>,
        /// What the entry would take in a node.
        bytes: u64,
        /// The most an entry may take in the smallest of its owners.
        bytes_max: u64,
    },
    /// There is no memory for what was asked. Nothing was changed.
    OutOfMemory {
        /// What the memory was for.
        what: Need,
        /// So many bytes were asked for.
        bytes: u64,
    },
    /// Every node that could hold the key is down. Nothing was written.
    NoLiveNode,
    /// The value takes so many bytes before it is packed, however few after. Nothing was written and nothing was evicted.
    UnpacksTooLarge {
        /// Its key, as a message shows it.
        key: String,
        /// What it takes.
        bytes: u64,
        /// What it may take: 64 times the largest node.
        bytes_max: u64,
    },
    /// The node that was addressed is failed or cut off. Nothing was written.
    NodeDown {
        /// Which node.
        node: NodeId,
    },
    /// There is no such node. Nothing was done.
    NoSuchNode {
        /// Which node was named.
        node: String,
        /// The nodes that there are.
        nodes: Vec<NodeId>,
    },
    /// Fewer owners than asked for could be reached. A write is not undone: `reached` owners hold it, and it spreads.
    Quorum {
        /// How many had to answer.
        wanted: usize,
        /// How many did.
        reached: usize,
    },
    /// A value could not be turned into bytes or back. The cache is as it was.
    Serialization(String),
    /// A file is no snapshot, or is damaged, cut short or of another format. Nothing was changed.
    Snapshot {
        /// Which file.
        path: PathBuf,
        /// At which byte it is wrong.
        at: u64,
        /// What is wrong there.
        why: String,
    },
    /// The operating system refuses a file. The cache is as it was, and so is a file that was to be replaced.
    File {
        /// Which file.
        path: PathBuf,
        /// The operating system's number of the error, if it has one.
        os_error: Option<i32>,
        /// What the operating system says.
        why: String,
    },
    /// A file was written and is in its place, and the operating system cannot say that it stays there through a loss of
    /// power.
    FileReplaced {
        /// Which file.
        path: PathBuf,
        /// The operating system's number of the error, if it has one.
        os_error: Option<i32>,
        /// What the operating system says.
        why: String,
    },
    /// A restore ended before its end. The records before that are in the cache, as if each had been written by itself.
    BrokenOff {
        /// So many records were written or found superseded.
        done: u64,
        /// So many there are.
        of: u64,
        /// What ended it.
        cause: Box<Self>,
    },
    /// The cache is closed. Nothing was done.
    Closed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { argument, value, expected } => {
                write!(f, "{argument} is {value}, but must be {expected}; nothing was done")
            }
            Self::KeyTooLarge { bytes, bytes_max } => {
                write!(f, "the key has {bytes} bytes in UTF-8, the most is {bytes_max}; nothing was written")
            }
            Self::ValueTooLarge { key, bytes, bytes_max } => {
                match key {
                    Some(key) => write!(
                        f,
                        "the entry of {key} takes {bytes} bytes with its key and overhead, and the smallest of its owners has \
                         room for {bytes_max}: raise node_capacity, or the capacity of added nodes"
                    )?,
                    None => write!(f, "the value takes {bytes} bytes, the most is {bytes_max}, whatever the capacity")?,
                }
                f.write_str("; nothing was written and nothing was evicted")
            }
            Self::OutOfMemory { what, bytes } => {
                write!(f, "there is no memory for {what} ({bytes} bytes); nothing was changed")
            }
            Self::UnpacksTooLarge { key, bytes, bytes_max } => write!(
                f,
                "the value of {key} takes {bytes} bytes before it is packed, and the most is {bytes_max}, 64 times the \
                 largest node: raise node_capacity; nothing was written and nothing was evicted"
            ),
            Self::NoLiveNode => write!(f, "every node is down; nothing was written"),
            Self::NodeDown { node } => write!(f, "node {node} is down; nothing was done"),
            Self::NoSuchNode { node, nodes } => write!(f, "there is no node {node}, only {nodes:?}; nothing was done"),
            Self::Quorum { wanted, reached } => {
                write!(
                    f,
                    "{wanted} owners had to answer and {reached} did; a write they hold is not undone, and spreads from them"
                )
            }
            Self::Serialization(why) => write!(f, "{why}; the cache is as it was"),
            Self::Snapshot { path, at, why } => {
                write!(f, "{}: at byte {at}: {why}; nothing was changed", shown(path))
            }
            Self::File { path, why, .. } => write!(f, "{}: {why}; nothing was changed", shown(path)),
            Self::FileReplaced { path, why, .. } => write!(f, "{}: {why}; {IS_REPLACED}", shown(path)),
            Self::BrokenOff { done, of, cause } => {
                match &**cause {
                    Self::Closed => write!(f, "the cache was closed")?,
                    Self::NoLiveNode => write!(f, "every node is down")?,
                    Self::Snapshot { path, at, why } => write!(f, "{}: at byte {at}: {why}", shown(path))?,
                    Self::File { path, why, .. } => write!(f, "{}: {why}", shown(path))?,
                    other => write!(f, "{other}")?,
                }
                write!(f, "; {done} of {of} records were restored before that, and are in the cache")
            }
            Self::Closed => write!(f, "the cache is closed; nothing was done"),
        }
    }
}

impl std::error::Error for Error {}

/// What is said of a file that is in its place, perhaps not for ever.
pub const IS_REPLACED: &str = "the file was written and is in its place, but a loss of power may undo that";

/// A file's name in a message.
fn shown(path: &Path) -> String {
    Shown(&path.to_string_lossy()).to_string()
}
