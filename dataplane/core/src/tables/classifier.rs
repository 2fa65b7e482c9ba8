//! Which policy a flow meets first, among very many.
//!
//! Policies that compare the same bits are of one *shape*; within a shape they are told apart by one look-up (tuple
//! space search). Shapes are tried from the one with the best policy on, until no better one can follow, and only
//! those whose prefix lengths occur around the flow's addresses. The kernel has trees of prefixes for this
//! (net/xfrm/xfrm_policy.c xfrm_policy_inexact_lookup_rcu()); the answer is the same: lowest priority number, then
//! the oldest.

use super::filter::Filter;
use super::prefixes::{Lengths, Prefixes, head, prefix};
use super::{Policy, Shards};
use crate::device::PolicyKey;
use crate::packet::Flow;
use crate::xfrm::{Family, Mark, Selector};
use foldhash::fast::FixedState;
use smallvec::SmallVec;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

/// Order in which policies are tried: priority, then age.
type Rank = (u32, u64);

/// Policies of one key, in the order in which they are tried. There is nearly always one.
type Same = SmallVec<[(Rank, Arc<Policy>); 1]>;

/// Below so many shapes, trying them all is cheaper than asking first which prefix lengths occur.
const FEW_SHAPES: usize = 12;

/// Keys taken out before the filter is made again, at least.
const MANY_STALE: usize = 1024;

/// Which bits of a flow a policy compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bits {
    family: Option<Family>,
    src_len: u8,
    dst_len: u8,
    proto: bool,
    dev: bool,
    sport: u16,
    dport: u16,
    mark: u32,
}

/// All policies that compare the same bits.
#[derive(Clone, Debug)]
struct Shape {
    id: u32,
    bits: Bits,
    policies: usize,
    /// No policy of this shape is before it.
    first: Rank,
}

/// A shape and what its bits must be.
#[derive(Clone, PartialEq, Eq)]
struct Key {
    src: u128,
    dst: u128,
    shape: u32,
    mark: u32,
    if_id: u32,
    /// A hash of the device's name: the policies found are asked again.
    dev: u32,
    sport: u16,
    dport: u16,
    proto: u8,
    /// Families of the prefixes: `::` is not `0.0.0.0`.
    families: (bool, bool),
}

/// In few words: a look-up hashes one key for each shape.
impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let ports = u64::from(self.sport) << 24 | u64::from(self.dport) << 8 | u64::from(self.proto);
        let rare = u64::from(self.if_id ^ self.dev.rotate_left(16)) << 32 | u64::from(self.mark);
        state.write_u64((self.src >> 64) as u64 ^ (self.dst >> 64) as u64 ^ rare);
        state.write_u64(self.src as u64);
        state.write_u64(self.dst as u64);
        state.write_u64(ports ^ u64::from(self.shape) << 44);
    }
}

/// Policies of one direction.
#[derive(Clone, Default)]
pub(super) struct Classifier {
    /// Those with the best policies first.
    shapes: Arc<Vec<Shape>>,
    next_shape: u32,
    policies: Shards<Key, Same>,
    /// Hashes of the keys there are, and of some that were: most look-ups of a flow end here.
    seen: Filter,
    /// How many keys were taken out since `seen` was made.
    stale: usize,
    sources: Prefixes,
    destinations: Prefixes,
    len: usize,
}

