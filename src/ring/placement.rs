//! ```text
//! 4 partitions, 1 copy     partition   0     1     2     3      copies held
//! node 0 enters the walks              0     0     0     0      4
//! node 1, 2 of them in front          1 0   0 1   1 0   0 1     2 2
//! node 2, 1 of them in front          1 0 2 2 0 1 1 2 0 0 2 1   1 2 1     it took 1 from a fullest node
//! ```
//! Consistent hashing with virtual nodes and bounded loads (Mirrokni, Thorup and Zadimoghaddam, 2017). A node has one
//! virtual node on every partition: its place on that partition's walk. Where it enters is hashed, but how often it
//! enters among the owners is counted, and whom it displaces is the fullest. So the nodes 0 to n hold equally many
//! copies, to within one, for every n; the bound is there for what this cannot foresee, which is holes in the
//! numbering and unequal weights. A bound that hardly ever binds hardly ever moves anything.
//!
//! Promise: after `place`, a node holds at most 9/8 of its share, rounded down, or its share rounded up if that is
//! more; and one of equal nodes that joins or leaves moves its own copies and next to nothing else (tests_rs/placement.rs).

use crate::NodeId;
use crate::hash::point;
use crate::node_set::NodeSet;

/// The walks of all partitions, one after the other. The first `replicas` nodes of each, or all if there are fewer, own the partition.
pub(super) fn place(partitions: usize, replicas: usize, members: &[(NodeId, u64)]) -> Vec<NodeId> {
    let shares = Shares::new(partitions, replicas.min(members.len()), members);
    let everybody = enter(partitions, replicas, shares.of.len());
    let mut walks = bound(&everybody, replicas.min(members.len()), &shares);
    // Weights and holes can leave a node over its bound because those with room own the partition already; let others relieve it.
    walks.level(&shares, |share| share.whole, |share| share.most);
    walks.level(&shares, |share| share.least, |share| share.least);
    let one = Shares::new(partitions, 1, members);
    for (wants, keeps) in [(0, 1), (2, 2)] { let f = |s: &Share, k: i32| match k { 0 => s.whole, 1 => s.most, _ => s.least };
      for node in one.members {
        let wanted = f(&one.of[usize::from(node)], wants).saturating_sub(walks.primaries[usize::from(node)]);
        if wanted > 0 && one.members.iter().any(|n| walks.primaries[usize::from(n)] > f(&one.of[usize::from(n)], keeps)) { walks.lead(node, wanted, &shuffled(&points_of(node, walks.partitions())), |n| f(&one.of[usize::from(n)], keeps), walks.copies); }
    }}
    for partition in 0..partitions { let c = walks.copies; walks.walk_mut(partition)[1..c].sort_unstable_by_key(|&n| point(&[partition as u64, u64::from(n)])); }
    walks.nodes
}

/// How many copies a node should hold.
#[derive(Clone, Default)]
struct Share {
    /// The share, rounded down.
    whole: u32,
    /// 9/10 of it. A heavy node gets at least this much.
    least: u32,
    /// 9/8 of it. For 16 copies that is 18: two of slack, so that a hole in the numbering is filled without a chain of moves.
    most: u32,
}

struct Shares {
    members: NodeSet,
    /// By node id, up to the highest member.
    of: Vec<Share>,
}

impl Shares {
    /// In proportion to the weights. A node whose part would be more than one copy of each partition gets exactly that, and the rest is for the others.
    fn new(partitions: usize, copies: usize, members: &[(NodeId, u64)]) -> Self {
        let mut heaviest_first = members.to_vec();
        heaviest_first.sort_unstable_by_key(|&(node, weight)| (core::cmp::Reverse(weight), node));
        let ids: NodeSet = members.iter().map(|&(node, _)| node).collect();
        let mut of = vec![Share::default(); ids.iter().last().map_or(0, usize::from) + 1];

        let each = partitions as u128;
        let mut copies_left = each * copies as u128;
        let mut weight_left: u128 = members.iter().map(|&(_, weight)| u128::from(weight)).sum();
        for (node, weight) in heaviest_first {
            let part = copies_left * u128::from(weight); // divided by weight_left
            of[usize::from(node)] = if part >= each * weight_left {
                copies_left -= each;
                weight_left -= u128::from(weight);
                Share { whole: each as u32, least: each as u32, most: each as u32 }
            } else {
                Share {
                    whole: (part / weight_left) as u32,
                    least: (part * 9 / (weight_left * 10)) as u32,
                    most: part.div_ceil(weight_left).max(part * 9 / (weight_left * 8)).min(each) as u32,
                }
            };
        }
        Self { members: ids, of }
    }

    fn most(&self, node: NodeId) -> u32 {
        self.of[usize::from(node)].most
    }
}

struct Walks {
    /// How many nodes are on each walk.
    length: usize,
    /// How many of them own the partition.
    copies: usize,
    nodes: Vec<NodeId>,
    /// How many copies each node holds, by node id.
    held: Vec<u32>,
    /// In how many partitions each node is first.
    primaries: Vec<u32>,
}

