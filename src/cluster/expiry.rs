//! ```text
//!   put, ttl  ->  a lifetime: when it ends  ->  part of the version
//!   touch     ->  read the value  ->  write it again, with another lifetime
//!   a round   ->  each node gives back what has ended
//! ```
//! How long entries live. No node looks at a clock: it is told the time with messages. In a cache in which nothing ends
//! calls look at no clock either: the background tells what time it is, ten times a second or more.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Cluster;
use crate::entry::Key;
use crate::error::Error;
use crate::lifetime::{Lifetime, Ttl};
use crate::message::{Address, Known, Lent, Request, Write};
use crate::runtime::{Runtime, Wait};
use crate::version::Version;

/// A touch that meets newer and newer writes reads again so often before it gives up.
const TOUCHES_MAX: u32 = 40;

impl<R: Runtime> Cluster<R> {
    /// The lifetime of a write that is made now.
    #[inline]
    pub fn lifetime(&self, ttl: Ttl) -> Lifetime {
        match ttl {
            Ttl::OfCache if self.config.ttl().is_none() => Lifetime::NONE,
            Ttl::OfCache => Lifetime::new(self.runtime.now_ms(), self.config.ttl()),
            Ttl::Forever => Lifetime::NONE,
            Ttl::For(ttl) => Lifetime::new(self.runtime.now_ms(), Some(ttl)),
        }
    }

    /// Whether it is over by now.
    pub(super) fn has_ended(&self, lifetime: Lifetime) -> bool {
        lifetime.ends() && lifetime.has_ended(self.runtime.now_ms())
    }

    /// A write begins: nodes are to know the time, from the first on that ends.
    #[inline]
    pub(super) fn tell_time_of(&self, write: &Write<'_>) {
        let ends = write.version.lifetime.ends();
        if ends || self.has_ends.load(Ordering::Relaxed) {
            // Written once: many threads read it all the time.
            if !self.has_ends.load(Ordering::Relaxed) {
                self.has_ends.store(true, Ordering::Relaxed);
            }
            self.tell_time();
        } else {
            self.tell_time_without_beat();
        }
    }

    /// A call begins: nodes are to know the time, if nothing in the background tells it.
    #[inline]
    pub(super) fn tell_time_without_beat(&self) {
        if self.has_no_beat.load(Ordering::Relaxed) {
            self.tell_time();
        }
    }

    #[cold]
    pub(super) fn tell_time(&self) {
        self.runtime.tell_time(self.runtime.now_ms());
    }

    /// Has a node give back what has ended, if anything can have.
    pub(super) fn reclaim(&self, node: Address) {
        if self.has_ends.load(Ordering::Relaxed) {
            self.tell_time();
            // A node that went down this moment has nothing to give back.
            let _ = self.ask(node, &Request::Reclaim);
        }
    }

    /// How long the value of a key goes on living; `Some(None)` for ever, and `None` for a miss. Not a use.
    ///
    /// # Errors
    /// [`Error::Quorum`] and [`Error::Closed`].
    pub fn time_left(&self, key: Key<'_>) -> Result<Option<Option<Duration>>, Error> {
        let version = self.newest(key, &mut |_| ())?;
        let left = |version: Version| version.lifetime.left(self.runtime.now_ms());
        // It may have ended since it was read: then it goes on for no time at all.
        Ok(version.map(left))
    }

    /// Gives the value of a key another lifetime that begins now; nothing else of it changes. It is a write like any other,
    /// of the same value and timestamp. True if the key was found and has this lifetime now; false for a miss, or if newer
    /// and newer writes came meanwhile.
    ///
    /// # Errors
    /// Those of a read and of a write.
    pub fn touch(&self, key: Key<'_>, ttl: Ttl) -> Result<bool, Error> {
        for _ in 0..TOUCHES_MAX {
            let mut kept = None;
            let keep = &mut |lent: Lent<'_>| {
                kept = Some(lent.keep());
            };
            let (Some(version), Some(kept)) = (self.newest(key, keep)?, kept) else { return Ok(false) };
            let Some(lifetime) = self.lifetime(ttl).after(version.lifetime) else { return Ok(false) };
            let version = version.living(lifetime);
            if self.write(Write { key, version, value: Some(kept.value()) }, None, None)?.newest {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The newest version of a key that is live; its value was lent to `take`, the last time it was called.
    fn newest(&self, key: Key<'_>, take: &mut dyn FnMut(Lent<'_>)) -> Result<Option<Version>, Error> {
        let mut newest = None;
        let answer = self.read(key, false, None, Wait::ForTurn, &mut |read, lent| {
            if let Known::Live(version) = read.known {
                newest = Some(version);
            }
            take(lent);
        });
        Ok(answer.found()?.and(newest))
    }
}
