//! What a node believes of what others tell it, and what it does not: each line that decides it is held by a test of its
//! own.

use std::borrow::Cow;
use std::time::Duration;

use distributed_consistent_cache::clock::{Clock, Dot};
use distributed_consistent_cache::entry::{Held, Item, Value};
use distributed_consistent_cache::ids::PartitionId;
use distributed_consistent_cache::lifetime::Lifetime;
use distributed_consistent_cache::message::{
    Address, Begun, Brief, Compared, Delta, Known, Reply, Request, Used, Write, Written,
};
use distributed_consistent_cache::node::Node;
use distributed_consistent_cache::version::Version;

use crate::mistakes::{at, key, life, put};

const SMALL: u64 = 16 * 1024;

fn dot(of: Address, counter: u64) -> Dot {
    Dot { incarnation: of.incarnation, counter }
}

fn hold(node: &mut Node, peers: &[Address], doubt: bool) {
    node.answer(&Request::Hold { partition: 0, peers, doubt, serves: true }).expect("held");
}

/// A node that holds its one partition with these peers, and has missed nothing.
fn node(address: Address, peers: &[Address]) -> Node {
    let mut node = Node::new(address, SMALL, 1);
    hold(&mut node, peers, false);
    node
}

/// A write that is accepted: up to which of its writes the node says that all have seen them.
fn write(node: &mut Node, write: Write<'_>) -> u64 {
    match node.answer(&Request::Write { write, force: true }).expect("room") {
        Reply::Written(Written::Accepted { stable_upto, .. }) => stable_upto,
        other => panic!("{other:?}"),
    }
}

fn update(node: &mut Node, from: Address, item: Item<'_>, epoch: u64) -> Reply {
    node.answer(&Request::Update { from, item, stable_upto: 0, used: Used::NONE, epoch }).expect("answered")
}

fn known(node: &mut Node, name: &str) -> Known {
    node.get(key(name), false, &mut |_, _| {}).known
}

fn is_synced(node: &Node) -> bool {
    node.clock(0).expect("held").1
}

fn begin(node: &mut Node) -> Begun {
    match node.answer(&Request::Begin { partition: 0 }).expect("answered") {
        Reply::Begun(Some(begun)) => begun,
        other => panic!("{other:?}"),
    }
}

/// What a node answers to a pull by one that has seen this.
fn ask(answerer: &mut Node, from: Address, begun: &Begun) -> Box<Delta> {
    let (ticket, clock, epoch) = (begun.ticket, Cow::Borrowed(&begun.clock), begun.epoch);
    let pull = Request::Pull { from, partition: 0, ticket, clock, epoch, after: None, chunk_bytes: 1 << 20 };
    match answerer.answer(&pull).expect("answered") {
        Reply::Delta(delta) => delta,
        other => panic!("{other:?}"),
    }
}

fn apply(node: &mut Node, delta: &Delta) -> bool {
    let delta = Cow::Owned(Box::new(delta.clone()));
    matches!(node.answer(&Request::Apply { partition: 0, delta }), Ok(Reply::Applied(true)))
}

/// A whole pull: true when its answer counted.
fn pull(asker: &mut Node, answerer: &mut Node) -> bool {
    let begun = begin(asker);
    let delta = ask(answerer, asker.address(), &begun);
    apply(asker, &delta)
}

fn meet(node: &mut Node, lives: &[Address], epoch: u64) {
    node.answer(&Request::Meet { lives, epoch }).expect("met");
}

#[test]
fn a_write_from_before_it_came_to_hold_the_partition_is_not_taken() {
    let (first, second) = (life(1, 0), life(2, 1));
    let mut node = Node::new(first, SMALL, 1);
    meet(&mut node, &[first, second], 5);
    hold(&mut node, &[second], true);
    let item = put("key", b"value", 1).item(dot(second, 1));
    assert!(matches!(update(&mut node, second, item, 4), Reply::Unknown));
    assert_eq!(known(&mut node, "key"), Known::Nothing);
    assert!(matches!(update(&mut node, second, item, 5), Reply::Seen { .. }));
}

#[test]
fn who_holds_the_partition_no_longer_is_not_believed() {
    let (first, second, third) = (life(1, 0), life(2, 1), life(3, 2));
    let mut node = node(first, &[second]);
    meet(&mut node, &[first, second, third], 0);
    let item = put("key", b"value", 1).item(dot(third, 1));
    assert!(matches!(update(&mut node, third, item, 0), Reply::Unknown));
    assert_eq!(known(&mut node, "key"), Known::Nothing);
}

