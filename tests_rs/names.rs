//! A name is given once, also when a partition was given up and comes back by a partner that knows only a part.

use std::borrow::Cow;

use distributed_consistent_cache::clock::Incarnation;
use distributed_consistent_cache::cluster::exchange::Exchange;
use distributed_consistent_cache::entry::{Held, Item, Key, Value};
use distributed_consistent_cache::message::{Address, Reply, Request, Used, Write, Written};
use distributed_consistent_cache::node::Node;
use distributed_consistent_cache::runtime::Unreached;
use distributed_consistent_cache::version::Timestamp;

#[test]
fn a_name_is_given_once_also_after_a_partition_was_given_up() {
    let life = |node| Address { node, incarnation: Incarnation::new(1 + u64::from(node), node) };
    let mut nodes = [0, 1].map(|node| Node::new(life(node), 64 * 1024, 1));
    for (node, peer) in [(0, 1), (1, 0)] {
        nodes[node]
            .answer(&Request::Hold { partition: 0, peers: &[life(peer)], doubt: false, serves: true })
            .expect("held");
    }
    let put = |node: &mut Node, key: &'static [u8]| {
        let value = Value::new(b"value").expect("short");
        let write = Write::put(Key::new(key).expect("short"), Timestamp::new(1).expect("small"), value);
        match node.answer(&Request::Write { write, force: false }) {
            Ok(Reply::Written(Written::Accepted { dot, .. })) => (dot, write),
            other => panic!("{other:?}"),
        }
    };
    // The partner hears of the first write, not of the second.
    let (first, write) = put(&mut nodes[0], b"a");
    let item = Item { key: write.key, version: write.version, dot: first, held: Held::Live(write.value.expect("put")) };
    nodes[1]
        .answer(&Request::Update { from: life(0), item, stable_upto: 0, used: Used::NONE, epoch: 0 })
        .expect("seen");
    let (second, _) = put(&mut nodes[0], b"b");
    // Others have seen both, so that the partition is given up.
    let clock = nodes[0].clock(0).expect("held").0.clone();
    let released = nodes[0].answer(&Request::Release { partition: 0, clock: Cow::Owned(clock) });
    assert!(matches!(released, Ok(Reply::Released(true))));
    // It comes back, and the partner that knows the first write only is the first to be asked.
    nodes[0].answer(&Request::Hold { partition: 0, peers: &[life(1)], doubt: true, serves: true }).expect("held");
    let mut exchange = Exchange::new(life(0), life(1), &[0]);
    while let Some((to, request)) = exchange.next() {
        let reply = nodes[usize::from(to.node)].answer(&request).map_err(Unreached::Refused);
        exchange.reply(reply);
    }
    let (third, _) = put(&mut nodes[0], b"c");
    assert!(third != first && third != second, "{third:?} was given twice");
}
