//! ```text
//!   bytes  ->  write | tell | settle | a step of an exchange | an old letter again | hold | meet | release | restart | time
//!                 |       |      |            |                      |                                              |
//!                 v       v      v            v                      v                                              v
//!              node 0   node 1   node 2      after every message: check(), and what a node promises whatever it hears
//! ```
//! Any bytes are a story that happens to two or three small nodes: what is on its way arrives late, twice, elsewhere or
//! never, and nodes are held together with others. Driven by proptest here, and by the fuzzer in `fuzz/`.
//!
//! Promise: the same bytes are the same story. Every message is one that a node could send; only its way is bad. What
//! the nodes agree upon in the end is not looked at here: that is the simulator's.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use distributed_consistent_cache::Error;
use distributed_consistent_cache::clock::{Clock, Dot, Incarnation};
use distributed_consistent_cache::cluster::exchange::Exchange;
use distributed_consistent_cache::entry::{Held, Item, Items, Key, Value};
use distributed_consistent_cache::hash::KeyPrint;
use distributed_consistent_cache::ids::{NodeId, PartitionId};
use distributed_consistent_cache::lifetime::Lifetime;
use distributed_consistent_cache::message::{
    Address, Delta, Known, Lent, Listing, Older, Reply, Request, Used, Write, Written,
};
use distributed_consistent_cache::node::Node;
use distributed_consistent_cache::node_set::NodeSet;
use distributed_consistent_cache::runtime::Unreached;
use distributed_consistent_cache::version::{Timestamp, Version};

/// As many partitions as a cache of three nodes of 16 to 64 KiB is cut into.
const PARTITIONS_MAX: u16 = 12;

/// So many letters are remembered, and so many writes and exchanges are on their way; of more, the oldest are lost.
const KEPT_MAX: usize = 24;

/// Nodes of which one hears, and which say nothing, are numbered from here.
const SILENT_FROM: NodeId = 3;
const SILENT: u8 = 3;

/// Lives the story that these bytes are, and fails when a node breaks a promise.
pub(crate) fn run(bytes: &[u8]) {
    let mut story = Story::new(Bytes(bytes));
    while let Some(operation) = story.bytes.next() {
        story.live(operation);
    }
}

/// What is left to be read.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    /// The next byte; 0 when there is none.
    fn byte(&mut self) -> u8 {
        self.next().unwrap_or_default()
    }

    /// A number from 0 to below `end`.
    fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }
}

/// A write that a coordinator accepted.
struct Accepted {
    coordinator: Address,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    version: Version,
    dot: Dot,
    stable_upto: u64,
    used: Used,
    epoch: u64,
    seen_by: NodeSet,
}

/// A message that can arrive again.
#[derive(Clone)]
enum Letter {
    Pull {
        from: Address,
        partition: PartitionId,
        ticket: u64,
        clock: Clock,
        epoch: u64,
        after: Option<u64>,
        chunk_bytes: usize,
    },
    Apply {
        partition: PartitionId,
        delta: Box<Delta>,
    },
    Agreed {
        with: Address,
        partitions: Vec<PartitionId>,
        prints: Vec<u64>,
        epoch: u64,
    },
    Audit {
        listing: Listing,
    },
    Mend {
        partition: PartitionId,
        older: Older,
    },
    Audited {
        with: NodeId,
        done: Vec<(PartitionId, u64)>,
    },
    Fix {
        items: Items,
    },
    Release {
        partition: PartitionId,
        clock: Clock,
    },
}

