//! Mistakes that replicated caches make, one test for each: what must not happen when a message comes late, a node has
//! another life, or a marker had to be dropped.

use std::borrow::Cow;

use distributed_consistent_cache::clock::{Dot, Incarnation};
use distributed_consistent_cache::entry::{Held, Item, Items, Key, Value};
use distributed_consistent_cache::hash::KeyPrint;
use distributed_consistent_cache::message::{Address, Begun, Delta, Known, Reply, Request, Used, Write, Written};
use distributed_consistent_cache::node::Node;
use distributed_consistent_cache::runtime::embedded::Embedded;
use distributed_consistent_cache::runtime::{Runtime, Unreached, Wait};
use distributed_consistent_cache::version::{Timestamp, Version};

const CHUNK_BYTES: usize = 256 * 1024;
const SMALL: u64 = 16 * 1024;

pub(crate) fn life(number: u64, node: u8) -> Address {
    Address { node, incarnation: Incarnation::new(number, node) }
}

/// A node that holds its one partition with these peers, and has missed nothing.
fn node(address: Address, bytes: u64, peers: &[Address]) -> Node {
    let mut node = Node::new(address, bytes, 1);
    node.answer(&Request::Hold { partition: 0, peers, doubt: false, serves: true }).expect("held");
    node
}

pub(crate) fn key(name: &str) -> Key<'_> {
    Key::new(name.as_bytes()).expect("short")
}

pub(crate) fn at(timestamp: u64) -> Timestamp {
    Timestamp::new(timestamp).expect("small")
}

pub(crate) fn put<'a>(name: &'a str, value: &'a [u8], timestamp: u64) -> Write<'a> {
    Write::put(key(name), at(timestamp), Value::new(value).expect("short"))
}

fn write(node: &mut Node, write: Write<'_>) -> Dot {
    match node.answer(&Request::Write { write, force: false }).expect("room") {
        Reply::Written(Written::Accepted { dot, .. }) => dot,
        other => panic!("{other:?}"),
    }
}

fn update(node: &mut Node, from: Address, item: Item<'_>) -> Reply {
    node.answer(&Request::Update { from, item, stable_upto: 0, used: Used::NONE, epoch: 0 }).expect("answered")
}

fn known(node: &mut Node, name: &str) -> Known {
    node.get(key(name), false, &mut |_, _| {}).known
}

fn is_live_at(node: &mut Node, name: &str, timestamp: u64) -> bool {
    matches!(known(node, name), Known::Live(version) if version.timestamp == at(timestamp))
}

fn begin(node: &mut Node) -> Begun {
    match node.answer(&Request::Begin { partition: 0 }).expect("answered") {
        Reply::Begun(Some(begun)) => begun,
        other => panic!("{other:?}"),
    }
}

fn ask(answerer: &mut Node, asker: Address, begun: &Begun, after: Option<u64>) -> Box<Delta> {
    let (ticket, clock, epoch) = (begun.ticket, Cow::Borrowed(&begun.clock), begun.epoch);
    let pull = Request::Pull { from: asker, partition: 0, ticket, clock, epoch, after, chunk_bytes: CHUNK_BYTES };
    match answerer.answer(&pull).expect("answered") {
        Reply::Delta(delta) => delta,
        other => panic!("{other:?}"),
    }
}

fn apply(node: &mut Node, delta: &Delta) -> bool {
    let delta = Cow::Owned(Box::new(delta.clone()));
    let applied = node.answer(&Request::Apply { partition: 0, delta }).expect("answered");
    node.check();
    matches!(applied, Reply::Applied(true))
}

/// A whole pull: true when its answer counted.
fn pull(asker: &mut Node, answerer: &mut Node) -> bool {
    let begun = begin(asker);
    let delta = ask(answerer, asker.address(), &begun, None);
    apply(asker, &delta)
}

#[test]
fn the_answer_to_a_pull_does_not_reach_the_next_life_of_the_asker() {
    let (old, new, other) = (life(1, 0), life(3, 0), life(2, 1));
    let mut answerer = node(other, SMALL, &[old]);
    write(&mut answerer, put("key", b"value", 1));
    let begun = begin(&mut node(old, SMALL, &[other]));
    let delta = ask(&mut answerer, old, &begun, None);

    let mut reborn = node(new, SMALL, &[other]);
    assert_eq!(begin(&mut reborn).ticket, begun.ticket, "its pull has the same number");
    assert!(!apply(&mut reborn, &delta));
    assert_eq!(known(&mut reborn, "key"), Known::Nothing);
}

