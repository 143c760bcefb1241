//! ```text
//!   teach(d)    the list grows  ->  every live node is told the list  ->  d may be used
//!   a node comes, or comes back ->  it is told the list (membership.rs)
//!   restore(d)  as teach: d came with a snapshot, and has nobody who looks after it until one adopts it
//!   forget(d)   no value needs d -> the list shrinks -> every live node is told the list
//! ```
//! The dictionaries of a cluster: one list, of which every node is told.
//!
//! Promise: a dictionary is forgotten only when it is asked for and no value that a node holds needs it, and never while a
//! snapshot is written or read; and while one is taught no node comes or goes unheard.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Cluster;
use super::view::{State, View};
use crate::dictionary::{Dictionary, DictionaryId, Library};
use crate::ids::NodeId;
use crate::message::{Reply, Request};
use crate::packed;
use crate::runtime::Runtime;

impl<R: Runtime> Cluster<R> {
    /// The dictionaries that values may need.
    pub fn dictionaries(&self) -> Arc<Vec<Dictionary>> {
        self.dictionaries.load_full()
    }

    /// Tells a node which dictionaries there are. When there never was one, there is nothing to tell.
    pub(super) fn tell_dictionaries(&self, view: &View, node: NodeId) {
        let dictionaries = self.dictionaries();
        if !dictionaries.is_empty() || self.has_taught.load(Ordering::Relaxed) {
            // A node that went down this moment will be told when it is back.
            let _ = self.ask(view.address(node), &Request::Learn { dictionaries: &dictionaries });
        }
    }

    /// Tells every live node which there are. True if one of them keeps this one.
    fn tell_all(&self, dictionary: &Dictionary) -> bool {
        let (view, dictionaries) = (self.view(), self.dictionaries());
        let request = Request::Learn { dictionaries: &dictionaries };
        let keeps = |node: &NodeId| match self.ask(view.address(*node), &request) {
            Ok(Reply::Learned { kept }) => kept.contains(&dictionary.id()),
            // A node that went down this moment will be told when it is back.
            _ => false,
        };
        view.live().iter().filter(keeps).count() > 0
    }

    fn tell_all_what_is_left(&self) {
        let view = self.view();
        view.live().iter().for_each(|node| self.tell_dictionaries(&view, node));
    }
}

/// While it lives, no dictionary is forgotten.
pub(super) struct Keeping<'c> {
    count: &'c AtomicUsize,
}

impl Drop for Keeping<'_> {
    fn drop(&mut self) {
        // A forked child began at 0.
        let _ = self.count.fetch_update(Ordering::Release, Ordering::Relaxed, |keeping| keeping.checked_sub(1));
    }
}

impl<R: Runtime> Cluster<R> {
    /// Keeps every dictionary that there is and that there will be.
    pub(super) fn keep_dictionaries(&self) -> Keeping<'_> {
        // One that is just being forgotten is no longer there when this returns.
        let _changes = self.changes.lock();
        self.keeping.fetch_add(1, Ordering::Relaxed);
        Keeping { count: &self.keeping }
    }

    /// Teaches every node a dictionary of a snapshot, unless it is known. False when no node has room for it.
    pub(super) fn restore_dictionary(&self, dictionary: &Dictionary) -> bool {
        let _changes = self.changes.lock();
        if self.dictionaries().contains(dictionary) {
            return true;
        }
        let is_taught = self.teach_one(dictionary);
        if is_taught {
            self.orphans.lock().push(dictionary.id());
        }
        is_taught
    }

    /// To be called with the changes locked.
    fn teach_one(&self, dictionary: &Dictionary) -> bool {
        let before = self.dictionaries();
        // Two of one number could not be told apart, and of two that taught the same one neither could take it back.
        if self.is_closed() || before.iter().any(|known| known.id() == dictionary.id()) {
            return false;
        }
        self.has_taught.store(true, Ordering::Relaxed);
        self.dictionaries.store(Arc::new(before.iter().chain([dictionary]).cloned().collect()));
        if self.tell_all(dictionary) {
            return true;
        }
        // Nobody has room for it.
        self.dictionaries.store(before);
        self.tell_all(dictionary);
        false
    }
}

impl<R: Runtime> Library for Cluster<R> {
    fn find(&self, id: DictionaryId) -> Option<Dictionary> {
        self.dictionaries.load().iter().find(|known| known.id() == id).cloned()
    }

    fn teach(&self, dictionary: &Dictionary) -> bool {
        let _changes = self.changes.lock();
        self.teach_one(dictionary)
    }

    fn adopt(&self) -> Option<Dictionary> {
        let mut orphans = self.orphans.lock();
        let found = self.find(*orphans.last()?);
        orphans.pop();
        found
    }

    fn orphans(&self) -> Vec<DictionaryId> {
        self.orphans.lock().clone()
    }

    fn unpacked_bytes_max(&self) -> u64 {
        packed::unpacked_bytes_max_of(self.view().node_bytes_max())
    }

    fn needed(&self, of: &[DictionaryId]) -> Vec<DictionaryId> {
        let view = self.view();
        let mut needed = Vec::new();
        for member in view.members().filter(|member| member.state != State::Failed) {
            // Partition by partition, so that no node is held for long.
            for partition in 0..view.partitions() {
                // A node that went down this moment holds nothing.
                let _ = self.runtime.look(member.address, &mut |node| {
                    node.each_value(partition, |value| {
                        let id = packed::dictionary_of(value).filter(|id| of.contains(id) && !needed.contains(id));
                        needed.extend(id);
                    });
                });
                if needed.len() == of.len() {
                    return needed;
                }
            }
        }
        needed
    }

    fn forget(&self, of: &[DictionaryId]) -> Vec<DictionaryId> {
        let _changes = self.changes.lock();
        if self.keeping.load(Ordering::Acquire) > 0 {
            return Vec::new();
        }
        let needed = self.needed(of);
        let forgotten: Vec<_> = of.iter().copied().filter(|id| !needed.contains(id)).collect();
        let left = self.dictionaries().iter().filter(|known| !forgotten.contains(&known.id())).cloned().collect();
        self.orphans.lock().retain(|orphan| !forgotten.contains(orphan));
        self.dictionaries.store(Arc::new(left));
        self.tell_all_what_is_left();
        forgotten
    }
}