/// The walks of all nodes below `ids`, member or not: nobody's place depends on who is absent, or has left.
fn enter(partitions: usize, replicas: usize, ids: usize) -> Walks {
    let mut walks = Walks { length: ids, copies: replicas, nodes: vec![0; partitions * ids], held: vec![0; ids], primaries: vec![0; ids] };
    for entered in 0..ids {
        let node = entered as NodeId;
        let nodes = entered + 1;
        let points = points_of(node, partitions);
        let order = shuffled(&points);
        for partition in 0..partitions {
            walks.walk_mut(partition)[entered] = node;
        }
        if entered < replicas {
            walks.held[entered] = partitions as u32;
        } else {
            let mut wanted = (partitions * replicas / nodes) as u32;
            for keep in [(partitions * replicas).div_ceil(nodes) as u32, wanted] {
                wanted -= walks.take(node, wanted, &order, |_| keep);
            }
        }
        if entered == 0 { walks.primaries[0] = partitions as u32; } else {
        let mut wanted = ((partitions / nodes) as u32).saturating_sub(walks.primaries[entered]);
        for keep in [partitions.div_ceil(nodes) as u32, (partitions / nodes) as u32] {
            wanted -= walks.lead(node, wanted, &order, |_| keep, nodes);
        }}
        // Where it owns nothing, it enters anywhere among the stand-ins, so that a failed node's work falls on many.
        for (partition, &point) in points.iter().enumerate() {
            let walk = &mut walks.walk_mut(partition)[..nodes];
            if entered >= replicas && walk[entered] == node {
                let place = replicas + below(nodes - replicas, point >> 32);
                walk[place..].rotate_right(1);
            }
        }
    }
    walks
}

/// The walks of the members alone. A node that holds the most it may is passed over, and comes among the stand-ins.
fn bound(everybody: &Walks, copies: usize, shares: &Shares) -> Walks {
    let partitions = everybody.partitions();
    let length = shares.members.len();
    let mut walks = Walks { length, copies, nodes: Vec::with_capacity(partitions * length), held: vec![0; shares.of.len()], primaries: vec![0; shares.of.len()] };
    let mut owners = vec![Vec::with_capacity(copies); partitions];
    // Place by place, not partition by partition: whoever is far behind on a walk, as after a hole, is the one refused.
    for place in 0..everybody.length {
        for (partition, owners) in owners.iter_mut().enumerate() {
            let node = everybody.walk(partition)[place];
            let held = &mut walks.held[usize::from(node)];
            if owners.len() < copies && shares.members.contains(node) && *held < shares.most(node) {
                owners.push(node);
                *held += 1;
            }
        }
    }
    for (partition, mut owners) in owners.into_iter().enumerate() {
        let mut stand_ins = shares.members.difference(owners.iter().copied().collect());
        while owners.len() < copies {
            // All with room own it already: the one least above its share takes it nevertheless.
            let above = |node: &NodeId| i64::from(walks.held[usize::from(*node)]) - i64::from(shares.of[usize::from(*node)].whole);
            let node = stand_ins.iter().min_by_key(above).expect("there are at least as many members as copies");
            stand_ins.remove(node);
            walks.held[usize::from(node)] += 1;
            owners.push(node);
        }
        walks.primaries[usize::from(owners[0])] += 1;
        walks.nodes.extend(owners);
        walks.nodes.extend(everybody.walk(partition).iter().filter(|&&node| stand_ins.contains(node)));
    }
    walks
}

impl Walks {
    fn partitions(&self) -> usize {
        self.nodes.len() / self.length
    }

    fn walk(&self, partition: usize) -> &[NodeId] {
        &self.nodes[partition * self.length..][..self.length]
    }

    fn walk_mut(&mut self, partition: usize) -> &mut [NodeId] {
        &mut self.nodes[partition * self.length..][..self.length]
    }

    /// Every node that holds less than it `wants` takes copies of those that hold more than they `keep`.
    fn level(&mut self, shares: &Shares, wants: fn(&Share) -> u32, keeps: fn(&Share) -> u32) {
        for node in shares.members {
            let wanted = wants(&shares.of[usize::from(node)]).saturating_sub(self.held[usize::from(node)]);
            let givers = || shares.members.iter().any(|giver| self.held[usize::from(giver)] > keeps(&shares.of[usize::from(giver)]));
            if wanted > 0 && givers() {
                let points = points_of(node, self.partitions());
                self.take(node, wanted, &shuffled(&points), |giver| keeps(&shares.of[usize::from(giver)]));
            }
        }
    }