impl Letter {
    /// A copy of what a node is about to be asked, if it can do anything when it comes again.
    fn copy_of(request: &Request<'_>) -> Option<Self> {
        Some(match request {
            Request::Pull { from, partition, ticket, clock, epoch, after, chunk_bytes } => Self::Pull {
                from: *from,
                partition: *partition,
                ticket: *ticket,
                clock: Clock::clone(clock),
                epoch: *epoch,
                after: *after,
                chunk_bytes: *chunk_bytes,
            },
            Request::Apply { partition, delta } => Self::Apply { partition: *partition, delta: Box::clone(delta) },
            Request::Agreed { with, partitions, prints, epoch } => {
                Self::Agreed { with: *with, partitions: partitions.to_vec(), prints: prints.clone(), epoch: *epoch }
            }
            Request::Audit { listing } => Self::Audit { listing: Listing::clone(listing) },
            Request::Mend { partition, older } => Self::Mend { partition: *partition, older: Older::clone(older) },
            Request::Audited { with, done } => Self::Audited { with: *with, done: done.to_vec() },
            _ => return None,
        })
    }

    fn request(&self) -> Request<'_> {
        use std::borrow::Cow::{Borrowed, Owned};
        match self {
            Self::Pull { from, partition, ticket, clock, epoch, after, chunk_bytes } => Request::Pull {
                from: *from,
                partition: *partition,
                ticket: *ticket,
                clock: Borrowed(clock),
                epoch: *epoch,
                after: *after,
                chunk_bytes: *chunk_bytes,
            },
            Self::Apply { partition, delta } => Request::Apply { partition: *partition, delta: Borrowed(delta) },
            Self::Agreed { with, partitions, prints, epoch } => {
                Request::Agreed { with: *with, partitions: Borrowed(partitions), prints: prints.clone(), epoch: *epoch }
            }
            Self::Audit { listing } => Request::Audit { listing: Borrowed(listing) },
            Self::Mend { partition, older } => Request::Mend { partition: *partition, older: Borrowed(older) },
            Self::Audited { with, done } => Request::Audited { with: *with, done: Borrowed(done) },
            Self::Fix { items } => Request::Fix { items: Borrowed(items) },
            Self::Release { partition, clock } => {
                Request::Release { partition: *partition, clock: Owned(clock.clone()) }
            }
        }
    }
}

/// What a node had seen and knew before a message.
struct Before {
    clocks: Vec<(PartitionId, Clock)>,
    versions: HashMap<(PartitionId, KeyPrint), Version>,
}

impl Before {
    fn of(node: &Node) -> Self {
        let clocks: Vec<_> = node.partitions().filter_map(|id| Some((id, node.clock(id)?.0.clone()))).collect();
        let mut versions = HashMap::new();
        for &(id, _) in &clocks {
            node.each(id, |key, known, _| {
                known.rank().0.map(|version| versions.insert((id, key), version));
            });
        }
        Self { clocks, versions }
    }
}

/// Nodes, and all that is on its way between them.
struct Story<'a> {
    bytes: Bytes<'a>,
    nodes: Vec<Node>,
    partitions: u16,
    /// Lives that were begun, and changes of the membership.
    lives: u64,
    epoch: u64,
    /// What time it is; a node that was not told for a while thinks it earlier.
    now_ms: u64,
    /// The present lives of nodes that say nothing.
    silent: Vec<Address>,
    accepted: VecDeque<Accepted>,
    exchanges: VecDeque<Exchange>,
    letters: VecDeque<(Address, Letter)>,
    /// Which write each dot is the name of.
    names: HashMap<(PartitionId, Dot), (KeyPrint, Version)>,
}

impl<'a> Story<'a> {
    fn new(mut bytes: Bytes<'a>) -> Self {
        let count = 2 + bytes.below(2) as NodeId;
        let partitions = 1 + bytes.below(usize::from(PARTITIONS_MAX)) as u16;
        let bytes_max = 1024 * (16 + bytes.below(49) as u64);
        let life = |node| Address { node, incarnation: Incarnation::new(u64::from(node) + 1, node) };
        let mut story = Self {
            bytes,
            nodes: (0..count).map(|node| Node::new(life(node), bytes_max, partitions)).collect(),
            partitions,
            lives: u64::from(SILENT_FROM + SILENT),
            epoch: 0,
            now_ms: 1,
            silent: (SILENT_FROM..SILENT_FROM + SILENT).map(life).collect(),
            accepted: VecDeque::new(),
            exchanges: VecDeque::new(),
            letters: VecDeque::new(),
            names: HashMap::new(),
        };
        for node in 0..usize::from(count) {
            story.hold_all(node, false);
        }
        story
    }

