//! ```text
//!   start --Look-----> asker        what it has seen, partition by partition
//!         --Touch----> answerer     what was read at the asker lately, if anything was
//!         --Compare--> answerer     16 bytes each way when both have seen the same   --Agreed--> asker, done
//!         for each partition that differs, first one way, then the other:
//!         --Begin----> puller       a ticket and its clock
//!         --Pull-----> other        a chunk of what the puller has not seen
//!         --Apply----> puller       takes it in; then the next chunk
//!         at the end, if it is to audit:
//!         --Brief----> asker        what is due: what it has seen and holds, as one number each
//!         --CompareBriefs--> answerer   the same?  if not, part by part:
//!         --List-----> asker        what it holds: names of keys and versions
//!         --Audit----> answerer     holds something newer, or older?   --Mend--> asker
//!         --Audited--> asker        so far it was audited
//! ```
//! Two nodes comparing notes, as a conversation: it says what to send next and takes what comes back. Whoever drives it
//! decides how messages travel.
//!
//! Promise: each step stands alone. When a message is lost or a node goes down the exchange ends, nothing is left half
//! done, and the next round begins anew.

use crate::clock::Clock;
use crate::gossip::Topics;
use crate::ids::PartitionId;
use crate::message::{Address, Begun, Brief, Compared, Delta, Listing, Older, Reply, Request, Used};
use crate::runtime::Unreached;
use crate::stats::SyncReport;
use std::borrow::Cow;

/// The items of one answer to a pull end after about so many bytes: a node is held no longer than copying them takes.
const CHUNK_BYTES: usize = 256 * 1024;

/// After so many keys were listed for an audit, what else is due waits for the next round.
const LISTED_MAX: usize = 256 * 1024;

/// One node comparing notes with another.
pub struct Exchange {
    asker: Address,
    answerer: Address,
    /// What the answerer is to pull when the asker has pulled all.
    back: Vec<PartitionId>,
    /// Who pulls now.
    puller: Address,
    shared: Vec<PartitionId>,
    topics: Topics,
    used: Vec<(PartitionId, Used)>,
    stage: Stage,
    /// The last change of the membership that the asker knew of when it looked, and its partner when it compared.
    epochs: (u64, u64),
    /// An audit is part of it.
    audits: bool,
    chunk_bytes: usize,
    pull: Option<Pull>,
    audit: Audits,
    moved: SyncReport,
}

#[derive(Debug)]
enum Stage {
    Look,
    Touch,
    Compare,
    Agreed,
    Begin(PartitionId),
    Pull,
    Apply(Box<Delta>),
    Brief(PartitionId),
    CompareBriefs(Vec<Brief>),
    List,
    Audit(Box<Listing>),
    Mend(Older),
    Audited,
    Done,
}

/// How far an audit has come.
#[derive(Debug, Default)]
struct Audits {
    /// Where both do not hold the same: to be listed, the last one first, from this part on.
    differ: Vec<Brief>,
    part: u32,
    is_last_part: bool,
    /// What was listed of it so far could be mended.
    mended: bool,
    /// What is done.
    done: Vec<(PartitionId, u64)>,
    /// The partition to go on with.
    next: Option<PartitionId>,
    /// So many keys were listed.
    listed: usize,
}

/// A pull of one partition on its way.
struct Pull {
    id: PartitionId,
    begun: Begun,
    after: Option<u64>,
    /// What the answerer had seen at the first chunk, and whether it was synced. What arrived there between two chunks may
    /// lie before the place where the next one begins: only this is known to be complete at the last.
    seen_at_first: Option<(Clock, Clock, u64, bool)>,
}

impl Exchange {
    /// Begins one about the partitions that both hold.
    pub fn new(asker: Address, answerer: Address, shared: &[PartitionId]) -> Self {
        Self {
            asker,
            answerer,
            back: Vec::new(),
            puller: asker,
            shared: shared.to_vec(),
            topics: Topics::default(),
            used: Vec::new(),
            stage: Stage::Look,
            epochs: (0, 0),
            audits: false,
            chunk_bytes: CHUNK_BYTES,
            pull: None,
            audit: Audits::default(),
            moved: SyncReport::default(),
        }
    }

    /// With an audit at the end, if all goes well.
    pub const fn with_audit(mut self) -> Self {
        self.audits = true;
        self
    }

    /// With chunks of so many bytes instead of 256 KiB.
    pub const fn in_chunks_of(mut self, bytes: usize) -> Self {
        self.chunk_bytes = bytes;
        self
    }

    /// Who asks.
    pub const fn asker(&self) -> Address {
        self.asker
    }

