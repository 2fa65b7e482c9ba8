//! The SAD: states by what received packets carry, and by what templates ask for.

use super::{Errno, Larvals, Refusal, StateMatch};
use crate::packet::Flow;
use crate::tables::Shards;
use crate::xfrm::{PolicySpec, Proto, Sa, SaId, Spi, StateSpec, Template};
use smallvec::SmallVec;
use std::net::IpAddr;
use std::sync::Arc;

/// SAs of one key, newest first. There is nearly always one.
type Few = SmallVec<[Arc<Sa>; 1]>;

/// What a received packet carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Received {
    dst: IpAddr,
    spi: Spi,
    proto: Proto,
}

/// What a template asks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Wanted {
    src: IpAddr,
    dst: IpAddr,
    reqid: u32,
}

/// What a template found.
#[derive(Debug)]
pub enum Resolved<'a> {
    /// An SA to use.
    Sa(&'a Arc<Sa>),
    /// None; the packet waits for nothing and is dropped.
    None,
    /// None, and the template's SPI belongs to an SA with other parameters.
    SpiClash,
}

/// All states.
#[derive(Clone, Default)]
pub struct States {
    /// States that are still to come.
    pub larvals: Larvals,
    received: Shards<Received, Few>,
    wanted: Shards<Wanted, Few>,
    count: usize,
}

impl States {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Sa>> {
        self.received.iter().flat_map(|(_, few)| few.iter())
    }

    /// All that are alive, newest first, as `ip xfrm state list` prints them.
    pub fn newest_first(&self) -> Vec<&Arc<Sa>> {
        let mut all: Vec<_> = self.iter().filter(|sa| sa.run.alive()).collect();
        all.sort_unstable_by_key(|sa| std::cmp::Reverse(sa.number));
        all
    }

    /// The state for a received packet, whose mark is the device's ikey. The source is not compared. An expired one
    /// counts as deleted, as in the kernel.
    ///
    /// kernel: net/xfrm/xfrm_state.c __xfrm_state_lookup()
    #[inline]
    pub fn lookup(&self, dst: IpAddr, spi: Spi, proto: Proto, mark: u32) -> Option<&Arc<Sa>> {
        let few = self.received.find(&Received { dst, spi, proto })?;
        few.iter().find(|sa| sa.spec.mark.matches(mark) && sa.run.alive())
    }

    /// The state of that name, as `ip xfrm state get` and `delete` mean it.
    pub fn named(&self, id: &SaId) -> Option<&Arc<Sa>> {
        self.lookup(id.dst, id.spi, id.proto, id.mark.value & id.mark.mask)
    }

    /// Any state with this destination and SPI, whatever its mark.
    pub fn any_mark(&self, dst: IpAddr, spi: Spi, proto: Proto) -> Option<&Arc<Sa>> {
        self.received.find(&Received { dst, spi, proto })?.first()
    }

    /// The state that a policy's template finds for a flow between the outer addresses `src` and `dst`.
    ///
    /// kernel: net/xfrm/xfrm_state.c xfrm_state_find(), xfrm_state_look_at(): a valid one that is not dying wins, then the newest; a state without source comes second
    pub fn resolve(
        &self,
        policy: &PolicySpec,
        t: &Template,
        src: IpAddr,
        dst: IpAddr,
        flow: &Flow,
    ) -> Resolved<'_> {
        let mark = policy.mark.value & policy.mark.mask;
        let fits = |sa: &&Arc<Sa>| {
            let s = &sa.spec;
            s.mode == t.mode
                && s.proto == t.proto
                && s.mark.matches(mark)
                && s.if_id == policy.if_id
                && (t.spi.0 == 0 || s.spi == t.spi)
                && sa.run.alive()
                && sa.selector.matches(flow, "")
        };
        let of = |src| {
            let few = self.wanted.find(&Wanted { src, dst, reqid: t.reqid })?;
            few.iter().filter(fits).find(|sa| !sa.run.dying()).or_else(|| few.iter().find(fits))
        };
        let any = match src {
            IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        };
        match of(src).or_else(|| of(any)) {
            Some(sa) => Resolved::Sa(sa),
            None if self.larvals.in_progress(policy, t, src, dst) => Resolved::None,
            None if t.spi.0 != 0 && self.lookup(dst, t.spi, t.proto, mark).is_some() => Resolved::SpiClash,
            None => Resolved::None,
        }
    }

    /// States with these outer addresses and reqid, whatever else they are: near misses.
    pub fn near(&self, src: IpAddr, dst: IpAddr, reqid: u32) -> &[Arc<Sa>] {
        self.wanted.find(&Wanted { src, dst, reqid }).map_or(&[], |few| few)
    }

    /// Refused if a state of that name is there. A state without mark is in the way of one with a mark.
    ///
    /// kernel: net/xfrm/xfrm_state.c xfrm_state_add(); SPI 0 is in no index, so it is never in the way
    pub(super) fn check_new(&self, spec: &StateSpec) -> Result<(), Refusal> {
        let taken = self.named(&spec.id()).is_some() || self.larvals.named(&spec.id()).is_some();
        match spec.spi.0 != 0 && taken {
            true => Err(Refusal::errno(Errno::Exists)),
            false => Ok(()),
        }
    }

    pub(super) fn insert(&mut self, sa: Arc<Sa>) {
        let (r, w) = keys(&sa);
        put(&mut self.received, r, sa.clone());
        put(&mut self.wanted, w, sa);
        self.count += 1;
    }

    pub(super) fn remove(&mut self, sa: &Arc<Sa>) {
        let (r, w) = keys(sa);
        if take(&mut self.received, r, sa) {
            take(&mut self.wanted, w, sa);
            self.count -= 1;
        }
    }

    /// States that `list` or `deleteall` mean, newest first.
    pub fn matching<'a>(&'a self, m: &'a StateMatch) -> impl Iterator<Item = &'a Arc<Sa>> {
        self.newest_first().into_iter().filter(|sa| m.matches(&sa.spec))
    }
}

fn keys(sa: &Sa) -> (Received, Wanted) {
    let s = &sa.spec;
    (Received { dst: s.dst, spi: s.spi, proto: s.proto }, Wanted { src: s.src, dst: s.dst, reqid: s.reqid })
}

fn put<K: std::hash::Hash + Eq + Clone>(index: &mut Shards<K, Few>, key: K, sa: Arc<Sa>) {
    let mut few = index.find(&key).cloned().unwrap_or_default();
    few.push(sa);
    few.sort_unstable_by_key(|sa| std::cmp::Reverse(sa.number));
    index.insert(key, few);
}

fn take<K: std::hash::Hash + Eq + Clone>(index: &mut Shards<K, Few>, key: K, sa: &Arc<Sa>) -> bool {
    let Some(mut few) = index.find(&key).cloned() else { return false };
    let before = few.len();
    few.retain(|other| !Arc::ptr_eq(other, sa));
    let found = few.len() < before;
    match few.is_empty() {
        true => drop(index.remove(&key)),
        false => index.insert(key, few),
    }
    found
}

impl StateMatch {
    /// Whether a state is one of those meant.
    pub fn matches(&self, s: &StateSpec) -> bool {
        self.src.is_none_or(|a| a == s.src)
            && self.dst.is_none_or(|a| a == s.dst)
            && self.proto.is_none_or(|p| p == Proto::Any || p == s.proto)
            && self.spi.is_none_or(|spi| spi == s.spi)
            && self.mode.is_none_or(|m| m == s.mode)
            && self.reqid.is_none_or(|r| r == s.reqid)
            && self.flags.is_none_or(|f| s.flags.has(f.0))
    }
}