    fn live(&mut self, operation: u8) {
        match operation % 20 {
            0..=5 => self.write(),
            6..=8 => self.tell(),
            9 => self.settle(),
            10 => self.begin_exchange(),
            11..=13 => self.go_on_with_exchange(),
            14 => self.read(),
            15 | 16 => self.deliver_again(),
            17 => self.hold(),
            18 => self.meet(),
            _ => match self.bytes.below(4) {
                0 => self.release(),
                1 => self.restart(),
                2 => self.pass_time(),
                _ => self.share_use(),
            },
        }
    }

    fn a_node(&mut self) -> usize {
        self.bytes.below(self.nodes.len())
    }

    fn a_partition(&mut self) -> PartitionId {
        self.bytes.below(usize::from(self.partitions)) as PartitionId
    }

    /// One of 48 keys; every fourth is long.
    fn a_key(&mut self) -> Vec<u8> {
        let number = self.bytes.below(48);
        format!("key {number}").repeat(if number % 4 == 3 { 40 } else { 1 }).into_bytes()
    }

    /// From nothing to 32 KB; some are a pickle's bytes.
    fn a_value(&mut self) -> Vec<u8> {
        let size = self.bytes.byte();
        let bytes = match usize::from(size) {
            small @ 0..180 => small,
            medium @ 180..240 => (medium - 179) * 60,
            large => (large - 239) * 2000,
        };
        let body = vec![size; bytes];
        if size % 8 == 7 {
            return [&b"\x80\x05\x95"[..], &(bytes as u64).to_le_bytes(), &body].concat();
        }
        body
    }

    /// Few, so that they are often the same; rarely the largest.
    fn a_timestamp(&mut self) -> Timestamp {
        match self.bytes.byte() {
            u8::MAX => Timestamp::MAX,
            small => Timestamp::new(u64::from(small)).expect("small"),
        }
    }

    /// Every other value ends, after up to a quarter of a second; some of these were to end later once.
    fn a_lifetime(&mut self, how: u8) -> Lifetime {
        let ends = |ms: u8| Lifetime::new(self.now_ms, Some(Duration::from_millis(u64::from(ms) + 1)));
        match how >> 4 {
            0..8 => Lifetime::NONE,
            8..15 => ends(how),
            _ => ends(0).after(ends(255)).expect("shortened once"),
        }
    }

    /// A node is told what time it is, and gives back what has ended.
    fn pass_time(&mut self) {
        self.now_ms += u64::from(self.bytes.byte());
        let at = self.a_node();
        self.nodes[at].tell_time(self.now_ms);
        self.ask(self.nodes[at].address(), &Request::Reclaim);
        let node = &self.nodes[at];
        for id in node.partitions() {
            node.each(id, |_, known, _| {
                assert_eq!(known.at(self.now_ms), known, "what has ended takes space still");
            });
        }
    }