#[test]
fn an_update_that_is_20_seconds_old_does_not_reach_a_restarted_node() {
    let runtime = Embedded::default();
    let (first, peer) = (runtime.start(0, SMALL, 1), life(9, 1));
    let old = Address { node: 0, incarnation: first };
    runtime.stop(0);
    let new = Address { node: 0, incarnation: runtime.start(0, SMALL, 1) };
    let hold = Request::Hold { partition: 0, peers: &[peer], doubt: true, serves: true };
    runtime.carry(new, &hold, Wait::ForTurn).expect("held");
    let item = put("key", b"value", 1).item(Dot { incarnation: peer.incarnation, counter: 1 });
    let late = Request::Update { from: peer, item, stable_upto: 0, used: Used::NONE, epoch: 0 };
    assert_eq!(runtime.carry(old, &late, Wait::ForTurn).err(), Some(Unreached::Down));
    let read = runtime.read(new, key("key"), false, Wait::ForTurn, &mut |_, _| {}).expect("alive");
    assert_eq!(read.known, Known::Nothing);
}

#[test]
fn a_message_from_a_life_that_is_over_changes_nothing() {
    let (dead, present) = (life(1, 1), life(5, 1));
    let mut node = node(life(2, 0), SMALL, &[present]);
    let item = put("key", b"value", 1).item(Dot { incarnation: dead.incarnation, counter: 1 });
    assert!(matches!(update(&mut node, dead, item), Reply::Unknown));
    assert_eq!(known(&mut node, "key"), Known::Nothing);
    let begun = begin(&mut node);
    assert!(begun.clock.is_empty());
}

#[test]
fn a_value_that_found_no_room_leaves_a_marker_that_refuses_what_is_older() {
    let (full, other) = (life(1, 0), life(2, 1));
    let (mut full_node, mut answerer) = (node(full, SMALL, &[other]), node(other, 4 * SMALL, &[full]));
    for number in 0..3 {
        write(&mut full_node, put(&format!("own {number}"), &[7; 4_000], 1));
    }
    write(&mut answerer, put("key", &[8; 9_000], 5));
    assert!(pull(&mut full_node, &mut answerer));
    assert!(matches!(known(&mut full_node, "key"), Known::Marker(version) if version.timestamp == at(5)));
    // An older write of it, on its way since before.
    let item = put("key", b"old", 4).item(Dot { incarnation: other.incarnation, counter: 9 });
    update(&mut full_node, other, item);
    assert!(matches!(known(&mut full_node, "key"), Known::Marker(version) if version.timestamp == at(5)));
}

/// Three nodes of which the first has dropped the marker of "gone", removed at time 50, before the others saw it. Its floor
/// is 50.
fn forgetful() -> (Node, Address, Address) {
    let (first, second, third) = (life(1, 0), life(2, 1), life(3, 2));
    let mut node = node(first, SMALL, &[second, third]);
    write(&mut node, Write::remove(key("gone"), at(50)));
    let mut number = 0;
    while known(&mut node, "gone") != Known::Nothing {
        // Markers of long keys, until there is no room for them all.
        write(&mut node, Write::remove(key(&format!("{number:0>600}")), at(1)));
        number += 1;
    }
    assert_eq!(node.floor(0), Some(at(50)));
    (node, second, third)
}

#[test]
fn what_a_forgetful_node_does_not_vouch_for_is_dropped() {
    let (mut forgetful, second, third) = forgetful();
    let mut other = node(second, SMALL, &[forgetful.address(), third]);
    // The second node has not heard of the remove, and of another key what all have.
    write(&mut other, put("gone", b"stale", 40));
    let dot = write(&mut other, put("kept", b"value", 40));
    update(&mut forgetful, second, put("kept", b"value", 40).item(dot));
    assert!(pull(&mut other, &mut forgetful));
    assert_eq!(known(&mut other, "gone"), Known::Nothing, "in doubt a miss, never a stale value");
    assert_eq!(other.floor(0), Some(at(50)), "it tells others the same");
}