#[test]
fn the_answer_to_an_earlier_question_is_not_taken_for_that_to_a_later_one() {
    let (first, second) = (life(1, 0), life(2, 1));
    let (mut asker, mut answerer) = (node(first, &[second]), node(second, &[first]));
    write(&mut answerer, put("key", b"value", 1));
    let begun = begin(&mut asker);
    let late = ask(&mut answerer, first, &begun);
    begin(&mut asker);
    assert!(!apply(&mut asker, &late));
    assert!(pull(&mut asker, &mut answerer));
}

#[test]
fn an_audit_waits_until_both_have_seen_the_same() {
    let (first, second) = (life(1, 0), life(2, 1));
    let mut node = node(first, &[second]);
    write(&mut node, put("key", b"value", 1));
    let mut compared = |seen| {
        let briefs = Cow::Owned(vec![Brief { partition: 0, due: 1, seen, held: 0 }]);
        match node.answer(&Request::CompareBriefs { from: second.node, briefs }) {
            Ok(Reply::BriefsCompared(answers)) => answers[0],
            other => panic!("{other:?}"),
        }
    };
    let mut same = Clock::new();
    same.see(dot(first, 1));
    assert!(matches!(compared(same.fingerprint()), Compared::Differ));
    assert!(matches!(compared(Clock::new().fingerprint()), Compared::NotNow));
}

#[test]
fn a_write_below_what_was_forgotten_is_audited_once_all_have_seen_what_that_was() {
    let (first, second) = (life(1, 0), life(2, 1));
    let is_due = |timestamp| {
        let mut node = node(first, &[second]);
        meet(&mut node, &[first, second], 0);
        // The remove of this key has not come to the other; here there is no room for so many markers.
        write(&mut node, Write::remove(key("key"), at(500)));
        let before = node.clock(0).expect("held").0.clone();
        for later in 1000..1200 {
            write(&mut node, Write::remove(key(&format!("other {later}")), at(later)));
        }
        assert_eq!(known(&mut node, "key"), Known::Nothing);
        assert!(node.floor(0).is_some_and(|floor| floor > at(500)));
        write(&mut node, put("key", b"value", timestamp));
        assert!(!node.has_audit_due(second.node, 0), "the remove is still on its way");
        let mut hear = |clock: &Clock| {
            let mut begun = begin(&mut node);
            begun.clock = clock.clone();
            ask(&mut node, second, &begun);
            (node.floor(0).is_some(), node.has_audit_due(second.node, 0))
        };
        assert_eq!(hear(&before), (true, false), "others of what was forgotten are");
        let all = node.clock(0).expect("held").0.clone();
        let begun = Begun { clock: all, ..begin(&mut node) };
        ask(&mut node, second, &begun);
        assert_eq!(node.floor(0), None);
        node.has_audit_due(second.node, 0)
    };
    assert!(is_due(450), "the other may have the remove, which is newer");
    assert!(!is_due(2000), "nothing newer was forgotten");
}

