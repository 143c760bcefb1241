//! ```text
//!   a write  ->  too large? refused  ->  put.rs: whom to send it to next  --carry-->  nodes
//!                                          |        nodes came or went: it begins again
//!                                          +-> done: counted
//! ```
//! Writes, driven to their end: the caller carries the messages (`turn`), or the cluster does (`advance`, `write`).
//!
//! Promise: a write ends after a bounded number of messages, and is counted once.

use super::Cluster;
use super::put::{Outcome, Put, Step};
use crate::config::{NODE_BYTES_MIN, Quorum};
use crate::dictionary::Library;
use crate::entry::{Form, Key, Value};
use crate::error::{self, Error, Need};
use crate::events::What;
use crate::ids::NodeId;
use crate::message::{Address, Reply, Request, Write};
use crate::node::{entry_bytes, entry_bytes_max};
use crate::packed;
use crate::runtime::{Runtime, Unreached, Wait};
use crate::shortage;
use crate::version::{Kind, Version};

/// A call that cannot have changes wait, because it must not wait itself, begins again this often before it makes do with
/// what it reached.
const RESTARTS_MAX: u32 = 20_000;

/// A write on its way: kept when it had to stop for a busy node, to be taken up again.
pub struct Writing<'a> {
    put: Put<'a>,
    pending: Option<(Address, Request<'a>)>,
    restarts: u32,
}

impl Writing<'_> {
    /// What came back from a node, or why nothing did.
    ///
    /// # Errors
    /// What ends the write without having changed anything.
    pub fn reply(&mut self, from: Address, reply: Result<Reply, Unreached>) -> Result<(), Error> {
        self.put.reply(from, reply)
    }

    /// The version that it writes, as it is now.
    pub const fn version(&self) -> Version {
        self.put.version()
    }
}

/// What a write wants next.
pub enum Turn<'a> {
    /// Send this.
    Send(Address, Request<'a>),
    /// It began again because nodes came or went, so many times before: wait for the change to be published.
    Pause(u32),
    /// It is over.
    Done(Outcome),
}

/// Whether a call came to its end.
pub enum Progress<T> {
    /// It did.
    Done(T),
    /// A node was busy and the call was not to wait.
    Busy,
}

