//! Larval states: what a key manager was asked for and has not delivered yet.

use super::Policy;
use crate::packet::Flow;
use crate::xfrm::{
    Lifetime, Limits, Mark, PolicySpec, PortMatch, Proto, ReplayCounters, SaId, Selector, Spi, StateInfo,
    StateSpec, StateStats, Template,
};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// Most larval states at once: there is one a template, but a template without outer addresses has one a flow.
const MAX: usize = 1024;

/// A state in its kernel state `ACQ`: it carries no packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Larval {
    /// What is known of the SA to come: no keys, and usually no SPI.
    pub spec: StateSpec,
    /// Order of creation, among states and larval states.
    pub number: u64,
    /// When it was created, seconds since the Unix epoch.
    pub add_time: u64,
}

impl Larval {
    /// One that a key manager reserved an SPI with, without a packet that asked.
    pub(super) fn reserved(asked: &StateSpec, spi: Spi, number: u64, now: u64, acq_expires: u64) -> Self {
        let ends = Selector { src: asked.src.into(), dst: asked.dst.into(), ..Selector::any(asked.family()) };
        let limits = Limits { hard_add_seconds: acq_expires, ..Limits::NONE };
        // `seq` finds an acquire, and is not kept.
        let spec = StateSpec { spi, limits, sel: Some(ends), seq: 0, ..asked.clone() };
        Self { spec, number, add_time: now }
    }

    /// As `ip xfrm state` shows it.
    pub fn info(&self) -> StateInfo {
        StateInfo {
            spec: self.spec.clone(),
            replay: ReplayCounters::default(),
            current: Lifetime { add_time: self.add_time, ..Lifetime::default() },
            stats: StateStats::default(),
        }
    }

    /// Whether nobody delivered in time.
    pub fn outlived(&self, now: u64) -> bool {
        now >= self.add_time.saturating_add(self.spec.limits.hard_add_seconds)
    }
}

/// An SA that a packet wanted and that is not there: what a key manager is asked for.
#[derive(Clone, Debug)]
pub struct Acquire {
    /// The policy that wants it, by its template.
    pub policy: Arc<Policy>,
    /// The packet's flow.
    pub flow: Flow,
    /// The device that the packet was about to leave by.
    pub dev: String,
}

impl Acquire {
    /// The larval state that stands for it.
    ///
    /// kernel: net/xfrm/xfrm_state.c xfrm_init_tempstate(), net/xfrm/xfrm_user.c xfrm_send_acquire()
    pub(super) fn larval(&self, seq: u32, number: u64, now: u64, acq_expires: u64) -> Option<Larval> {
        let (policy, t) = (&self.policy.spec, self.policy.spec.templates.first()?);
        let (src, dst) = t.ends(&self.flow);
        let mut spec = StateSpec::tunnel(src, dst, t.spi, Default::default());
        (spec.proto, spec.mode, spec.reqid) = (t.proto, t.mode, t.reqid);
        (spec.seq, spec.mark, spec.if_id) = (seq, policy.mark, policy.if_id);
        spec.limits = Limits { hard_add_seconds: acq_expires, ..Limits::NONE };
        spec.sel = Some(self.selector());
        Some(Larval { spec, number, add_time: now })
    }

    /// The one session that asked.
    fn selector(&self) -> Selector {
        let f = &self.flow;
        Selector {
            src: IpNet::from(f.src),
            dst: IpNet::from(f.dst),
            proto: f.proto,
            sport: PortMatch::exact(f.sport),
            dport: PortMatch::exact(f.dport),
            dev: Some(self.dev.clone()),
            ..Selector::any(f.family())
        }
    }
}

/// All larval states, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Larvals(Arc<Vec<Arc<Larval>>>);

impl Larvals {
    /// All.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Larval>> {
        self.0.iter()
    }

    /// The one that a received packet names.
    pub fn received(&self, dst: IpAddr, spi: Spi, proto: Proto, mark: u32) -> Option<&Arc<Larval>> {
        let same = |l: &&Arc<Larval>| {
            let s = &l.spec;
            spi.0 != 0 && s.spi == spi && s.dst == dst && s.proto == proto && s.mark.matches(mark)
        };
        self.0.iter().find(same)
    }

    /// The one of that name; one without SPI has none.
    pub fn named(&self, id: &SaId) -> Option<&Arc<Larval>> {
        self.received(id.dst, id.spi, id.proto, id.mark.value & id.mark.mask)
    }

    /// The one that stands for what a template wants: an acquire is in progress. Its selector is not compared.
    ///
    /// kernel: net/xfrm/xfrm_state.c xfrm_state_look_at()
    pub fn in_progress(&self, policy: &PolicySpec, t: &Template, src: IpAddr, dst: IpAddr) -> bool {
        let mark = policy.mark.value & policy.mark.mask;
        self.0.iter().any(|l| {
            let s = &l.spec;
            (s.src, s.dst, s.reqid) == (src, dst, t.reqid)
                && (s.mode, s.proto, s.if_id) == (t.mode, t.proto, policy.if_id)
                && s.mark.matches(mark)
                && (t.spi.0 == 0 || t.spi == s.spi)
        })
    }

    /// The one that a state which is added delivers.
    ///
    /// kernel: net/xfrm/xfrm_state.c xfrm_state_add(), __find_acq_core()
    pub(super) fn delivered_by(&self, new: &StateSpec) -> Option<Arc<Larval>> {
        let by_seq = |l: &&Arc<Larval>| {
            let s = &l.spec;
            new.seq != 0 && s.seq == new.seq && (s.dst, s.proto) == (new.dst, new.proto)
        };
        self.0.iter().find(by_seq).cloned().or_else(|| self.waiting(new))
    }

    /// The one without SPI that asks for a state like `new`.
    pub(super) fn waiting(&self, new: &StateSpec) -> Option<Arc<Larval>> {
        let alike = |l: &&Arc<Larval>| {
            let s = &l.spec;
            s.spi.0 == 0
                && (s.src, s.dst, s.proto) == (new.src, new.dst, new.proto)
                && (s.reqid, s.mode, s.if_id) == (new.reqid, new.mode, new.if_id)
                && same_mark(s.mark, new.mark)
        };
        self.0.iter().find(alike).cloned()
    }

    /// Whether there is no room for another.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= MAX
    }

    pub(super) fn insert(&mut self, larval: Arc<Larval>) {
        Arc::make_mut(&mut self.0).push(larval);
    }

    pub(super) fn remove(&mut self, larval: &Arc<Larval>) {
        self.retain(|l| !Arc::ptr_eq(l, larval));
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Arc<Larval>) -> bool) {
        if !self.0.iter().all(&keep) {
            Arc::make_mut(&mut self.0).retain(keep);
        }
    }
}

/// kernel: include/net/xfrm.h: marks of states are compared as the larval one's mask says
fn same_mark(larval: Mark, new: Mark) -> bool {
    larval.matches(new.value & new.mask)
}
