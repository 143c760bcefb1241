//! ```text
//!   cluster: whom to ask, and what  ->  Runtime::carry  ->  node: the answer
//! ```
//! How a message reaches a node and its answer comes back. `embedded` does it by a plain call within this process;
//! `simulated` is a network that loses, doubles and delays them.

pub mod embedded;
pub mod simulated;
pub mod workers;

use crate::clock::Incarnation;
use crate::entry::Key;
use crate::error::Error;
use crate::ids::NodeId;
use crate::lock::RawLock;
use crate::message::{Address, Read, Reply, Request};
use crate::node::{Node, Take};
use crate::stats::NodeStats;

/// Whether a message may wait for a node that is busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Come back at once with [`Unreached::Busy`]: the caller holds something that others wait for.
    Never,
    /// Until the node is free.
    ForTurn,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreached {
    /// The node is in use and the message was not to wait. Nothing happened.
    Busy,
    /// This life of the node is over.
    Down,
    /// No answer came in time. What was asked may have been done, or may be done yet.
    Silent,
    /// The node refused, and says why. Nothing changed.
    Refused(Error),
}

/// Why a read has no answer. A type of its own, because it is small and a read is quick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The node is in use and the read was not to wait.
    Busy,
    /// This life of the node is over.
    Down,
}

impl From<Unread> for Unreached {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Busy => Self::Busy,
            Unread::Down => Self::Down,
        }
    }
}

/// Carries messages to nodes, and starts and stops them.
pub trait Runtime: Send + Sync {
    /// Carries a request to a node and its answer back.
    ///
    /// # Errors
    /// [`Unreached`] when there is no answer.
    fn carry(&self, to: Address, request: &Request<'_>, wait: Wait) -> Result<Reply, Unreached>;

    /// Asks a node what it knows of a key. `take` is lent the value if it is live there. With `touch` this is a use.
    ///
    /// # Errors
    /// [`Unread`] when there is no answer.
    fn read(&self, to: Address, key: Key<'_>, touch: bool, wait: Wait, take: Take<'_>) -> Result<Read, Unread>;

    /// Looks at a node as it is. The node waits meanwhile, so a look must be short.
    ///
    /// # Errors
    /// [`Unreached::Down`] when this life of the node is over.
    fn look(&self, to: Address, look: &mut dyn FnMut(&mut Node)) -> Result<(), Unreached>;

    /// Looks at a node, if it can be had without waiting or `wait` says that it may.
    ///
    /// # Errors
    /// [`Unread`] when there was no look.
    fn visit(&self, to: Address, wait: Wait, look: &mut dyn FnMut(&mut Node)) -> Result<(), Unread>;

    /// Starts a life of a node with empty memory; what the node had before is gone.
    fn start(&self, node: NodeId, bytes_max: u64, partitions: u16) -> Incarnation;

    /// The time, in milliseconds since 1970: never backwards, and never 0.
    fn now_ms(&self) -> u64;

    /// Nodes are to know that it is so late: they are told with the next message that comes to them.
    fn tell_time(&self, now_ms: u64);

    /// Ends a node's life; its memory is gone. What it had counted, if that is known.
    fn stop(&self, node: NodeId) -> Option<NodeStats>;

    /// Whether a node's life is over because knowledge outgrew it, and nobody has stopped it or started it anew.
    fn has_outgrown(&self, _node: NodeId) -> bool {
        false
    }

    /// Shows each lock of its nodes.
    fn locks(&self, _each: &mut dyn FnMut(&RawLock)) {}

    /// How often a message waited for a node that was in use. Looks do not count.
    fn waits(&self, _node: NodeId) -> u64 {
        0
    }
}