    fn write(&mut self) {
        let (at, key, timestamp) = (self.a_node(), self.a_key(), self.a_timestamp());
        let how = self.bytes.byte();
        let value = (!how.is_multiple_of(8)).then(|| self.a_value());
        let name = Key::new(&key).expect("short");
        let write = match &value {
            Some(value) => {
                let value = Value::new(value).expect("short");
                Write::put_living(name, timestamp, value, self.a_lifetime(how))
            }
            None => Write::remove(name, timestamp),
        };
        let (to, before) = (self.nodes[at].address(), self.nodes[at].stats());
        match self.ask(to, &Request::Write { write, force: how & 8 != 0 }) {
            Some(Ok(Reply::Written(Written::Accepted { dot, stable_upto, used, epoch, .. }))) => {
                assert_eq!(dot.incarnation, to.incarnation, "a coordinator gave another life's name");
                let named = (KeyPrint::of(name.bytes()), write.version);
                let same = self.names.insert((name.hash().partition(self.partitions), dot), named);
                // The check after the message has met it already; an earlier write of this name is found there.
                assert!(same.is_none_or(|same| same == named), "a name was given twice");
                let mut seen_by = NodeSet::new();
                seen_by.insert(to.node);
                let version = write.version;
                let accepted =
                    Accepted { coordinator: to, key, value, version, dot, stable_upto, used, epoch, seen_by };
                keep(&mut self.accepted, accepted);
            }
            Some(Ok(Reply::Written(Written::Outlived(by)))) => {
                assert!(write.version < by && write.version.may_outlive(by), "it was outlived by less");
            }
            Some(Ok(Reply::Written(_))) => {}
            Some(Err(Error::ValueTooLarge { .. })) => {
                assert_eq!(self.nodes[at].stats(), before, "a refusal changed something");
            }
            other => panic!("to a write: {other:?}"),
        }
    }

    /// One owner hears of a write, perhaps once more.
    fn tell(&mut self) {
        let (number, at) = (self.bytes.below(self.accepted.len()), self.a_node());
        let Some(accepted) = self.accepted.remove(number) else { return };
        let to = self.nodes[at].address();
        if to.node != accepted.coordinator.node {
            let Accepted { coordinator: from, version, dot, stable_upto, used, epoch, .. } = accepted;
            let key = Key::new(&accepted.key).expect("short");
            let held = match &accepted.value {
                Some(value) => Held::Live(Value::new(value).expect("short")),
                None => Held::Removed,
            };
            let item = Item { key, version, dot, held };
            let reply = self.ask(to, &Request::Update { from, item, stable_upto, used, epoch });
            let mut accepted = accepted;
            match reply {
                Some(Ok(Reply::Seen { quiet, newer, .. })) => {
                    if quiet {
                        accepted.seen_by.insert(to.node);
                    }
                    if let Some(items) = newer {
                        assert!(items.iter().all(|item| item.version > version), "what is newer is not");
                        let other = self.a_node();
                        keep(&mut self.letters, (self.nodes[other].address(), Letter::Fix { items: *items }));
                    }
                }
                Some(Ok(Reply::Unknown)) => {}
                other => panic!("to an update: {other:?}"),
            }
            return keep(&mut self.accepted, accepted);
        }
        keep(&mut self.accepted, accepted);
    }

    /// A coordinator is told who has seen its write.
    fn settle(&mut self) {
        let number = self.bytes.below(self.accepted.len());
        let Some(&Accepted { coordinator, ref key, dot, seen_by, .. }) = self.accepted.get(number) else { return };
        let partition = Key::new(key).expect("short").hash().partition(self.partitions);
        self.ask(coordinator, &Request::Settle { partition, dot, seen_by });
    }

    fn begin_exchange(&mut self) {
        let (asker, answerer) = (self.a_node(), self.a_node());
        if asker == answerer {
            return;
        }
        let (asker, answerer) = (self.nodes[asker].address(), self.nodes[answerer].address());
        let shared: Vec<PartitionId> = (0..self.partitions).collect();
        let exchange = Exchange::new(asker, answerer, &shared);
        let audits = self.bytes.byte() % 2 == 1;
        keep(&mut self.exchanges, if audits { exchange.with_audit() } else { exchange });
    }

