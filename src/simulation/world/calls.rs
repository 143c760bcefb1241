//! ```text
//!   a put, get, remove, touch or exchange  ->  its next message  ->  network  ->  node  ->  network  ->  its next message
//!                                                   |  lost: a timeout
//! ```
//! What clients and nodes do in a simulated cluster: each call, message by message.

use std::borrow::Cow;
use std::time::Duration;

use super::{Event, World, observe};
use crate::cluster::exchange::Exchange;
use crate::cluster::get::{Answer, Get};
use crate::cluster::{Cluster, Turn, Writing};
use crate::entry::{Key, Value};
use crate::ids::NodeId;
use crate::lifetime::Lifetime;
use crate::message::{Address, Known, Lent, Read, Reply, Request, Write, Written};
use crate::runtime::embedded::Embedded;
use crate::runtime::{Runtime, Unreached, Wait};
use crate::simulation::oracle::{Cause, KeyNumber, Where};
use crate::version::{Timestamp, Version};

/// A caller gives up on a message after so long, in microseconds of virtual time.
const TIMEOUT_US: u64 = 500_000;
/// It is not known how long a change of the membership takes; a call that met one tries again after so long.
const PAUSE_US: u64 = 1_000;

/// What a client does.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'w> {
    /// A put.
    Put {
        /// The key.
        key: &'w [u8],
        /// The value.
        value: &'w [u8],
        /// The user's time.
        timestamp: u64,
        /// How long it lives; `None` for ever.
        ttl: Option<Duration>,
    },
    /// Another lifetime for what is found, from then on.
    Touch {
        /// The key.
        key: &'w [u8],
        /// How long it lives; `None` for ever.
        ttl: Option<Duration>,
    },
    /// A remove.
    Remove {
        /// The key.
        key: &'w [u8],
        /// The user's time.
        timestamp: u64,
    },
    /// A get.
    Get {
        /// The key.
        key: &'w [u8],
    },
}

/// What travels to a node.
#[derive(Clone)]
pub(super) enum Carried<'w> {
    Request(Request<'w>),
    Read(Key<'w>),
}

/// What comes back.
#[derive(Clone)]
pub(super) enum Answered {
    Reply(Result<Reply, Unreached>),
    /// What the owner knows, and whether the value was one that was put so.
    Read(Read, bool),
    Nothing,
}

/// A call or an exchange on its way.
pub(super) struct Call<'w> {
    home: NodeId,
    pub(super) turn: u32,
    kind: Kind<'w>,
}

/// What it is.
enum Kind<'w> {
    Write {
        writing: Writing<'w>,
        key: Key<'w>,
        version: Version,
        promised: Option<Version>,
    },
    Read {
        get: Get,
        key: Key<'w>,
        best: Option<Best>,
        heard: Vec<Read>,
        promised: Option<Version>,
        /// What is found gets another lifetime.
        touch: Option<Option<Duration>>,
    },
    Exchange(Exchange),
}

/// The answer that a read has so far.
struct Best {
    version: Version,
    /// The value was one that was put so.
    is_right: bool,
    heard_us: u64,
}

impl<'w> World<'w> {
    /// A client begins something.
    pub(super) fn start(&mut self, home: NodeId, operation: Operation<'w>) {
        if self.is_quiet {
            return;
        }
        self.be_beside(home);
        let (key, touch, write) = match operation {
            Operation::Get { key } => (key, None, None),
            Operation::Touch { key, ttl } => (key, Some(ttl), None),
            Operation::Remove { key, timestamp } => (key, None, Some((timestamp, None, None))),
            Operation::Put { key, value, timestamp, ttl } => (key, None, Some((timestamp, Some(value), ttl))),
        };
        let Ok(key) = Key::new(key) else { return };
        let number = self.oracle.number(key.bytes());
        let Some((timestamp, value, ttl)) = write else {
            self.counts.reads += 1;
            let get = self.cluster.begin_read(key, None);
            let promised = self.oracle.promised(number);
            return self.begin(home, Kind::Read { get, key, best: None, heard: Vec::new(), promised, touch });
        };
        let Some(timestamp) = Timestamp::new(timestamp) else { return };
        let write = match value.map(Value::new) {
            None => Write::remove(key, timestamp),
            Some(Ok(value)) => {
                self.values.insert(value.digest(), value);
                let lifetime = ttl.map_or(Lifetime::NONE, |ttl| Lifetime::new(self.clock_ms(home), Some(ttl)));
                Write::put_living(key, timestamp, value, lifetime)
            }
            Some(Err(_)) => return,
        };
        self.counts.writes += 1;
        self.write(home, number, write, ttl);
    }