impl<R: Runtime> Cluster<R> {
    /// Begins a put or a remove; nothing is sent yet. `via` is the node the caller talks to, if it talks to one.
    ///
    /// # Errors
    /// [`Error::ValueTooLarge`] when it can never fit, [`Error::OutOfMemory`], [`Error::Closed`], and [`Error::NodeDown`] for
    /// `via`.
    #[inline(always)]
    pub fn begin<'a>(
        &self,
        write: Write<'a>,
        quorum: Option<Quorum>,
        via: Option<NodeId>,
    ) -> Result<Writing<'a>, Error> {
        self.check_open()?;
        // A remove gives memory back.
        if write.value.is_some() {
            shortage::check(Need::Entry)?;
        }
        if let Err(error) = self.check_fits(&write).and_then(|_| self.check_unpacked(&write)) {
            self.tell_refused(write.key, &error);
            return Err(error);
        }
        self.tell_time_of(&write);
        let mut put = Put::new(write, quorum.unwrap_or(self.config.writes()), &self.routes);
        if let Some(node) = via {
            self.check_live(&self.view(), node)?;
            put = put.through(node);
        }
        Ok(Writing { put, pending: None, restarts: 0 })
    }

    /// What an entry takes, if it can ever fit on its owners.
    ///
    /// # Errors
    /// [`Error::ValueTooLarge`].
    #[inline]
    pub fn check_fits(&self, write: &Write<'_>) -> Result<u64, Error> {
        self.check_sizes(write.key, write.value_bytes())
    }

    /// What an entry with a value of so many bytes takes, if it can ever fit on its owners.
    ///
    /// # Errors
    /// [`Error::ValueTooLarge`].
    #[inline]
    pub fn check_sizes(&self, key: Key<'_>, value_bytes: usize) -> Result<u64, Error> {
        let bytes = entry_bytes(key.bytes().len(), value_bytes);
        // What fits in the smallest node fits everywhere.
        if bytes <= self.routes.entry_bytes_max() { Ok(bytes) } else { self.check_owners(key, bytes) }
    }

    #[cold]
    fn check_owners(&self, key: Key<'_>, bytes: u64) -> Result<u64, Error> {
        let view = self.view();
        let owners = view.owners(key.hash().partition(view.partitions())).iter();
        let bytes_max = owners.filter_map(|&owner| view.member(owner)).map(|member| entry_bytes_max(member.bytes_max));
        // With no owner that is there, any node might be one.
        let bytes_max = bytes_max.min().unwrap_or(self.routes.entry_bytes_max());
        if bytes <= bytes_max {
            return Ok(bytes);
        }
        Err(Error::ValueTooLarge { key: Some(error::short(key.bytes())), bytes, bytes_max })
    }

    /// Whether a packed value unpacks to no more than whoever gets it can be asked to have memory for.
    #[inline]
    fn check_unpacked(&self, write: &Write<'_>) -> Result<(), Error> {
        match write.value {
            Some(value) if value.form() == Form::Packed => self.check_packed(write.key, value),
            _ => Ok(()),
        }
    }

    #[inline(never)]
    fn check_packed(&self, key: Key<'_>, value: Value<'_>) -> Result<(), Error> {
        let bytes = packed::unpacked_bytes(value);
        // The smallest node has as many: most values are far below.
        if bytes <= NODE_BYTES_MIN {
            return Ok(());
        }
        let bytes_max = self.unpacked_bytes_max();
        if bytes <= bytes_max {
            return Ok(());
        }
        Err(Error::UnpacksTooLarge { key: error::short(key.bytes()), bytes, bytes_max })
    }

    /// Tells whoever listens that a write was refused, if it is too large.
    #[cold]
    pub fn tell_refused(&self, key: Key<'_>, error: &Error) {
        if let &(Error::ValueTooLarge { bytes, bytes_max, .. } | Error::UnpacksTooLarge { bytes, bytes_max, .. }) =
            error
        {
            let key = || String::from_utf8_lossy(key.bytes()).into_owned();
            self.events.tell(|| What::ValueTooLarge { key: key(), bytes, bytes_max });
        }
    }

    /// Takes a write as far as it goes: to its end, or to a node that is busy when it is not to wait.
    ///
    /// # Errors
    /// [`Error::NoLiveNode`] and [`Error::Quorum`].
    #[inline]
    pub fn advance(&self, writing: &mut Writing<'_>, wait: Wait) -> Result<Progress<Outcome>, Error> {
        let mut quiet = None;
        loop {
            let (to, request) = match writing.pending.take() {
                Some(pending) => pending,
                None => match self.turn(writing)? {
                    Turn::Send(to, request) => (to, request),
                    Turn::Done(outcome) => return Ok(Progress::Done(outcome)),
                    Turn::Pause(_) if wait == Wait::Never => return Ok(Progress::Busy),
                    Turn::Pause(restarts) => {
                        self.be_patient(restarts, &mut quiet);
                        continue;
                    }
                },
            };
            match self.runtime.carry(to, &request, wait) {
                Err(Unreached::Busy) => {
                    writing.pending = Some((to, request));
                    return Ok(Progress::Busy);
                }
                reply => writing.put.reply(to, reply)?,
            }
        }
    }

    /// What a write wants next, for whoever carries its messages. What comes back goes to [`Writing::reply`].
    ///
    /// # Errors
    /// [`Error::NoLiveNode`] and [`Error::Quorum`].
    #[inline(always)]
    pub fn turn<'a>(&self, writing: &mut Writing<'a>) -> Result<Turn<'a>, Error> {
        if let Step::Send(to, request) = writing.put.next(&self.routes) {
            return Ok(Turn::Send(to, request));
        }
        if !writing.put.is_outdated(&self.routes) || writing.restarts == RESTARTS_MAX {
            let ended = writing.put.outcome(&self.routes, || self.runtime.now_ms());
            self.count_write(&writing.put, &ended);
            return ended.map(Turn::Done);
        }
        self.check_open()?;
        // What was acknowledged must be on the owners there are now. The nodes may know of a change before it is
        // published: that takes a moment.
        writing.put.restart(&self.routes);
        writing.restarts += 1;
        Ok(Turn::Pause(writing.restarts - 1))
    }

    /// Writes, waiting for busy nodes.
    ///
    /// # Errors
    /// Those of [`Cluster::begin`] and [`Cluster::advance`].
    pub fn write(&self, write: Write<'_>, quorum: Option<Quorum>, via: Option<NodeId>) -> Result<Outcome, Error> {
        self.finish(self.begin(write, quorum, via)?)
    }

    /// Writes what was written before, elsewhere: as [`Cluster::write`], but it is superseded by any newer decision about
    /// its lifetime.
    ///
    /// # Errors
    /// Those of [`Cluster::write`].
    pub fn write_copy(&self, write: Write<'_>, quorum: Quorum) -> Result<Outcome, Error> {
        let Writing { put, pending, restarts } = self.begin(write, Some(quorum), None)?;
        self.finish(Writing { put: put.as_copy(), pending, restarts })
    }

    fn finish(&self, mut writing: Writing<'_>) -> Result<Outcome, Error> {
        loop {
            if let Progress::Done(outcome) = self.advance(&mut writing, Wait::ForTurn)? {
                return Ok(outcome);
            }
        }
    }

    #[inline]
    fn count_write(&self, put: &Put<'_>, ended: &Result<Outcome, Error>) {
        let first = self.routes.owner(put.partition(), 0).map_or(0, |owner| owner.node);
        match ended {
            Ok(outcome) => {
                self.counters.wrote(first, put.version().kind() == Kind::Put, outcome.newest);
                if outcome.newest {
                    self.sample_write(put.write());
                }
            }
            // A node found it too large, beside what it has to remember.
            Err(error @ Error::ValueTooLarge { .. }) => self.tell_refused(put.write().key, error),
            Err(_) => self.counters.unanswered(first),
        }
    }
}