impl Classifier {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.iter().flat_map(|(_, same)| same.iter().map(|(_, p)| p))
    }

    /// The first policy that matches.
    pub(super) fn lookup(&self, flow: &Flow, asker: PolicyKey<'_>) -> Option<&Arc<Policy>> {
        let (src, dst) = match self.shapes.len() {
            0..=FEW_SHAPES => (Lengths::ALL, Lengths::ALL),
            _ => (self.sources.around(flow.src), self.destinations.around(flow.dst)),
        };
        let mut best: Option<(Rank, &Arc<Policy>)> = None;
        for shape in self.shapes.iter() {
            if best.is_some_and(|(rank, _)| rank < shape.first) {
                break;
            }
            if !src.has(shape.bits.src_len) || !dst.has(shape.bits.dst_len) {
                continue;
            }
            let Some(same) = shape.key(flow, asker).and_then(|key| self.find(&key)) else {
                continue;
            };
            let found = same.iter().find(|(_, p)| p.spec.sel.dev.as_deref().is_none_or(|d| d == asker.dev));
            if let Some((rank, policy)) = found
                && best.is_none_or(|(other, _)| *rank < other)
            {
                best = Some((*rank, policy));
            }
        }
        best.map(|(_, policy)| policy)
    }

    /// The policy with just this selector, mark and if_id.
    pub(super) fn named(&self, sel: &Selector, mark: Mark, if_id: u32) -> Option<&Arc<Policy>> {
        let shape = self.shape(Bits::of(sel, mark))?;
        let same = self.policies.find(&Key::of(shape.id, sel, mark, if_id))?;
        same.iter().map(|(_, p)| p).find(|p| p.is_named(sel, mark, if_id))
    }

    pub(super) fn insert(&mut self, policy: Arc<Policy>) {
        let (spec, rank) = (&policy.spec, rank(&policy));
        let id = self.count_in(Bits::of(&spec.sel, spec.mark), rank);
        let key = Key::of(id, &spec.sel, spec.mark, spec.if_id);
        self.sources.insert(&spec.sel.src);
        self.destinations.insert(&spec.sel.dst);
        let mut same = self.policies.find(&key).cloned().unwrap_or_default();
        same.insert(same.partition_point(|(r, _)| *r < rank), (rank, policy));
        self.seen.add(self.policies.hash(&key));
        self.policies.insert(key, same);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, policy: &Arc<Policy>) {
        let spec = &policy.spec;
        let bits = Bits::of(&spec.sel, spec.mark);
        let Some(id) = self.shape(bits).map(|s| s.id) else { return };
        let key = Key::of(id, &spec.sel, spec.mark, spec.if_id);
        let Some(mut same) = self.policies.find(&key).cloned() else { return };
        let before = same.len();
        same.retain(|(_, p)| !Arc::ptr_eq(p, policy));
        if same.len() == before {
            return;
        }
        match same.is_empty() {
            true => self.forget(&key),
            false => self.policies.insert(key, same),
        }
        self.count_out(id);
        self.sources.remove(&spec.sel.src);
        self.destinations.remove(&spec.sel.dst);
        self.len -= 1;
    }

    #[inline]
    fn find(&self, key: &Key) -> Option<&Same> {
        let hash = self.policies.hash(key);
        if self.seen.may_have(hash) { self.policies.find_hashed(hash, key) } else { None }
    }

    fn forget(&mut self, key: &Key) {
        self.policies.remove(key);
        self.stale += 1;
        if self.stale > self.policies.len().max(MANY_STALE) {
            self.stale = 0;
            self.seen = Filter::default();
            self.policies.iter().for_each(|(key, _)| self.seen.add(self.policies.hash(key)));
        }
    }

    /// Whether nothing is left of anything.
    #[cfg(test)]
    pub(super) fn is_clean(&self) -> bool {
        let prefixes = [&self.sources, &self.destinations];
        self.len == 0
            && self.shapes.is_empty()
            && self.policies.is_empty()
            && prefixes.iter().all(|p| p.is_empty())
    }

    fn shape(&self, bits: Bits) -> Option<&Shape> {
        self.shapes.iter().find(|s| s.bits == bits)
    }

    /// One more policy of a shape, which keeps its place in the order or moves up.
    fn count_in(&mut self, bits: Bits, rank: Rank) -> u32 {
        let shapes = Arc::make_mut(&mut self.shapes);
        let shape = match shapes.iter().position(|s| s.bits == bits) {
            Some(at) if shapes[at].first <= rank => {
                shapes[at].policies += 1;
                return shapes[at].id;
            }
            Some(at) => {
                let old = shapes.remove(at);
                Shape { policies: old.policies + 1, first: rank, ..old }
            }
            None => {
                self.next_shape += 1;
                Shape { id: self.next_shape, bits, policies: 1, first: rank }
            }
        };
        let id = shape.id;
        shapes.insert(shapes.partition_point(|s| s.first < rank), shape);
        id
    }

    /// One policy less. The shape's place in the order may now be too early, which costs a look-up and no more.
    fn count_out(&mut self, id: u32) {
        let shapes = Arc::make_mut(&mut self.shapes);
        let Some(at) = shapes.iter().position(|s| s.id == id) else { return };
        shapes[at].policies -= 1;
        if shapes[at].policies == 0 {
            shapes.remove(at);
        }
    }
}

fn rank(policy: &Policy) -> Rank {
    (policy.spec.priority, policy.number)
}

impl Bits {
    fn of(sel: &Selector, mark: Mark) -> Self {
        Self {
            family: sel.family,
            src_len: sel.src.prefix_len(),
            dst_len: sel.dst.prefix_len(),
            proto: sel.proto != 0,
            dev: sel.dev.is_some(),
            sport: sel.sport.mask,
            dport: sel.dport.mask,
            mark: mark.mask,
        }
    }
}

impl Shape {
    /// The key under which policies for the flow would be; none if the shape is for the other family.
    #[inline]
    fn key(&self, flow: &Flow, asker: PolicyKey<'_>) -> Option<Key> {
        let bits = &self.bits;
        if bits.family.is_some_and(|f| f != flow.family()) {
            return None;
        }
        let (src, dst) = (head(flow.src, bits.src_len)?, head(flow.dst, bits.dst_len)?);
        Some(Key {
            src: src.0,
            dst: dst.0,
            families: (src.1, dst.1),
            shape: self.id,
            mark: asker.mark & bits.mark,
            if_id: asker.if_id,
            dev: if bits.dev { name_hash(asker.dev) } else { 0 },
            sport: flow.sport & bits.sport,
            dport: flow.dport & bits.dport,
            proto: if bits.proto { flow.proto } else { 0 },
        })
    }
}

impl Key {
    fn of(shape: u32, sel: &Selector, mark: Mark, if_id: u32) -> Self {
        let (src, dst) = (prefix(&sel.src), prefix(&sel.dst));
        Self {
            src: src.0,
            dst: dst.0,
            families: (src.1, dst.1),
            shape,
            mark: mark.value,
            if_id,
            dev: sel.dev.as_deref().map_or(0, name_hash),
            sport: sel.sport.value & sel.sport.mask,
            dport: sel.dport.value & sel.dport.mask,
            proto: sel.proto,
        }
    }
}

fn name_hash(dev: &str) -> u32 {
    FixedState::default().hash_one(dev) as u32
}