    /// A client begins to write, with a value that ends after so long.
    fn write(&mut self, home: NodeId, number: KeyNumber, write: Write<'w>, ttl: Option<Duration>) {
        let key = write.key;
        match self.cluster.begin(write, None, None) {
            Ok(writing) => {
                let ends_us = ttl.map(|ttl| self.network.now_us() + ttl.as_micros() as u64);
                self.oracle.issue(number, write.version, ends_us);
                let promised = self.oracle.promised(number);
                self.begin(home, Kind::Write { writing, key, version: write.version, promised });
            }
            Err(_) => self.counts.refused += 1,
        }
    }

    fn begin(&mut self, home: NodeId, kind: Kind<'w>) {
        self.calls.push(Some(Box::new(Call { home, turn: 0, kind })));
        self.advance(self.calls.len() - 1);
    }

    /// A node's turn to gossip, and the next one after it.
    pub(super) fn beat(&mut self, node: NodeId) {
        if self.is_quiet {
            return;
        }
        let wait = self.gossip_us * 3 / 4 + self.network.chance.below(self.gossip_us / 2);
        self.network.after(wait, Event::Beat { node });
        self.gossip(node);
        if node == 0 {
            let before = self.cluster.view().epoch();
            self.release_handed_over();
            self.counts.outgrown += u64::from(self.cluster.mind_outgrown());
            if self.cluster.view().epoch() != before {
                self.observe_all();
            }
        }
    }

    pub(super) fn gossip(&mut self, node: NodeId) {
        let round = self.rounds[usize::from(node)];
        self.rounds[usize::from(node)] += 1;
        self.be_beside(node);
        if self.cluster.runtime().life(node).is_some() && self.cluster.view().live().contains(node) {
            let exchanges = self.cluster.exchanges_of(node, round);
            // What had ended has given back its space.
            self.observe(node, Cause::Repair, &Where::Only(Vec::new()));
            for exchange in exchanges {
                let exchange = match self.chunk_bytes {
                    Some(bytes) => exchange.in_chunks_of(bytes),
                    None => exchange,
                };
                self.begin(node, Kind::Exchange(exchange));
            }
        }
    }

    /// Lets a call send what it wants to send next, or ends it.
    pub(super) fn advance(&mut self, number: usize) {
        let Some(mut call) = self.calls[number].take() else { return };
        call.turn += 1;
        let (home, turn) = (call.home, call.turn);
        // An exchange's home is who asks.
        self.be_beside(home);
        let (to, source, request) = match &mut call.kind {
            Kind::Write { writing, key, version, promised } => match self.cluster.turn(writing) {
                Ok(Turn::Send(to, request)) => {
                    let source = if let Request::Update { from, .. } = &request { from.node } else { home };
                    (to, source, Carried::Request(request))
                }
                Ok(Turn::Pause(_)) => {
                    self.calls[number] = Some(call);
                    return self.network.after(PAUSE_US, Event::Resume { call: number });
                }
                Ok(Turn::Done(outcome)) => {
                    if outcome.newest {
                        let key = self.oracle.number(key.bytes());
                        self.oracle.keeps_promise(key, *promised, Some(*version), false);
                        let view = self.cluster.view();
                        let live = view.live();
                        self.oracle.acknowledge(key, *version, live.iter().map(|node| view.address(node)));
                        let owners = view.owners(self.oracle.partition(key, view.partitions()));
                        let (mut seen, mut all_there) = (0, true);
                        for &owner in owners {
                            let oracle = &self.oracle;
                            let look = &mut |node: &mut crate::node::Node| {
                                seen += u8::from(oracle.has_seen(key, *version, node));
                            };
                            all_there &= self.cluster.runtime().look(view.address(owner), look).is_ok();
                        }
                        // One that crashed a moment ago, unnoticed, has seen it.
                        if all_there && seen < outcome.reached {
                            self.oracle.fail("I9", || {
                                format!("{outcome:?} for {version:?} of key {key}, which {seen} owners have seen")
                            });
                        }
                    }
                    return;
                }
                Err(_) => {
                    self.counts.refused += 1;
                    return;
                }
            },
            Kind::Read { get, key, best, heard, promised, touch } => match get.next(self.cluster.routes()) {
                Some(owner) => (owner, home, Carried::Read(*key)),
                None => match get.answer(self.cluster.routes()) {
                    Some(answer) => {
                        let found = best.as_ref().filter(|_| matches!(answer, Answer::Hit(_))).map(|best| best.version);
                        let number = self.oracle.number(key.bytes());
                        self.oracle.keeps_promise(number, *promised, found, true);
                        if let (Answer::Hit(_), &mut Some(Best { version, is_right, heard_us })) = (answer, best) {
                            self.counts.hits += 1;
                            self.oracle.read(number, version, is_right, heard_us);
                            self.oracle.read_heard(number, version, heard);
                            if let Some(ttl) = *touch {
                                self.touch(home, number, *key, version, ttl);
                            }
                        }
                        return;
                    }
                    None => {
                        *best = None;
                        heard.clear();
                        self.calls[number] = Some(call);
                        return self.network.after(PAUSE_US, Event::Resume { call: number });
                    }
                },
            },
            Kind::Exchange(exchange) => {
                let asker = exchange.asker();
                loop {
                    let Some((to, request)) = exchange.next() else {
                        let moved = exchange.moved();
                        self.moved = (self.moved.0 + moved.items, self.moved.1 + moved.bytes);
                        return;
                    };
                    if to != asker {
                        break (to, asker.node, Carried::Request(owned(request)));
                    }
                    // What a node asks itself needs no network.
                    let place = if self.is_large { changed_by(&request, &self.cluster) } else { Where::All };
                    let reply = self.cluster.runtime().carry(to, &request, Wait::ForTurn);
                    exchange.reply(reply);
                    observe(&mut self.oracle, &self.cluster, asker.node, Cause::Repair, &place);
                }
            }
        };
        self.calls[number] = Some(call);
        let event = || Event::Request { call: number, turn, home: source, to, request: request.clone() };
        self.network.send(source, to.node, event);
        self.network.after(TIMEOUT_US, Event::Timeout { call: number, turn });
    }

