//! Rust writes typed values as plain pickles, and reads those that Python writes; what is not plain data is refused.

use std::collections::BTreeMap;

use distributed_consistent_cache::{Cache, Config, Error};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    age: Option<u32>,
    tags: Vec<String>,
    scores: BTreeMap<String, f64>,
}

fn cache() -> Cache {
    Cache::new(Config::new(3, Some(2)).expect("valid").gossip_interval(None).expect("valid"))
}

#[test]
fn a_struct_comes_back_as_it_was() {
    let scores = BTreeMap::from([("chess".to_owned(), 1.5)]);
    let user = User { name: "Ada".to_owned(), age: Some(36), tags: vec!["x".to_owned(), "x".to_owned()], scores };
    let cache = cache();
    assert_eq!(cache.put_value("user", &user, 7), Ok(true));
    assert_eq!(cache.get_value::<User>("user"), Ok(Some((user, 7))));
    assert_eq!(cache.get_value::<User>("nobody"), Ok(None));
}

#[test]
fn what_python_writes_is_read() {
    // pickle.dumps({"name": "Ada", "age": None, "tags": ["x", "x"], "scores": {}}, 5)
    let pickle =
        b"\x80\x05\x95>\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x04name\x94\x8c\x03Ada\x94\x8c\x03age\x94N\x8c\x04tags\
                   \x94]\x94(\x8c\x01x\x94h\x06e\x8c\x06scores\x94}\x94u.";
    let cache = cache();
    assert_eq!(cache.put("user", pickle, 1), Ok(true));
    let user = User { name: "Ada".to_owned(), age: None, tags: vec!["x".to_owned(); 2], scores: BTreeMap::new() };
    assert_eq!(cache.get_value::<User>("user"), Ok(Some((user, 1))));
    assert_eq!(cache.get("user"), Ok(Some((pickle.to_vec(), 1))), "and the bytes are as they were");
}

#[test]
fn what_is_not_plain_data_is_refused_and_stays() {
    let cache = cache();
    let nested = [&b"\x80\x05"[..], &b"]".repeat(200_000), &b"a".repeat(199_999), b"."].concat();
    let calls = b"\x80\x05\x8c\x02os\x94\x8c\x06system\x94\x93\x8c\x02ls\x85R.".to_vec();
    for bytes in [nested, calls, b"no pickle".to_vec(), Vec::new()] {
        cache.put("key", &bytes, 1).expect("written");
        assert!(
            matches!(cache.get_value::<Vec<String>>("key"), Err(Error::Serialization(_))),
            "{:?}",
            &bytes[..bytes.len().min(20)]
        );
        assert_eq!(cache.get("key"), Ok(Some((bytes, 1))));
        cache.remove("key", 1).expect("removed");
        cache.clear_for_test();
    }
}

trait Fresh {
    /// Lets the next write of the same time through.
    fn clear_for_test(&self);
}

impl Fresh for Cache {
    fn clear_for_test(&self) {
        for node in 0..3 {
            self.fail_node(node, true).expect("failed");
        }
        for node in 0..3 {
            self.recover_node(node).expect("recovered");
        }
    }
}

#[test]
fn many_are_written_and_read_in_order() {
    let cache = cache();
    let keys: Vec<String> = (0..500).map(|number| format!("key {number}")).collect();
    let items: Vec<(&str, &[u8], u64)> = keys.iter().map(|key| (key.as_str(), key.as_bytes(), 1)).collect();
    assert!(cache.put_many(&items).iter().all(|outcome| *outcome == Ok(true)));
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    for (key, found) in keys.iter().zip(cache.get_many(&names)) {
        assert_eq!(found, Ok(Some((key.clone().into_bytes(), 1))));
    }
}
