//! ```text
//! bit   127 ........ 6 5 4 3 2 1 0
//!        0  ........ 0 1 0 0 1 1 0     the set {1, 2, 5}
//! ```
//! A set of nodes in one machine word pair: who is a member, who is live, who has answered.
//! Promise: it is `Copy`, never allocates, and lists its nodes in ascending order.

use crate::NodeId;

/// A set of node ids below [`NodeSet::IDS`]. Aligned like two words, so that what holds one is not padded for it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(C, packed(8))]
pub struct NodeSet(u128);

impl NodeSet {
    /// How many different ids fit: 0 to 127. A cache uses 0 to 99.
    pub const IDS: usize = 128;

    /// The empty set.
    #[inline]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds a node; true if it was not in the set.
    ///
    /// # Panics
    /// If the id is not below [`NodeSet::IDS`].
    #[inline]
    pub fn insert(&mut self, node: NodeId) -> bool {
        assert!(usize::from(node) < Self::IDS, "node id {node} is not below {}", Self::IDS);
        let added = !self.contains(node);
        self.0 |= 1 << node;
        added
    }

    /// Takes a node out; true if it was in the set.
    #[inline]
    pub fn remove(&mut self, node: NodeId) -> bool {
        let held = self.contains(node);
        if held {
            self.0 &= !(1 << node);
        }
        held
    }

    /// Whether the node is in the set. An id that is too large never is.
    #[inline]
    pub const fn contains(self, node: NodeId) -> bool {
        (node as usize) < Self::IDS && self.0 >> node & 1 == 1
    }

    /// The set as two words of bits, the lower first.
    #[inline]
    pub const fn words(self) -> [u64; 2] {
        [self.0 as u64, (self.0 >> 64) as u64]
    }

    /// How many nodes are in the set.
    #[inline]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether no node is in the set.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The nodes of either set.
    #[inline]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The nodes of this set that are not in the other.
    #[inline]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The nodes, ascending.
    #[inline]
    pub fn iter(self) -> Iter {
        Iter(self.0)
    }
}

impl FromIterator<NodeId> for NodeSet {
    fn from_iter<I: IntoIterator<Item = NodeId>>(nodes: I) -> Self {
        let mut set = Self::new();
        for node in nodes {
            set.insert(node);
        }
        set
    }
}

impl IntoIterator for NodeSet {
    type Item = NodeId;
    type IntoIter = Iter;

    fn into_iter(self) -> Iter {
        self.iter()
    }
}

impl core::fmt::Debug for NodeSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The nodes of a [`NodeSet`], ascending.
#[derive(Clone, Debug)]
pub struct Iter(u128);

impl Iterator for Iter {
    type Item = NodeId;

    #[inline]
    fn next(&mut self) -> Option<NodeId> {
        if self.0 == 0 {
            return None;
        }
        let node = self.0.trailing_zeros() as NodeId;
        self.0 &= self.0 - 1; // clears the lowest bit that is set
        Some(node)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.0.count_ones() as usize;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Iter {}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(nodes: &[NodeId]) -> NodeSet {
        nodes.iter().copied().collect()
    }

    #[test]
    fn a_set_lists_each_node_once_and_ascending() {
        let nodes = set(&[99, 0, 64, 63, 0, 127]);
        assert_eq!(nodes.iter().collect::<Vec<_>>(), [0, 63, 64, 99, 127]);
        assert_eq!((nodes.len(), nodes.iter().len()), (5, 5));
        assert_eq!(format!("{:?}", set(&[2, 1])), "{1, 2}");
    }

    #[test]
    fn a_word_has_a_bit_for_each_node() {
        assert_eq!(set(&[0, 2, 63, 64, 99]).words(), [1 << 63 | 0b101, 1 << 35 | 1]);
    }

    #[test]
    fn insert_and_remove_say_whether_they_changed_the_set() {
        let mut nodes = NodeSet::new();
        assert!(nodes.is_empty());
        assert!(nodes.insert(7));
        assert!(!nodes.insert(7));
        assert!(nodes.remove(7));
        assert!(!nodes.remove(7));
        assert!(nodes.is_empty() && !nodes.contains(7));
    }

    #[test]
    fn union_and_difference_are_those_of_sets() {
        let (a, b) = (set(&[1, 2, 3]), set(&[3, 4]));
        assert_eq!(a.union(b), set(&[1, 2, 3, 4]));
        assert_eq!(a.difference(b), set(&[1, 2]));
        assert_eq!(b.difference(a), set(&[4]));
    }

    #[test]
    fn an_id_that_is_too_large_is_in_no_set() {
        let mut nodes = set(&[0, 127]);
        assert!(!nodes.contains(128) && !nodes.contains(255));
        assert!(!nodes.remove(128));
        assert_eq!(nodes.len(), 2);
    }

    #[test]
    #[should_panic(expected = "node id 128 is not below 128")]
    fn an_id_that_is_too_large_cannot_be_inserted() {
        NodeSet::new().insert(128);
    }
}