#[test]
fn a_marker_vouches_for_nothing() {
    let (mut forgetful, second, third) = forgetful();
    let mut other = node(second, SMALL, &[forgetful.address(), third]);
    let dot = write(&mut other, put("key", b"value", 40));
    // The forgetful one knows of this very write, and its value fell off.
    let item = Item { held: Held::Evicted, ..put("key", b"value", 40).item(dot) };
    update(&mut forgetful, second, item);
    let begun = begin(&mut other);
    let delta = ask(&mut forgetful, second, &begun, None);
    let loss = delta.lost.as_ref().expect("it dropped a marker");
    assert!(loss.confirmed.iter().all(|&(name, _)| name != KeyPrint::of(b"key")));
    assert!(apply(&mut other, &delta));
    assert!(!is_live_at(&mut other, "key", 40));
}

#[test]
fn what_is_lost_while_an_answer_is_taken_in_counts_before_its_clock_does() {
    let (asker, answerer, third) = (life(1, 0), life(2, 1), life(3, 2));
    let mut small = node(asker, SMALL, &[answerer, third]);
    let mut large = node(answerer, 64 * SMALL, &[asker, third]);
    for number in 0..8 {
        write(&mut large, Write::remove(key(&format!("{number:0>600}")), at(10 + number)));
    }
    assert!(pull(&mut small, &mut large));
    let floor = small.floor(0).expect("there is no room for eight such markers");
    assert!(floor >= at(10));
    // An older value of one that was dropped, from the node that has seen no more than that.
    for number in 0..8 {
        let name = format!("{number:0>600}");
        if known(&mut small, &name) == Known::Nothing {
            assert!(at(10 + number) <= floor, "a marker was dropped above the floor");
        }
    }
}

#[test]
fn what_is_below_the_floor_comes_as_a_marker_and_stays_one() {
    let (mut forgetful, second, third) = forgetful();
    let item = |counter| put("gone", b"stale", 40).item(Dot { incarnation: second.incarnation, counter });
    update(&mut forgetful, second, item(1));
    assert!(!is_live_at(&mut forgetful, "gone", 40), "it may be older than the marker that was dropped");
    // Again, and by the way of a pull.
    update(&mut forgetful, second, item(1));
    let mut other = node(second, SMALL, &[forgetful.address(), third]);
    write(&mut other, put("gone", b"stale", 40));
    pull(&mut forgetful, &mut other);
    assert!(!is_live_at(&mut forgetful, "gone", 40));
    // Above the floor nothing is in doubt.
    let item = put("gone", b"new", 60).item(Dot { incarnation: second.incarnation, counter: 9 });
    update(&mut forgetful, second, item);
    assert!(is_live_at(&mut forgetful, "gone", 60));
}

#[test]
fn a_coordinator_that_forgot_learns_from_one_that_remembers() {
    let (forgets, remembers) = (life(1, 0), life(2, 1));
    let mut coordinator = node(forgets, SMALL, &[remembers]);
    let mut owner = node(remembers, SMALL, &[forgets]);
    // Both saw the newer write; the coordinator has evicted it, and it was stable.
    let newer = put("key", b"newer", 9).item(Dot { incarnation: forgets.incarnation, counter: 1 });
    update(&mut owner, forgets, newer);
    let dot = write(&mut coordinator, put("other", b"value", 1));
    assert_eq!(dot.counter, 1, "its clock says that it has seen the newer write");
    let dot = write(&mut coordinator, put("key", b"older", 3));

    // Told directly, the owner answers with what it knows, under a new name.
    let reply = update(&mut owner, forgets, put("key", b"older", 3).item(dot));
    let Reply::Seen { newer: Some(items), .. } = reply else { panic!("{reply:?}") };
    coordinator.answer(&Request::Fix { items: Cow::Borrowed(&items) }).expect("answered");
    assert!(is_live_at(&mut coordinator, "key", 9));

    // Not told, it pulls; then the other pulls what was named anew.
    let mut coordinator = node(forgets, SMALL, &[remembers]);
    write(&mut coordinator, put("other", b"value", 1));
    write(&mut coordinator, put("key", b"older", 3));
    let mut owner = node(remembers, SMALL, &[forgets]);
    update(&mut owner, forgets, newer);
    assert!(pull(&mut owner, &mut coordinator) && pull(&mut coordinator, &mut owner));
    assert!(is_live_at(&mut coordinator, "key", 9) && is_live_at(&mut owner, "key", 9));
}