    /// The taker becomes an owner in up to `wanted` partitions, chosen by hash, in each in place of the owner that is
    /// furthest above what it may keep, who becomes the first stand-in. Returns how many it took.
    fn take(&mut self, taker: NodeId, wanted: u32, order: &[u16], keeps: impl Fn(NodeId) -> u32) -> u32 {
        let mut taken = 0;
        for partition in order.iter().copied().map(usize::from) {
            if taken == wanted {
                break;
            }
            let (owners, stand_ins) = self.nodes[partition * self.length..][..self.length].split_at_mut(self.copies);
            let above = |node: NodeId| i64::from(self.held[usize::from(node)]) - i64::from(keeps(node));
            // Of several, the last: it is nearest to being a stand-in anyway.
            let Some((seat, giver)) = owners.iter().copied().enumerate().max_by_key(|&(_, node)| above(node)) else { break };
            if above(giver) <= 0 || owners.contains(&taker) {
                continue;
            }
            let Some(place) = stand_ins.iter().position(|&node| node == taker) else { continue };
            stand_ins[..=place].rotate_right(1);
            stand_ins[0] = giver;
            owners[seat] = taker;
            if seat == 0 { self.primaries[usize::from(giver)] -= 1; self.primaries[usize::from(taker)] += 1; }
            self.held[usize::from(giver)] -= 1;
            self.held[usize::from(taker)] += 1;
            taken += 1;
        }
        taken
    }

    fn lead(&mut self, node: NodeId, wanted: u32, order: &[u16], keeps: impl Fn(NodeId) -> u32, nodes: usize) -> u32 {
        let mut led = 0;
        let copies = self.copies.min(nodes);
        for partition in order.iter().copied().map(usize::from) {
            if led == wanted { break }
            let owners = &mut self.nodes[partition * self.length..][..copies];
            let first = owners[0];
            if self.primaries[usize::from(first)] <= keeps(first) || first == node { continue }
            let Some(seat) = owners.iter().position(|&n| n == node) else { continue };
            owners.swap(0, seat);
            self.primaries[usize::from(first)] -= 1;
            self.primaries[usize::from(node)] += 1;
            led += 1;
        }
        led
    }

    /// Puts another owner first where a node is first more often than it may. Nothing but the order of the owners changes.
    fn bound_primaries(&mut self, shares: &Shares) {
        for node in shares.members {
            let wanted = shares.of[usize::from(node)].least.saturating_sub(self.primaries[usize::from(node)]);
            if wanted > 0 { self.lead(node, wanted, &shuffled(&points_of(node, self.partitions())), |n| shares.of[usize::from(n)].least, self.copies); }
        }
        for node in shares.members {
            while self.primaries[usize::from(node)] > shares.most(node) {
                let has_room = |heir| self.primaries[usize::from(heir)] < shares.most(heir);
                // None: the weights leave no way. A primary too many costs a little time, nothing else.
                let Some(chain) = self.chain_of_heirs(node, has_room) else { break };
                self.primaries[usize::from(node)] -= 1;
                self.primaries[usize::from(chain[0].1)] += 1;
                for (partition, heir) in chain {
                    let walk = self.walk_mut(partition);
                    let seat = walk.iter().position(|&owner| owner == heir).expect("an heir is an owner");
                    walk.swap(0, seat);
                }
            }
        }
    }

    /// The shortest way to relieve a node of being first: it leaves a partition to an heir, who may leave another
    /// partition to a further heir, and so on to one that has room. The last heir comes first.
    fn chain_of_heirs(&self, node: NodeId, has_room: impl Fn(NodeId) -> bool) -> Option<Vec<(usize, NodeId)>> {
        // Breadth first. A step is: the step before it, the partition that is left, and to whom.
        let mut steps = vec![(0, 0, node)];
        let mut reached: NodeSet = [node].into_iter().collect();
        let mut here = 0;
        while here < steps.len() {
            let (_, _, first) = steps[here];
            for partition in (0..self.partitions()).filter(|&partition| self.walk(partition)[0] == first) {
                for &heir in &self.walk(partition)[1..self.copies] {
                    if reached.insert(heir) {
                        steps.push((here, partition, heir));
                        if has_room(heir) {
                            let last = Some(steps.len() - 1);
                            let back = core::iter::successors(last, |&step| Some(steps[step].0)).take_while(|&step| step > 0);
                            return Some(back.map(|step| (steps[step].1, steps[step].2)).collect());
                        }
                    }
                }
            }
            here += 1;
        }
        None
    }
}

/// Where a node's virtual nodes lie, by partition.
fn points_of(node: NodeId, partitions: usize) -> Vec<u64> {
    (0..partitions as u64).map(|partition| point(&[u64::from(node), partition])).collect()
}

/// All partitions in an order drawn from the points (Fisher and Yates).
fn shuffled(points: &[u64]) -> Vec<u16> {
    let mut order: Vec<u16> = (0..points.len() as u16).collect();
    for last in (1..points.len()).rev() {
        order.swap(last, below(last + 1, points[last]));
    }
    order
}

/// A number below `bound`, drawn from the low half of a point.
fn below(bound: usize, point: u64) -> usize {
    (u64::from(point as u32) * bound as u64 >> 32) as usize
}