#[test]
fn an_audit_tells_values_apart_that_end_at_different_times() {
    let (first, second, third) = (life(1, 0), life(2, 1), life(3, 2));
    // Both have seen one write of the third, and have it with these seconds to live.
    let compared = |one: u64, other: u64| {
        let of = |address: Address, peer: Address, seconds| {
            let mut of = node(address, &[third]);
            let lifetime = Lifetime::new(1, Some(Duration::from_secs(seconds)));
            let value = Value::new(b"value").expect("short");
            let write = Write::put_living(key("key"), at(1), value, lifetime);
            update(&mut of, third, write.item(dot(third, 1)), 0);
            // That another comes to hold it is a reason to audit.
            hold(&mut of, &[peer, third], false);
            of
        };
        let (mut asker, mut answerer) = (of(first, second, one), of(second, first, other));
        let partitions = Cow::Borrowed(&[0 as PartitionId][..]);
        let briefs = match asker.answer(&Request::Brief { with: second.node, partitions }) {
            Ok(Reply::Briefs(Some((briefs, _)))) => briefs,
            other => panic!("{other:?}"),
        };
        match answerer.answer(&Request::CompareBriefs { from: first.node, briefs: Cow::Owned(briefs) }) {
            Ok(Reply::BriefsCompared(answers)) => answers[0],
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(compared(5, 5), Compared::Same));
    assert!(matches!(compared(5, 6), Compared::Differ));
}

#[test]
fn what_a_peer_has_seen_counts_only_if_it_knows_of_the_same_change_of_the_membership() {
    let (first, second) = (life(1, 0), life(2, 1));
    for (epoch, counts) in [(4, false), (5, true), (6, false)] {
        let mut node = node(first, &[second]);
        meet(&mut node, &[first, second], 5);
        write(&mut node, put("key", b"value", 1));
        let fingerprint = node.fingerprint(&[0]);
        let partitions = Cow::Borrowed(&[0 as PartitionId][..]);
        node.answer(&Request::Compare { from: second, partitions, fingerprint, epoch }).expect("answered");
        let stable_upto = write(&mut node, put("other", b"value", 1));
        assert_eq!(stable_upto, u64::from(counts), "a peer of change {epoch}");
    }
}

#[test]
fn an_owner_that_was_away_has_to_pull_before_it_is_synced_again() {
    let (first, second) = (life(1, 0), life(2, 1));
    let mut node = node(first, &[second]);
    assert!(is_synced(&node));
    hold(&mut node, &[second], true);
    assert!(!is_synced(&node));
}

#[test]
fn who_is_not_synced_makes_nobody_synced_but_all_of_them_together_and_in_their_present_lives() {
    let (first, second, third, reborn) = (life(1, 0), life(2, 1), life(3, 2), life(4, 1));
    let peer = |address: Address, others: &[Address]| {
        let mut peer = Node::new(address, SMALL, 1);
        hold(&mut peer, others, true);
        peer
    };
    let mut asker = peer(first, &[second, third]);
    assert!(pull(&mut asker, &mut peer(second, &[first, third])));
    assert!(!is_synced(&asker), "one of two is not all");
    // The one that was heard begins a new life: what it said of the one before says nothing of this one.
    hold(&mut asker, &[reborn, third], true);
    assert!(pull(&mut asker, &mut peer(third, &[first, reborn])));
    assert!(!is_synced(&asker), "the new life was not heard");
    assert!(pull(&mut asker, &mut peer(reborn, &[first, third])));
    assert!(is_synced(&asker), "what they have together is all there is");
}

#[test]
fn a_partition_is_not_given_up_with_what_others_have_not_seen() {
    let (first, second) = (life(1, 0), life(2, 1));
    let mut node = node(first, &[second]);
    write(&mut node, put("key", b"value", 1));
    let covered = node.clock(0).expect("held").0.clone();
    write(&mut node, put("other", b"value", 1));
    let mut release = |clock: &Clock| {
        let released = node.answer(&Request::Release { partition: 0, clock: Cow::Borrowed(clock) });
        matches!(released, Ok(Reply::Released(true)))
    };
    assert!(!release(&covered));
    let mut all = covered.clone();
    all.see(dot(first, 2));
    assert!(release(&all));
}

#[test]
fn a_second_name_of_a_write_is_passed_on_to_who_knows_the_first() {
    let (first, second, third) = (life(1, 0), life(2, 1), life(3, 2));
    let mut node = node(first, &[second, third]);
    for from in [second, third] {
        update(&mut node, from, put("key", b"value", 1).item(dot(from, 1)), 0);
    }
    let mut clock = Clock::new();
    clock.see(dot(second, 1));
    let delta = ask(&mut node, second, &Begun { ticket: 1, clock, epoch: 0 });
    assert_eq!(delta.items.len(), 1);
}

#[test]
fn repair_does_not_bring_back_a_value_that_was_evicted() {
    let (first, second, third) = (life(1, 0), life(2, 1), life(3, 2));
    let (mut small, mut other) = (node(first, &[second, third]), node(second, &[first, third]));
    write(&mut small, put("key", &[1; 3_000], 5));
    for number in 0..4 {
        write(&mut small, put(&format!("own {number}"), &[2; 3_000], 5));
    }
    assert!(matches!(known(&mut small, "key"), Known::Marker(_)), "it was evicted");
    for number in 0..4 {
        write(&mut small, Write::remove(key(&format!("own {number}")), at(6)));
    }
    // The same write under another name: there is room for it now.
    write(&mut other, put("key", &[1; 3_000], 5));
    assert!(pull(&mut small, &mut other));
    assert!(matches!(known(&mut small, "key"), Known::Marker(_)));
}

/// A remove that a life accepted as its `counter`-th write.
fn removed(by: Address, counter: u64) -> Item<'static> {
    Item { key: key("key"), version: Version::remove(at(counter)), dot: dot(by, counter), held: Held::Removed }
}