#[test]
fn who_lost_a_newer_marker_coordinates_only_if_nobody_else_can() {
    let (mut forgetful, ..) = forgetful();
    let mut ask = |timestamp, force| {
        let write = put("key", b"value", timestamp);
        forgetful.answer(&Request::Write { write, force }).expect("room")
    };
    assert!(matches!(ask(50, false), Reply::Written(Written::Unsynced)), "the marker that was lost may be newer");
    assert!(matches!(ask(50, true), Reply::Written(Written::Accepted { .. })));
    assert!(matches!(ask(51, false), Reply::Written(Written::Accepted { .. })));
}

#[test]
fn a_late_fix_brings_no_value_to_a_marker_that_may_be_older_than_what_was_lost() {
    let (mut forgetful, second, _) = forgetful();
    // A marker of an older remove takes the place of the one that was lost.
    let remove = Write::remove(key("gone"), at(24));
    update(&mut forgetful, second, remove.item(Dot { incarnation: second.incarnation, counter: 1 }));
    assert!(matches!(known(&mut forgetful, "gone"), Known::Marker(version) if version.timestamp == at(24)));
    let mut fix = |timestamp| {
        let mut items = Items::default();
        items.push(put("gone", b"value", timestamp).item(Dot { incarnation: second.incarnation, counter: 2 }));
        forgetful.answer(&Request::Fix { items: Cow::Owned(items) }).expect("answered");
        is_live_at(&mut forgetful, "gone", timestamp)
    };
    assert!(!fix(26), "the lost marker is of time 50");
    assert!(!fix(60), "and another of the same key may have been, of any time");
}

/// The partitions that a node is to audit with a partner.
fn due(node: &mut Node, with: Address) -> Vec<u16> {
    let brief = Request::Brief { with: with.node, partitions: Cow::Borrowed(&[0, 1]) };
    match node.answer(&brief).expect("answered") {
        Reply::Briefs(briefs) => {
            briefs.into_iter().flat_map(|(briefs, _)| briefs).map(|brief| brief.partition).collect()
        }
        other => panic!("{other:?} is no answer"),
    }
}

#[test]
fn what_others_come_to_hold_is_audited_with_everybody_and_nothing_else_is() {
    let (first, second, third) = (life(1, 0), life(2, 1), life(3, 2));
    let mut lister = Node::new(first, SMALL, 2);
    for partition in 0..2 {
        lister.answer(&Request::Hold { partition, peers: &[second], doubt: false, serves: true }).expect("held");
    }
    for number in 0..50 {
        write(&mut lister, put(&format!("key {number}"), b"value", 50 - number));
    }
    assert!(due(&mut lister, second).is_empty(), "writes are no reason");
    lister.answer(&Request::Hold { partition: 1, peers: &[second, third], doubt: false, serves: true }).expect("held");
    assert_eq!((due(&mut lister, second), due(&mut lister, third)), (vec![1], vec![1]));
    // What was audited for an older reason stays due.
    let audited = |due| Request::Audited { with: second.node, done: Cow::Owned(vec![(1, due)]) };
    lister.answer(&audited(0)).expect("answered");
    assert_eq!(due(&mut lister, second), [1]);
    lister.answer(&audited(1)).expect("answered");
    assert_eq!((due(&mut lister, second), due(&mut lister, third)), (vec![], vec![1]));
}

#[test]
fn a_pull_that_tells_of_more_than_it_brings_is_a_reason_to_audit() {
    let (asker, answerer) = (life(1, 0), life(2, 1));
    for (writes_of_one_key, is_due) in [(1, false), (2, true)] {
        let (mut small, mut large) = (node(asker, 64 * SMALL, &[answerer]), node(answerer, 64 * SMALL, &[asker]));
        for timestamp in 1..=writes_of_one_key {
            write(&mut large, put("key", b"value", timestamp));
        }
        let begun = begin(&mut small);
        let delta = ask(&mut large, asker, &begun, None);
        assert!(apply(&mut small, &delta));
        assert_eq!(!due(&mut small, answerer).is_empty(), is_due, "{writes_of_one_key} writes");
    }
}

