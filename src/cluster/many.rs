//! ```text
//!   keys  ->  those of node 0 | those of node 1 | ..   one visit each: nearly all are answered
//!                  the rest  ->  get.rs, one by one    a miss, a copy that is not synced, a quorum of more than one
//! ```
//! Many reads at once: each node is held once for all keys that it is the first owner of, instead of once for each.
//!
//! Promise: what is answered, counted and used is what as many single reads would.

use super::Cluster;
use super::get::Get;
use crate::cluster::get::Answer;
use crate::config::Quorum;
use crate::entry::Key;
use crate::ids::{NODES_MAX, NodeId};
use crate::message::{Address, Known, Lent, Read};
use crate::runtime::{Runtime, Unread, Wait};

/// The end of a chain of keys.
const END: u32 = u32::MAX;

/// The keys whose first owner a node is.
#[derive(Clone, Copy)]
struct Chain {
    owner: Address,
    /// The first of them; each leads to the next.
    head: u32,
}

impl<R: Runtime> Cluster<R> {
    /// Reads many, as [`Cluster::read`] does each. On a hit `take` has been lent the value of the key with this number, the
    /// last time it was called for it. Each read is a use.
    pub fn read_many(
        &self,
        keys: &[Key<'_>],
        quorum: Option<Quorum>,
        wait: Wait,
        take: &mut dyn FnMut(usize, Read, Lent<'_>),
    ) -> Vec<Answer> {
        if self.is_closed() {
            return vec![Answer::Closed; keys.len()];
        }
        self.tell_time_without_beat();
        let (epoch, quorum) = (self.routes().epoch(), quorum.unwrap_or(self.config().reads()));
        let mut answers = vec![Answer::Miss; keys.len()];
        // What the first owner said, where that is not the answer.
        let mut unsettled = Vec::new();
        let (chains, next) = self.chains(keys, &mut unsettled);
        for chain in chains {
            let visited = self.runtime().visit(chain.owner, wait, &mut |node| {
                for at in links(chain.head, &next) {
                    match node.get(keys[at], true, &mut |read, lent| take(at, read, lent)) {
                        Read { known: Known::Live(version), synced: true }
                            if quorum == Quorum::One && !version.lifetime.ends() =>
                        {
                            answers[at] = Answer::Hit(version.timestamp);
                        }
                        read => unsettled.push((at, Some((chain.owner.node, read)))),
                    }
                }
            });
            match visited {
                Ok(()) => {}
                Err(Unread::Busy) => links(chain.head, &next).for_each(|at| answers[at] = Answer::Busy),
                Err(Unread::Down) => unsettled.extend(links(chain.head, &next).map(|at| (at, None))),
            }
        }
        for (key, _) in keys.iter().zip(&answers).filter(|(_, answer)| matches!(answer, Answer::Hit(_))) {
            self.sample_if_hit(*key);
        }
        for (at, first) in unsettled {
            let get = Get::new(keys[at].hash().partition(self.routes().partitions()), quorum, epoch);
            answers[at] = self.read_more(get, first, keys[at], true, wait, &mut |read, lent| take(at, read, lent));
        }
        answers
    }

    /// The keys of each first owner, in their order. Those that have none, or whose owner was replaced this moment, are
    /// unsettled.
    fn chains(&self, keys: &[Key<'_>], unsettled: &mut Vec<(usize, Option<(NodeId, Read)>)>) -> (Vec<Chain>, Vec<u32>) {
        let (routes, mut chains, mut next) = (self.routes(), Vec::<Chain>::new(), vec![END; keys.len()]);
        let mut chain_of = [u8::MAX; NODES_MAX as usize];
        for (at, key) in keys.iter().enumerate().rev() {
            let Some(owner) = routes.owner(key.hash().partition(routes.partitions()), 0) else {
                unsettled.push((at, None));
                continue;
            };
            let chain = &mut chain_of[usize::from(owner.node)];
            if *chain == u8::MAX {
                *chain = chains.len() as u8;
                chains.push(Chain { owner, head: END });
            }
            match &mut chains[usize::from(*chain)] {
                chain if chain.owner == owner => next[at] = std::mem::replace(&mut chain.head, at as u32),
                _ => unsettled.push((at, None)),
            }
        }
        (chains, next)
    }
}

/// The numbers of a chain's keys.
fn links(head: u32, next: &[u32]) -> impl Iterator<Item = usize> + '_ {
    std::iter::successors((head != END).then_some(head), |&at| Some(next[at as usize]).filter(|&at| at != END))
        .map(|at| at as usize)
}