    /// A value was found that is to have another lifetime.
    fn touch(&mut self, home: NodeId, number: KeyNumber, key: Key<'w>, found: Version, ttl: Option<Duration>) {
        self.be_beside(home);
        let Some(&value) = self.values.get(&found.digest) else { return };
        let Some(lifetime) = Lifetime::new(self.clock_ms(home), ttl).after(found.lifetime) else { return };
        self.write(home, number, Write { key, version: found.living(lifetime), value: Some(value) }, ttl);
    }

    /// A message arrives at a node, or where one was.
    pub(super) fn arrive(&mut self, call: usize, turn: u32, home: NodeId, to: Address, request: Carried<'w>) -> u64 {
        let node = to.node;
        let Some(life) = self.cluster.runtime().life(node) else { return 8 << 32 };
        self.be_beside(node);
        let reply = match &request {
            Carried::Read(key) => {
                let mut is_right = true;
                let read = self.cluster.runtime().read(to, *key, true, Wait::ForTurn, &mut |read, lent| {
                    let Known::Live(version) = read.known else { return };
                    is_right = match lent {
                        Lent::Now(value) => value.digest() == version.digest,
                        Lent::Share(share) => share.value().digest() == version.digest,
                    };
                });
                read.map_or(Answered::Reply(Err(Unreached::Down)), |read| Answered::Read(read, is_right))
            }
            Carried::Request(request) => {
                let place = if self.is_large { changed_by(request, &self.cluster) } else { Where::All };
                if self.is_large && matches!(request, Request::Write { .. }) {
                    // What the write is held against.
                    self.observe(node, Cause::Repair, &place);
                }
                let reply = self.cluster.runtime().carry(to, request, Wait::ForTurn);
                let is_write = matches!(request, Request::Write { .. } | Request::Update { .. });
                if let (Request::Write { write, force, .. }, Ok(Reply::Written(Written::Accepted { dot, .. }))) =
                    (request, &reply)
                {
                    let key = self.oracle.number(write.key.bytes());
                    let oracle = &mut self.oracle;
                    // It has just answered.
                    let _ = self.cluster.runtime().look(to, &mut |node| {
                        oracle.accepted(key, write.version, *dot, node);
                        let partition = oracle.partition(key, node.partitions_in_all());
                        if !force && node.clock(partition).is_none_or(|(_, synced)| !synced) {
                            oracle.fail("I5", || format!("{to:?} is not synced, and accepted a write unforced"));
                        }
                    });
                }
                if let (Request::Write { write, .. }, Ok(Reply::Written(Written::Superseded))) = (request, &reply) {
                    let number = self.oracle.number(write.key.bytes());
                    let by = self.cluster.runtime().read(to, write.key, false, Wait::ForTurn, &mut |_, _| {});
                    self.oracle.superseded(number, write.version, by.ok().and_then(|read| read.known.version()));
                }
                self.observe(node, if is_write { Cause::Write } else { Cause::Repair }, &place);
                Answered::Reply(reply)
            }
        };
        self.network.send(node, home, || Event::Reply { call, turn, from: to, reply: reply.clone() });
        let prints = life.0;
        9 << 32 ^ prints << 8 ^ u64::from(node)
    }

