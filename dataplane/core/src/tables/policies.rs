//! The SPD: policies by direction, in the order in which they are tried.

use super::classifier::Classifier;
use super::{Errno, Refusal, Shards};
use crate::device::{Device, PolicyKey};
use crate::packet::Flow;
use crate::xfrm::{Action, Direction, Lifetime, Mark, PolicyId, PolicyInfo, PolicySpec, Selector};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// A policy in the tables.
#[derive(Debug)]
pub struct Policy {
    /// As configured, with its index.
    pub spec: PolicySpec,
    /// Order of creation: among equal priorities the oldest is tried first, and lists are newest first.
    pub number: u64,
    add_time: u64,
    use_time: AtomicU64,
    /// Packets that wait for its SA, on all workers. Shared with the policy that it replaces.
    held: Arc<AtomicU32>,
}

/// Packets that may wait for the SA of one policy.
///
/// kernel: net/xfrm/xfrm_policy.c xdst_queue_output(): full when *more* than XFRM_MAX_QUEUE_LEN wait
pub const HOLD_LIMIT: u32 = 101;

impl Policy {
    pub(super) fn new(spec: PolicySpec, number: u64, now: u64, held: Arc<AtomicU32>) -> Self {
        Self { spec, number, add_time: now, use_time: AtomicU64::new(0), held }
    }

    /// Takes a place among the packets that wait for its SA; whether there was one. Give it back by
    /// [`release`](Self::release).
    pub fn hold(&self) -> bool {
        self.held.fetch_update(Relaxed, Relaxed, |n| (n < HOLD_LIMIT).then_some(n + 1)).is_ok()
    }

    /// Whether as many wait as may.
    pub fn is_full(&self) -> bool {
        self.held.load(Relaxed) >= HOLD_LIMIT
    }

    /// Gives the place of a packet back that waits no more.
    pub fn release(&self) {
        let _ = self.held.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
    }

    /// Notes a use at `now`, seconds since the Unix epoch.
    #[inline]
    pub fn touch(&self, now: u64) {
        // Several workers may do this; the cache line stays shared within a second.
        if self.use_time.load(Relaxed) != now {
            self.use_time.store(now, Relaxed);
        }
    }

    /// The policy as `ip xfrm policy` shows it.
    pub fn info(&self) -> PolicyInfo {
        let use_time = self.use_time.load(Relaxed);
        let current = Lifetime { add_time: self.add_time, use_time, ..Lifetime::default() };
        PolicyInfo { spec: self.spec.clone(), current }
    }

    pub(super) fn is_named(&self, sel: &Selector, mark: Mark, if_id: u32) -> bool {
        self.spec.sel == *sel && self.spec.mark == mark && self.spec.if_id == if_id
    }
}

/// All policies. Cloning shares everything; a change costs the same among many as among few.
#[derive(Clone)]
pub struct Policies {
    by_direction: [Classifier; 3],
    by_index: Shards<u32, Arc<Policy>>,
    /// How many take packets without a mark, by direction.
    unmarked: [usize; 3],
    /// What happens to packets that none matches.
    pub defaults: [Action; 3],
    next_index: u32,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            by_direction: Default::default(),
            by_index: Shards::default(),
            unmarked: [0; 3],
            defaults: [Action::Allow; 3],
            next_index: 0,
        }
    }
}

impl Policies {
    /// How many there are of a direction.
    pub fn count(&self, dir: Direction) -> usize {
        self.by_direction[dir as usize].len()
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.by_direction.iter().all(|dir| dir.len() == 0)
    }

    /// Whether packets without a mark are the business of any output policy, or of the default.
    #[inline]
    pub fn concern_unmarked(&self) -> bool {
        self.concern_unmarked_of(Direction::Out)
    }

    /// Whether some may be about what the host does with a packet behind a VTI, where it has no mark.
    #[inline]
    pub fn concern_host(&self) -> bool {
        self.concern_unmarked_of(Direction::Fwd) || self.concern_unmarked_of(Direction::In)
    }

    fn concern_unmarked_of(&self, dir: Direction) -> bool {
        self.unmarked[dir as usize] > 0 || self.defaults[dir as usize] == Action::Block
    }

    /// Policies of a direction in the order in which they are tried. Sorts them: for lists, not for packets.
    pub fn of(&self, dir: Direction) -> Vec<&Arc<Policy>> {
        let mut all: Vec<_> = self.by_direction[dir as usize].iter().collect();
        all.sort_unstable_by_key(|p| (p.spec.priority, p.number));
        all
    }