    /// What was moved so far.
    pub const fn moved(&self) -> SyncReport {
        self.moved
    }

    /// What to send next; `None` when it is over.
    #[expect(clippy::should_implement_trait, reason = "what is sent borrows from the conversation")]
    pub fn next(&mut self) -> Option<(Address, Request<'_>)> {
        let other = if self.puller == self.asker { self.answerer } else { self.asker };
        Some(match &self.stage {
            Stage::Look => (self.asker, Request::Look { partitions: Cow::Borrowed(&self.shared) }),
            Stage::Touch => (self.answerer, Request::Touch { used: Cow::Borrowed(&self.used) }),
            Stage::Compare => {
                self.moved.bytes += 32;
                let (from, epoch) = (self.asker, self.epochs.0);
                let fingerprint = self.topics.fingerprint();
                let partitions = Cow::Borrowed(&self.topics.compare[..]);
                (self.answerer, Request::Compare { from, partitions, fingerprint, epoch })
            }
            Stage::Agreed => {
                let (with, epoch) = (self.answerer, self.epochs.1);
                let prints = self.topics.prints(&self.topics.agreed);
                let partitions = Cow::Borrowed(&self.topics.agreed[..]);
                (self.asker, Request::Agreed { with, partitions, prints, epoch })
            }
            Stage::Begin(partition) => (self.puller, Request::Begin { partition: *partition }),
            Stage::Pull => {
                let Pull { id: partition, begun: Begun { ticket, clock, epoch }, after, .. } = self.pull.as_ref()?;
                self.moved.bytes += clock.message_bytes() as u64;
                let clock = Cow::Borrowed(clock);
                let (from, partition, ticket, epoch, after) = (self.puller, *partition, *ticket, *epoch, *after);
                let chunk_bytes = self.chunk_bytes;
                (other, Request::Pull { from, partition, ticket, clock, epoch, after, chunk_bytes })
            }
            Stage::Apply(delta) => {
                (self.puller, Request::Apply { partition: self.pull.as_ref()?.id, delta: Cow::Borrowed(delta) })
            }
            Stage::Brief(from) => {
                let first = self.shared.iter().position(|id| id == from).unwrap_or_default();
                let partitions = Cow::Borrowed(&self.shared[first..]);
                (self.asker, Request::Brief { with: self.answerer.node, partitions })
            }
            Stage::CompareBriefs(briefs) => {
                self.moved.bytes += (Brief::MESSAGE_BYTES * briefs.len()) as u64;
                (self.answerer, Request::CompareBriefs { from: self.asker.node, briefs: Cow::Borrowed(briefs) })
            }
            Stage::List => {
                let partition = self.audit.differ.last()?.partition;
                (self.asker, Request::List { partition, part: self.audit.part })
            }
            Stage::Audit(listing) => {
                self.moved.bytes += listing.message_bytes() as u64;
                (self.answerer, Request::Audit { listing: Cow::Borrowed(listing) })
            }
            Stage::Mend(older) => {
                self.moved.bytes += (older.clock.message_bytes() + 16 * older.keys.len()) as u64;
                let partition = self.audit.differ.last()?.partition;
                (self.asker, Request::Mend { partition, older: Cow::Borrowed(older) })
            }
            Stage::Audited => {
                (self.asker, Request::Audited { with: self.answerer.node, done: Cow::Borrowed(&self.audit.done) })
            }
            Stage::Done => return None,
        })
    }