#[test]
fn two_keys_of_one_hash_are_audited_as_two() {
    let (first, second) = (life(1, 0), life(2, 1));
    let (mut one, mut other) = (node(first, 64 * SMALL, &[second]), node(second, 64 * SMALL, &[first]));
    // Found by trying: both have the hash 808f34b408032c94.
    let (a, b) = ("jidahpcdfemohfdf", "blodlpchnanindel");
    assert_eq!(key(a).hash(), key(b).hash());
    write(&mut one, put(a, b"value", 1));
    write(&mut other, put(b, b"value", 2));
    let Reply::Listed(Some(listing)) = one.answer(&Request::List { partition: 0, part: 0 }).expect("answered") else {
        panic!("no listing");
    };
    assert_eq!(listing.held.len(), 1);
    let Reply::Older(older) = other.answer(&Request::Audit { listing: Cow::Borrowed(&listing) }).expect("answered")
    else {
        panic!("no answer");
    };
    assert!(older.keys.is_empty() && !older.again, "another key is neither older nor newer: {older:?}");
}

#[test]
fn a_lost_chunk_of_an_answer_loses_nothing() {
    let (asker, answerer) = (life(1, 0), life(2, 1));
    let (mut small, mut large) = (node(asker, 64 * SMALL, &[answerer]), node(answerer, 64 * SMALL, &[asker]));
    let names: Vec<String> = (0..300).map(|number| format!("key {number}")).collect();
    for name in &names {
        write(&mut large, put(name, &[7; 2_000], 1));
    }
    let begun = begin(&mut small);
    let first = ask(&mut large, asker, &begun, None);
    let next = first.next.expect("more than one chunk");
    assert!(apply(&mut small, &first));
    // The second is lost, and with it the pull. The clock must not say that anything of it was seen.
    let _lost = ask(&mut large, asker, &begun, Some(next));
    assert!(begin(&mut small).clock.is_empty());

    let begun = begin(&mut small);
    let mut after = None;
    loop {
        let delta = ask(&mut large, asker, &begun, after);
        assert!(apply(&mut small, &delta));
        after = delta.next;
        if after.is_none() {
            break;
        }
    }
    assert!(names.iter().all(|name| is_live_at(&mut small, name, 1)));
    assert_eq!(begin(&mut small).clock, begin(&mut large).clock);
}

#[test]
fn what_arrives_between_two_chunks_of_an_answer_is_noted_as_seen() {
    let (asker, answerer) = (life(1, 0), life(2, 1));
    let (mut small, mut large) = (node(asker, 64 * SMALL, &[answerer]), node(answerer, 64 * SMALL, &[asker]));
    for number in 0..200 {
        write(&mut large, put(&format!("key {number}"), &[7; 2_000], 1));
    }
    let begun = begin(&mut small);
    let first = ask(&mut large, asker, &begun, None);
    let next = first.next.expect("more than one chunk");
    assert!(apply(&mut small, &first));
    // Somebody compares notes with the asker: what it has of the answer is noted.
    let look = Request::Look { partitions: Cow::Borrowed(&[0]) };
    small.answer(&look).expect("looked");
    let late = (0..).map(|number| format!("late {number}")).find(|name| key(name).hash().0 > next);
    let late = late.expect("one of many");
    write(&mut large, put(&late, b"value", 2));
    // It comes with the last chunk, and the answer's clock is still that of the first.
    let mut second = ask(&mut large, asker, &begun, Some(next));
    assert!(second.next.is_none());
    second.clock = first.clock.clone();
    assert!(apply(&mut small, &second) && is_live_at(&mut small, &late, 2));
    small.answer(&look).expect("looked");
    assert_eq!(begin(&mut small).clock, begin(&mut large).clock);
}

