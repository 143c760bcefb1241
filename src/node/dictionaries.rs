//! ```text
//!   Learn [ a, b ]  ->  a is here already   b is new: entries make way, then it is kept   c is not told: given up
//! ```
//! The dictionaries that a node keeps beside the values that need them. It never reads them.
//!
//! Promise: they count into `bytes_used` and take a sixteenth of the node at most. A node that is too small for one goes
//! without; whoever reads its values finds the dictionary on others.

use super::slot::State;
use super::{Node, PartitionId};
use crate::dictionary::{Dictionary, DictionaryId};
use crate::entry::{Held, Value};

/// Dictionaries take one part in so many of a node's memory at most.
const DICTIONARY_PART: usize = 16;

impl Node {
    /// Keeps these dictionaries and no others, as far as there is room. Returns those that it keeps.
    pub(super) fn learn(&mut self, told: &[Dictionary]) -> Vec<DictionaryId> {
        let before = self.dictionary_bytes();
        self.dictionaries.retain(|known| told.contains(known));
        self.dictionaries.shrink_to_fit();
        self.memory.account(before, self.dictionary_bytes());
        let kept = told.iter().filter(|dictionary| self.learn_one(dictionary)).map(Dictionary::id).collect();
        self.weigh_anew();
        kept
    }

    fn learn_one(&mut self, dictionary: &Dictionary) -> bool {
        if self.dictionaries.contains(dictionary) {
            return true;
        }
        let before = self.dictionary_bytes();
        if before + dictionary.bytes_held() > self.bytes_max / DICTIONARY_PART {
            return false;
        }
        while self.memory.bytes_used() + dictionary.bytes_held() > self.bytes_soft() {
            match self.memory.oldest(State::Live) {
                Some(at) => self.evict(at),
                None if self.drop_marker() => {}
                None => return false,
            }
        }
        self.dictionaries.reserve_exact(1);
        self.dictionaries.push(dictionary.clone());
        self.memory.account(before, self.dictionary_bytes());
        debug_assert!(self.memory.bytes_used() <= self.bytes_max, "more bytes are used than the node has");
        true
    }

    /// What they take.
    pub(super) fn dictionary_bytes(&self) -> usize {
        self.dictionaries.iter().map(Dictionary::bytes_held).sum()
    }

    /// The dictionaries it keeps.
    pub fn dictionaries(&self) -> &[Dictionary] {
        &self.dictionaries
    }

    /// Looks at every value that it holds of a partition.
    pub fn each_value(&self, partition: PartitionId, look: impl FnMut(Value<'_>)) {
        let Some(place) = self.place(partition) else { return };
        let values = self.held[place].1.table.iter().filter_map(|&at| match self.memory.held(at) {
            Held::Live(value) => Some(value),
            Held::Evicted | Held::Removed => None,
        });
        values.for_each(look);
    }
}