    /// What came back, or why nothing did.
    pub fn reply(&mut self, reply: Result<Reply, Unreached>) {
        let stage = std::mem::replace(&mut self.stage, Stage::Done);
        self.stage = match (stage, reply) {
            (Stage::Look, Ok(Reply::Looked { clocks, used, epoch })) => {
                self.epochs.0 = epoch;
                self.topics = Topics::new(&self.shared, clocks);
                self.moved.bytes += (used.len() * (2 + 8 * Used::MAX)) as u64;
                self.used = used;
                if self.used.is_empty() { Stage::Compare } else { Stage::Touch }
            }
            (Stage::Touch, Ok(_)) => Stage::Compare,
            (Stage::Compare, Ok(Reply::Compared { prints, epoch })) => {
                self.epochs.1 = epoch;
                match prints {
                    None => self.topics.agree(),
                    Some(theirs) => {
                        self.moved.bytes += 8 * theirs.len() as u64;
                        self.topics.differ(&theirs);
                        self.back = self.topics.pull.clone();
                    }
                }
                if self.topics.agreed.is_empty() { self.next_pull() } else { Stage::Agreed }
            }
            (Stage::Agreed, Ok(_)) => self.next_pull(),
            (Stage::Begin(id), Ok(Reply::Begun(Some(begun)))) => {
                self.pull = Some(Pull { id, begun, after: None, seen_at_first: None });
                Stage::Pull
            }
            (Stage::Begin(_), Ok(Reply::Begun(None))) => self.next_pull(),
            (Stage::Pull, Ok(Reply::Delta(delta))) => self.answered(delta),
            (Stage::Apply(delta), Ok(Reply::Applied(true))) => self.go_on(&delta),
            // An answer that was overtaken is asked for again in the next round.
            (Stage::Apply(_), Ok(Reply::Applied(false))) => self.next_pull(),
            (Stage::Brief(_), Ok(Reply::Briefs(Some((briefs, next))))) => {
                self.audit.next = next;
                Stage::CompareBriefs(briefs)
            }
            (Stage::CompareBriefs(briefs), Ok(Reply::BriefsCompared(answers))) => {
                for (brief, answer) in briefs.into_iter().zip(answers) {
                    match answer {
                        Compared::Same => self.audit.done.push((brief.partition, brief.due)),
                        Compared::Differ => self.audit.differ.push(brief),
                        Compared::NotNow => {}
                    }
                }
                self.next_listing()
            }
            (Stage::List, Ok(Reply::Listed(Some(listing)))) => {
                self.audit.listed += listing.held.len();
                self.audit.is_last_part = listing.is_last;
                Stage::Audit(listing)
            }
            (Stage::Audit(_), Ok(Reply::Older(older))) if older.keys.is_empty() => self.listed(!older.again),
            (Stage::Audit(_), Ok(Reply::Older(older))) => Stage::Mend(older),
            (Stage::Mend(_), Ok(Reply::Mended(mended))) => self.listed(mended),
            (Stage::Audited, Ok(_)) => {
                self.audit.done.clear();
                match self.audit.next.take().filter(|_| self.audit.listed < LISTED_MAX) {
                    Some(next) => Stage::Brief(next),
                    None => Stage::Done,
                }
            }
            _ => Stage::Done,
        };
    }

    fn answered(&mut self, mut delta: Box<Delta>) -> Stage {
        self.moved.items += delta.items.len() as u64;
        self.moved.bytes +=
            (delta.items.message_bytes() + delta.clock.message_bytes() + delta.stable.message_bytes()) as u64;
        let Some(pull) = &mut self.pull else { return Stage::Done };
        // Who has seen all that the puller has need not pull back.
        if self.puller == self.asker && delta.next.is_none() && delta.clock.covers(&pull.begun.clock) {
            self.back.retain(|&id| id != pull.id);
        }
        let seen = (std::mem::take(&mut delta.clock), std::mem::take(&mut delta.stable), delta.epoch, delta.synced);
        (delta.clock, delta.stable, delta.epoch, delta.synced) = pull.seen_at_first.get_or_insert(seen).clone();
        Stage::Apply(delta)
    }

    /// The next chunk, or the next partition.
    fn go_on(&mut self, delta: &Delta) -> Stage {
        match (delta.next, &mut self.pull) {
            (Some(next), Some(pull)) => {
                pull.after = Some(next);
                Stage::Pull
            }
            _ => self.next_pull(),
        }
    }

    fn next_pull(&mut self) -> Stage {
        self.pull = None;
        if self.topics.pull.is_empty() && self.puller == self.asker && !self.back.is_empty() {
            self.puller = self.answerer;
            self.topics.pull = std::mem::take(&mut self.back);
        }
        match self.topics.pull.pop() {
            Some(id) => Stage::Begin(id),
            None if std::mem::take(&mut self.audits) => {
                self.shared.first().map_or(Stage::Done, |&first| Stage::Brief(first))
            }
            None => Stage::Done,
        }
    }

    /// The next partition to be listed; when there is none, the asker hears how far it came.
    fn next_listing(&mut self) -> Stage {
        (self.audit.part, self.audit.mended) = (0, true);
        if self.audit.differ.is_empty() { Stage::Audited } else { Stage::List }
    }

    /// A part was audited: the next part, or the next partition.
    fn listed(&mut self, mended: bool) -> Stage {
        self.audit.mended &= mended;
        if !self.audit.is_last_part {
            self.audit.part += 1;
            return Stage::List;
        }
        if let Some(brief) = self.audit.differ.pop().filter(|_| self.audit.mended) {
            self.audit.done.push((brief.partition, brief.due));
        }
        self.next_listing()
    }
}