    /// Some messages of a conversation: each arrives, arrives twice, or is lost with all that would have followed.
    fn go_on_with_exchange(&mut self) {
        let number = self.bytes.below(self.exchanges.len());
        let Some(mut exchange) = self.exchanges.remove(number) else { return };
        for _ in 0..=self.bytes.below(32) {
            let Some((to, request)) = exchange.next() else { return };
            if let Some(letter) = Letter::copy_of(&request) {
                keep(&mut self.letters, (to, letter));
            }
            let fate = self.bytes.byte();
            let mut reply = self.ask(to, &request);
            if fate > 240 {
                reply = self.ask(to, &request);
            }
            let reply = match reply {
                Some(reply) if !(230..=240).contains(&fate) => reply.map_err(Unreached::Refused),
                Some(_) => Err(Unreached::Silent),
                None => Err(Unreached::Down),
            };
            exchange.reply(reply);
        }
        keep(&mut self.exchanges, exchange);
    }

    /// A letter once more, or late: where it was sent to, or elsewhere; with its ticket, or a wrong one.
    fn deliver_again(&mut self) {
        let (number, how, at) = (self.bytes.below(self.letters.len()), self.bytes.byte(), self.a_node());
        let Some((mut to, mut letter)) = self.letters.get(number).cloned() else { return };
        let is_wrong = match &mut letter {
            Letter::Apply { delta, .. } if how < 64 => {
                delta.ticket += 1 << 32;
                true
            }
            Letter::Apply { .. } if how < 96 && self.nodes[at].address() != to => {
                to = self.nodes[at].address();
                true
            }
            Letter::Fix { .. } => {
                to = self.nodes[at].address();
                false
            }
            _ => false,
        };
        match self.ask(to, &letter.request()) {
            Some(Ok(Reply::Applied(is_applied))) => {
                assert!(!(is_applied && is_wrong), "an answer to another question was believed");
            }
            Some(Ok(Reply::Delta(delta))) => {
                if let Letter::Pull { from, partition, .. } = letter {
                    keep(&mut self.letters, (from, Letter::Apply { partition, delta }));
                }
            }
            Some(Ok(_)) | None => {}
            Some(Err(error)) => panic!("a letter was refused: {error}"),
        }
    }

    fn read(&mut self) {
        let (at, key, touch) = (self.a_node(), self.a_key(), self.bytes.byte() % 2 == 1);
        let key = Key::new(&key).expect("short");
        let mut digest = None;
        let read = self.nodes[at].get(key, touch, &mut |_, lent| {
            digest = Some(match lent {
                Lent::Now(value) => value.digest(),
                Lent::Share(share) => share.value().digest(),
            });
        });
        match read.known {
            Known::Live(version) => assert_eq!(digest, Some(version.digest), "another value than the version's"),
            Known::Marker(_) | Known::Nothing => assert_eq!(digest, None, "a value was lent, and there is none"),
        }
        self.nodes[at].check();
    }

    /// What was read lately at one node is told to another.
    fn share_use(&mut self) {
        let (from, to) = (self.nodes[self.bytes.below(self.nodes.len())].address(), self.a_node());
        let partitions: Vec<PartitionId> = (0..self.partitions).collect();
        if let Some(Ok(Reply::Looked { used, .. })) = self.ask(from, &Request::Look { partitions: partitions.into() }) {
            self.ask(self.nodes[to].address(), &Request::Touch { used: used.into() });
        }
    }

    /// A node holds a partition with others than before.
    fn hold(&mut self) {
        let (at, partition, mask) = (self.a_node(), self.a_partition(), self.bytes.byte());
        let me = self.nodes[at].address();
        let everyone = self.nodes.iter().map(Node::address).chain(self.silent.iter().copied());
        let is_meant = |peer: &Address| *peer != me && mask >> peer.node & 1 == 1;
        let peers: Vec<Address> = everyone.filter(is_meant).collect();
        self.ask(me, &Request::Hold { partition, peers: &peers, doubt: mask & 0x40 != 0, serves: true });
        if mask & 0x80 != 0 {
            self.hold_all(at, false);
        }
    }