#[test]
fn what_came_before_the_lost_end_of_an_answer_is_known_to_whoever_compares_notes() {
    let (asker, answerer, other) = (life(1, 0), life(2, 1), life(3, 2));
    let mut large = node(answerer, 64 * SMALL, &[asker, other]);
    for number in 0..300 {
        write(&mut large, put(&format!("key {number}"), &[7; 2_000], 1));
    }
    let mut middle = node(asker, 64 * SMALL, &[answerer, other]);
    let begun = begin(&mut middle);
    let first = ask(&mut large, asker, &begun, None);
    assert!(first.next.is_some() && apply(&mut middle, &first));
    // The answerer is gone, and a node that has seen nothing compares notes with the one that has a part.
    let mut last = node(other, 64 * SMALL, &[asker, answerer]);
    let fingerprint = last.fingerprint(&[0]);
    let from = last.address();
    let compare = Request::Compare { from, partitions: Cow::Borrowed(&[0]), fingerprint, epoch: 0 };
    let compared = middle.answer(&compare).expect("answered");
    assert!(matches!(compared, Reply::Compared { prints: Some(_), .. }), "{compared:?}");
    assert!(pull(&mut last, &mut middle));
    assert!(first.items.iter().all(|item| is_live_at(
        &mut last,
        std::str::from_utf8(item.key.bytes()).expect("ascii"),
        1
    )));
}

#[test]
fn a_late_answer_does_not_bring_back_what_was_written_and_forgotten_since() {
    let (asker, answerer) = (life(1, 0), life(2, 1));
    let (mut small, mut large) = (node(asker, SMALL, &[answerer]), node(answerer, SMALL, &[asker]));
    let old = write(&mut large, put("key", b"old", 1));
    let begun = begin(&mut small);
    let late = ask(&mut large, asker, &begun, None);
    // Meanwhile the newer write arrives, is settled, and falls off.
    let newer = put("key", b"new", 2).item(Dot { incarnation: answerer.incarnation, counter: old.counter + 1 });
    let upto = old.counter + 1;
    small
        .answer(&Request::Update { from: answerer, item: newer, stable_upto: upto, used: Used::NONE, epoch: 0 })
        .expect("seen");
    for number in 0..6 {
        write(&mut small, put(&format!("own {number}"), &[7; 4_000], 1));
    }
    assert_eq!(known(&mut small, "key"), Known::Nothing, "forgotten: every owner has seen it");
    assert!(!apply(&mut small, &late));
    assert_eq!(known(&mut small, "key"), Known::Nothing);
}

#[test]
fn equal_versions_are_one_write_under_any_number_of_names() {
    let (first, second, third) = (life(1, 0), life(2, 1), life(3, 2));
    let mut node = node(first, SMALL, &[second, third]);
    let version = Version::put(at(1), Value::new(b"value").expect("short").digest());
    for from in [second, third, second] {
        update(&mut node, from, put("key", b"value", 1).item(Dot { incarnation: from.incarnation, counter: 1 }));
        assert_eq!(known(&mut node, "key"), Known::Live(version));
    }
    assert_eq!(node.stats().entries, 1);
}

#[test]
fn a_coordinator_does_not_call_stable_what_something_older_may_still_reach_a_peer_after() {
    let (first, second, third) = (life(1, 0), life(2, 1), life(3, 2));
    let mut coordinator = node(first, SMALL, &[second, third]);
    let mut late = node(second, SMALL, &[first, third]);
    let mut far = node(third, SMALL, &[first, second]);
    // The newest, which the second does not know of when it accepts something older.
    let newest = put("key", b"newest", 9);
    let dot = write(&mut coordinator, newest);
    update(&mut far, first, newest.item(dot));
    assert!(pull(&mut far, &mut coordinator), "the coordinator hears that the third has seen it");
    let older = put("key", b"older", 1);
    let older_dot = write(&mut late, older);
    // It reaches the coordinator at once, and the third late.
    update(&mut coordinator, second, older.item(older_dot));
    update(&mut late, first, newest.item(dot));
    assert!(pull(&mut late, &mut coordinator), "and the second");
    // All have seen the newest. But not all have seen what the second wrote before it did.
    let other = put("other", b"value", 10);
    let accepted = coordinator.answer(&Request::Write { write: other, force: false }).expect("room");
    let Reply::Written(Written::Accepted { dot, stable_upto, .. }) = accepted else { panic!("{accepted:?}") };
    assert_eq!(stable_upto, 0, "the third would forget the newest when it falls off there");
    far.answer(&Request::Update { from: first, item: other.item(dot), stable_upto, used: Used::NONE, epoch: 0 })
        .expect("answered");
    for number in 0..1_000 {
        write(&mut far, put(&format!("filler {number}"), &[7; 100], 11 + number));
    }
    update(&mut far, second, older.item(older_dot));
    assert!(!is_live_at(&mut far, "key", 1), "{:?}", known(&mut far, "key"));
}