    /// The policy for a flow. Lower priority numbers win, then the older: not the more specific.
    ///
    /// kernel: net/xfrm/xfrm_policy.c xfrm_policy_lookup_bytype(), xfrm_policy_match()
    #[inline]
    pub fn lookup(
        &self,
        dir: Direction,
        flow: &Flow,
        dev: &str,
        mark: u32,
        if_id: u32,
    ) -> Option<&Arc<Policy>> {
        self.by_direction[dir as usize].lookup(flow, PolicyKey { dev, mark, if_id })
    }

    /// The policy for a flow that leaves by a device, or has come by it.
    #[inline]
    pub fn of_device(&self, dir: Direction, flow: &Flow, device: &Device) -> Option<&Arc<Policy>> {
        self.by_direction[dir as usize].lookup(flow, device.policy_key(dir))
    }

    /// All, newest first, as `ip xfrm policy list` prints them.
    pub fn newest_first(&self) -> Vec<&Arc<Policy>> {
        let mut all: Vec<_> = self.by_direction.iter().flat_map(Classifier::iter).collect();
        all.sort_unstable_by_key(|p| std::cmp::Reverse(p.number));
        all
    }

    /// The policy of that name.
    pub fn named(&self, id: &PolicyId) -> Option<&Arc<Policy>> {
        match id {
            PolicyId::Index { index, dir, mark, if_id } => self
                .by_index
                .find(index)
                .filter(|p| p.spec.dir == *dir && p.spec.mark == *mark && p.spec.if_id == *if_id),
            PolicyId::Selector { sel, dir, mark, if_id } => {
                self.by_direction[*dir as usize].named(sel, *mark, *if_id)
            }
        }
    }

    /// `add`: refused if there is one with this selector, mark and if_id. `update`: replaces it in its place.
    ///
    /// kernel: net/xfrm/xfrm_policy.c xfrm_policy_insert()
    pub(super) fn insert(
        &mut self,
        spec: &PolicySpec,
        replace: bool,
        number: u64,
        now: u64,
    ) -> Result<(), Refusal> {
        let mut spec = spec.clone();
        let old = self.by_direction[spec.dir as usize].named(&spec.sel, spec.mark, spec.if_id).cloned();
        let mut number = number;
        let mut held = Arc::default();
        match old {
            Some(_) if !replace => return Err(Refusal::errno(Errno::Exists)),
            Some(old) => {
                spec.index = old.spec.index;
                number = old.number;
                held = old.held.clone();
                self.remove(&old);
            }
            None => spec.index = self.index_for(spec.dir, spec.index),
        }
        let policy = Arc::new(Policy::new(spec, number, now, held));
        self.by_index.insert(policy.spec.index, policy.clone());
        self.unmarked[policy.spec.dir as usize] += usize::from(is_unmarked(&policy));
        self.by_direction[policy.spec.dir as usize].insert(policy);
        Ok(())
    }

    pub(super) fn remove(&mut self, policy: &Arc<Policy>) {
        self.by_index.remove(&policy.spec.index);
        self.by_direction[policy.spec.dir as usize].remove(policy);
        self.unmarked[policy.spec.dir as usize] -= usize::from(is_unmarked(policy));
    }

    pub(super) fn clear(&mut self) {
        self.by_direction = Default::default();
        self.by_index = Shards::default();
        self.unmarked = [0; 3];
    }

    /// The next free index: steps of 8 with the direction in the low bits; the first is never 0.
    ///
    /// kernel: net/xfrm/xfrm_policy.c xfrm_gen_index()
    fn index_for(&mut self, dir: Direction, asked: u32) -> u32 {
        let taken = |index: u32, by_index: &Shards<u32, Arc<Policy>>| by_index.find(&index).is_some();
        if asked != 0 && asked & 7 == dir as u32 && !taken(asked, &self.by_index) {
            return asked;
        }
        loop {
            let index = match self.next_index | dir as u32 {
                0 => 8,
                index => index,
            };
            self.next_index = self.next_index.wrapping_add(8);
            if !taken(index, &self.by_index) {
                return index;
            }
        }
    }
}

/// Whether it may match a packet without a mark that belongs to no xfrm interface.
fn is_unmarked(policy: &Policy) -> bool {
    policy.spec.mark.matches(0) && policy.spec.if_id == 0
}

#[cfg(test)]
mod tests;