    fn hold_all(&mut self, at: usize, doubt: bool) {
        let me = self.nodes[at].address();
        let peers: Vec<Address> = self.nodes.iter().map(Node::address).filter(|&peer| peer != me).collect();
        for partition in 0..self.partitions {
            self.ask(me, &Request::Hold { partition, peers: &peers, doubt, serves: true });
        }
    }

    /// A node, or every node, hears which lives are the present ones. A silent node may have begun another.
    fn meet(&mut self) {
        let (at, which) = (self.a_node(), self.bytes.byte());
        self.epoch += 1;
        if which & 4 != 0 {
            self.lives += 1;
            let silent = &mut self.silent[usize::from(which % SILENT)];
            silent.incarnation = Incarnation::new(self.lives, silent.node);
        }
        let known = if which & 8 != 0 { &self.silent[..] } else { &[] };
        let lives: Vec<Address> = self.nodes.iter().map(Node::address).chain(known.iter().copied()).collect();
        for node in 0..self.nodes.len() {
            if node == at || which & 16 != 0 {
                self.ask(self.nodes[node].address(), &Request::Meet { lives: &lives, epoch: self.epoch });
            }
        }
    }

    /// A node gives up a partition if another has seen all of it: as of now, or of when the letter was written.
    fn release(&mut self) {
        let (at, other, partition) = (self.a_node(), self.a_node(), self.a_partition());
        let Some((clock, _)) = self.nodes[other].clock(partition) else { return };
        let (to, clock) = (self.nodes[at].address(), clock.clone());
        let letter = Letter::Release { partition, clock };
        if self.bytes.byte() % 2 == 1 {
            self.ask(to, &letter.request());
        }
        keep(&mut self.letters, (to, letter));
    }

    /// A node begins another life with nothing.
    fn restart(&mut self) {
        let at = self.a_node();
        let Address { node, .. } = self.nodes[at].address();
        self.lives += 1;
        let address = Address { node, incarnation: Incarnation::new(self.lives, node) };
        self.nodes[at] = Node::new(address, self.nodes[at].stats().bytes_max, self.partitions);
        self.hold_all(at, true);
    }

    /// Asks a node, if it is in this life, and looks at it before and after.
    fn ask(&mut self, to: Address, request: &Request<'_>) -> Option<Result<Reply, Error>> {
        let at = self.nodes.iter().position(|node| node.address() == to)?;
        let before = Before::of(&self.nodes[at]);
        let reply = self.nodes[at].answer(request);
        self.check(at, &before);
        Some(reply)
    }

    fn check(&mut self, at: usize, before: &Before) {
        let node = &self.nodes[at];
        node.check();
        let stats = node.stats();
        assert!(stats.bytes_used <= stats.bytes_max, "over the bound: {stats:?}");
        // What was given up is not compared with what was held before.
        for (id, seen) in &before.clocks {
            if let Some((clock, _)) = node.clock(*id) {
                assert!(clock.covers(seen), "a dot was unseen");
            }
        }
        for id in node.partitions() {
            let clock = node.clock(id).map(|(clock, _)| clock).expect("held");
            node.each(id, |key, known, dot| {
                assert!(clock.has(dot), "held and never seen: {dot:?}");
                let version = known.rank().0.expect("held");
                let earlier = before.versions.get(&(id, key));
                assert!(earlier.is_none_or(|&earlier| earlier <= version), "a version went back");
                let named = *self.names.entry((id, dot)).or_insert((key, version));
                assert_eq!(named, (key, version), "two writes have one name: {dot:?}");
            });
        }
    }
}

/// Adds one, and loses the oldest of too many.
fn keep<T>(kept: &mut VecDeque<T>, one: T) {
    if kept.len() == KEPT_MAX {
        kept.pop_front();
    }
    kept.push_back(one);
}

#[cfg(test)]
mod tests {
    use super::run;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nodes_keep_their_promises_whatever_becomes_of_messages(
            bytes in prop::collection::vec(any::<u8>(), 0..3000),
        ) {
            run(&bytes);
        }
    }
}