/// A pull by one that has seen these writes of a life.
fn seen(of: Address, counters: &[u64]) -> Begun {
    let mut clock = Clock::new();
    counters.iter().for_each(|&counter| clock.see(dot(of, counter)));
    Begun { ticket: 1, clock, epoch: 0 }
}

#[test]
fn what_one_has_not_seen_is_not_stable_though_all_have_seen_what_is_above_it() {
    let (first, second, third) = (life(1, 0), life(2, 1), life(3, 2));
    let mut node = node(first, &[second, third]);
    update(&mut node, third, removed(third, 1), 0);
    update(&mut node, third, removed(third, 3), 0);
    // The second has seen as much; then comes what lies between, which it has not seen.
    ask(&mut node, second, &seen(third, &[1, 3]));
    update(&mut node, third, removed(third, 2), 0);
    let delta = ask(&mut node, third, &seen(third, &[1, 2, 3]));
    assert!(delta.stable.has(dot(third, 3)) && !delta.stable.has(dot(third, 2)));
}

#[test]
fn a_life_that_is_over_is_not_closed_before_all_have_seen_all_of_it() {
    let (first, second, third, later) = (life(1, 0), life(2, 1), life(3, 2), life(9, 2));
    let mut node = node(first, &[second, third]);
    update(&mut node, third, removed(third, 1), 0);
    meet(&mut node, &[first, second, later], 0);
    ask(&mut node, second, &seen(third, &[1]));
    // The next life of that node has pulled one more of it from somebody.
    let begun = begin(&mut node);
    let mut reborn = Node::new(later, SMALL, 1);
    hold(&mut reborn, &[first, second], true);
    let mut delta = ask(&mut reborn, first, &begun);
    delta.items.push(removed(third, 2));
    delta.clock = seen(third, &[1, 2]).clock;
    assert!(apply(&mut node, &delta));
    let delta = ask(&mut node, second, &seen(third, &[1]));
    assert!(delta.stable.has(dot(third, 1)) && !delta.stable.has(dot(third, 2)), "the second has not seen it");
}

#[test]
fn an_update_that_comes_twice_revives_no_marker_that_all_have_seen() {
    let (first, second) = (life(1, 0), life(2, 1));
    let mut node = node(first, &[second]);
    write(&mut node, put("own", &[1; 3_000], 5));
    let item = put("key", &[2; 3_000], 5).item(dot(second, 1));
    update(&mut node, second, item, 0);
    for number in 0..5 {
        write(&mut node, put(&format!("own {number}"), &[3; 3_000], 5));
    }
    // All have seen it, and its marker is still there: one that is older is in its way.
    let next = put("next", b"value", 5).item(dot(second, 2));
    let update_of = |item| Request::Update { from: second, item, stable_upto: 1, used: Used::NONE, epoch: 0 };
    node.answer(&update_of(next)).expect("answered");
    assert!(matches!(known(&mut node, "own"), Known::Marker(_)) && matches!(known(&mut node, "key"), Known::Marker(_)));
    node.answer(&update_of(item)).expect("answered");
    assert!(matches!(known(&mut node, "key"), Known::Marker(_)));
}

#[test]
fn an_update_that_comes_twice_revives_no_marker_where_others_were_lost() {
    let (first, second) = (life(1, 0), life(2, 1));
    let mut node = node(first, &[second]);
    for number in 0..400 {
        write(&mut node, put(&format!("own {number}"), &[0; 100], 10));
    }
    assert_eq!(node.floor(0), Some(at(10)), "markers were lost");
    let item = put("key", &[2; 3_000], 50).item(dot(second, 1));
    update(&mut node, second, item, 0);
    for number in 0..4 {
        write(&mut node, put(&format!("large {number}"), &[3; 3_000], 50));
    }
    assert!(matches!(known(&mut node, "key"), Known::Marker(_)));
    update(&mut node, second, item, 0);
    assert!(matches!(known(&mut node, "key"), Known::Marker(_)));
}