    /// A reply arrives, or none in time. One that comes too late, or twice, is nobody's.
    pub(super) fn reply(&mut self, number: usize, turn: u32, from: Address, answered: Answered) {
        let now_us = self.network.now_us();
        let home = self.calls[number].as_ref().map_or(0, |call| call.home);
        let clock_ms = self.clock_ms(home);
        let Some(call) = self.calls[number].as_mut().filter(|call| call.turn == turn) else { return };
        let ended = match (&mut call.kind, answered) {
            (Kind::Write { writing, key, version, .. }, Answered::Reply(reply)) => {
                let ended = writing.reply(from, reply).is_err();
                if writing.version() != *version {
                    let number = self.oracle.number(key.bytes());
                    self.oracle.issue_again(number, *version, writing.version());
                    *version = writing.version();
                }
                ended
            }
            (Kind::Write { writing, .. }, _) => writing.reply(from, Err(Unreached::Silent)).is_err(),
            (Kind::Exchange(exchange), Answered::Reply(reply)) => {
                exchange.reply(reply);
                false
            }
            (Kind::Exchange(exchange), _) => {
                exchange.reply(Err(Unreached::Silent));
                false
            }
            (Kind::Read { get, best, heard, .. }, Answered::Read(read, is_right)) => {
                // As the owner said it: what it comes to by now is for the cluster's code to say.
                heard.push(read);
                let read = read.at(clock_ms);
                if let Known::Live(version) = read.known
                    && get.improves(read)
                {
                    *best = Some(Best { version, is_right, heard_us: now_us });
                }
                get.hear(from.node, read);
                false
            }
            (Kind::Read { .. }, _) => false,
        };
        if ended {
            self.calls[number] = None;
            self.counts.refused += 1;
            return;
        }
        self.advance(number);
    }
}

/// Where a request may change what a node knows of keys.
fn changed_by(request: &Request<'_>, cluster: &Cluster<Embedded>) -> Where {
    let of_key = |key: Key<'_>| key.hash().partition(cluster.view().partitions());
    match request {
        Request::Write { write, .. } => Where::Only(vec![of_key(write.key)]),
        Request::Update { item, .. } => Where::Only(vec![of_key(item.key)]),
        Request::Apply { partition, .. } | Request::Settle { partition, .. } => Where::Only(vec![*partition]),
        Request::Fix { items } => {
            let mut partitions: Vec<_> = items.iter().map(|item| of_key(item.key)).collect();
            partitions.sort_unstable();
            partitions.dedup();
            Where::Only(partitions)
        }
        Request::Mend { partition, .. } => Where::Only(vec![*partition]),
        Request::Audit { listing } => Where::Only(vec![listing.partition]),
        // Who owns what.
        Request::Meet { .. } | Request::Hold { .. } | Request::Release { .. } => Where::All,
        // Clocks, and which entries were used.
        _ => Where::Only(Vec::new()),
    }
}

/// What an exchange sends, owned, because it travels.
fn owned<'w>(request: Request<'_>) -> Request<'w> {
    match request {
        Request::Compare { from, partitions, fingerprint, epoch } => {
            Request::Compare { from, partitions: Cow::Owned(partitions.into_owned()), fingerprint, epoch }
        }
        Request::Pull { from, partition, ticket, clock, epoch, after, chunk_bytes } => {
            let clock = Cow::Owned(clock.into_owned());
            Request::Pull { from, partition, ticket, clock, epoch, after, chunk_bytes }
        }
        Request::Fix { items } => Request::Fix { items: Cow::Owned(items.into_owned()) },
        Request::Begin { partition } => Request::Begin { partition },
        Request::Apply { partition, delta } => Request::Apply { partition, delta: Cow::Owned(delta.into_owned()) },
        Request::Touch { used } => Request::Touch { used: Cow::Owned(used.into_owned()) },
        Request::Audit { listing } => Request::Audit { listing: Cow::Owned(listing.into_owned()) },
        Request::CompareBriefs { from, briefs } => {
            Request::CompareBriefs { from, briefs: Cow::Owned(briefs.into_owned()) }
        }
        other => unreachable!("{other:?} is not what one node sends another in an exchange"),
    }
}
