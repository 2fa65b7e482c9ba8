//! The one snapshot that a worker reads, and how an operation turns it into the next.

use super::{
    Acquire, Devices, Errno, Hearsay, Larval, Learned, Op, Policies, Refusal, Settings, Shards, States,
};
use crate::device::{Device, DeviceId};
use crate::esp::Crypter;
use crate::route::{Answer, RouteKey};
use crate::xfrm::{
    Direction, Level, Mode, PolicyId, PolicySpec, Proto, Runtime, Sa, SaDirection, SaId, Spi, StateFlags,
    StateInfo, StateSpec,
};
use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

/// Devices, states, policies and outer routes at one moment. Cloning shares everything.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Devices.
    pub devices: Devices,
    /// States.
    pub states: States,
    /// Policies.
    pub policies: Policies,
    /// Outer routes, as the host answered last, with the path MTUs learned.
    pub routes: Shards<RouteKey, Answer>,
    /// Path MTUs that routers reported.
    pub learned: Learned,
    /// This host's addresses: what is for one of them ends here.
    pub addresses: Arc<HashSet<IpAddr>>,
    /// How many workers share the SAs.
    pub workers: u16,
    /// Sysctls, and whether somebody listens.
    pub settings: Settings,
    next_number: u64,
    /// `seq` of the last acquire.
    acquires: u32,
}

/// What an operation needs from outside of the core.
pub struct Context<'a> {
    /// Seconds since the Unix epoch.
    pub now: u64,
    /// A source of random numbers, for salts.
    pub random: &'a mut dyn FnMut() -> u64,
}

impl Snapshot {
    /// Empty tables for so many workers.
    pub fn new(workers: u16) -> Self {
        Self { workers: workers.max(1), ..Self::default() }
    }

    /// Whether a packet for this address ends at this host, or is forwarded.
    pub fn is_for_us(&self, dst: IpAddr) -> bool {
        let broadcast = matches!(dst, IpAddr::V4(dst) if dst.is_broadcast());
        broadcast || dst.is_multicast() || self.addresses.contains(&dst)
    }

    /// Applies a change of states or policies. Links come by [`Snapshot::put_device`], for they need the host.
    pub fn apply(&mut self, op: &Op, cx: &mut Context<'_>) -> Result<(), Refusal> {
        match op {
            Op::StateAdd(spec) => self.add_state(spec, cx),
            Op::StateUpdate(spec) => self.update_state(spec, cx),
            Op::StateDel(id) => self.delete_state(id),
            Op::StateFlush(proto) => self.flush_states(*proto),
            Op::PolicyAdd(spec) => self.put_policy(spec, false, cx.now),
            Op::PolicyUpdate(spec) => self.put_policy(spec, true, cx.now),
            Op::PolicyDel(id) => self.delete_policy(id),
            Op::PolicyFlush => {
                self.policies.clear();
                Ok(())
            }
            Op::PolicyDefault { dir, action } => {
                self.policies.defaults[*dir as usize] = *action;
                Ok(())
            }
            Op::LinkAdd(_) | Op::LinkChange(_) | Op::LinkDel { .. } => {
                Err(Refusal::errno(Errno::NotSupported))
            }
        }
    }

    /// Whether a device may be added: refused if its name or endpoints are taken.
    pub fn check_device(&self, spec: &crate::device::LinkSpec) -> Result<(), Refusal> {
        self.devices.check_new(spec)
    }

    /// Adds a device, or replaces the one of its number.
    pub fn put_device(&mut self, device: Device) {
        self.devices.insert(Arc::new(device));
    }

    /// Removes a device.
    pub fn remove_device(&mut self, id: DeviceId) -> Option<Arc<Device>> {
        self.devices.remove(id)
    }

    /// Removes a state that is dead already (expired), if it is still there.
    pub fn remove_state(&mut self, sa: &Arc<Sa>) {
        self.states.remove(sa);
    }

    /// Puts the host's answer for a route in place, lowered by what was learned of its path; whether that is news.
    pub fn put_route(&mut self, key: RouteKey, answer: Answer) -> bool {
        let answer = self.learned.lower(key.src, key.dst, answer);
        let news = self.routes.find(&key) != Some(&answer);
        if news {
            self.routes.insert(key, answer);
        }
        news
    }

    /// Takes a router's report about the path of a route, which lowers every route between the same ends; whether it
    /// was taken.
    pub fn learn(&mut self, key: RouteKey, report: &Hearsay) -> bool {
        let ends = (key.src, key.dst);
        let Some(Some(route)) = self.routes.find(&key) else { return false };
        if !self.learned.take(ends, route.mtu, report) {
            return false;
        }
        let same_path = |(key, _): &(&RouteKey, &Answer)| (key.src, key.dst) == ends;
        let routes: Vec<_> = self.routes.iter().filter(same_path).map(|(k, a)| (*k, *a)).collect();
        for (key, answer) in routes {
            self.put_route(key, answer);
        }
        true
    }

    /// Makes the larval state of an acquire, unless there is one already.
    ///
    /// kernel: net/xfrm/xfrm_state.c xfrm_state_find()
    pub fn acquire(&mut self, acquire: &Acquire, now: u64) -> Option<Arc<Larval>> {
        let policy = &acquire.policy.spec;
        let t = policy.templates.first()?;
        let (src, dst) = t.ends(&acquire.flow);
        if self.states.larvals.is_full() || self.states.larvals.in_progress(policy, t, src, dst) {
            return None;
        }
        self.acquires = self.acquires.wrapping_add(1).max(1);
        // The kernel counts in its own order of bytes what users write in the network's.
        let (seq, number) = (self.acquires.to_be(), self.number());
        let larval = Arc::new(acquire.larval(seq, number, now, self.settings.acq_expires)?);
        self.states.larvals.insert(larval.clone());
        Some(larval)
    }

    /// Removes the larval states that nobody delivered until `now`, and returns them.
    pub fn expire_larvals(&mut self, now: u64) -> Vec<Arc<Larval>> {
        let over: Vec<_> = self.states.larvals.iter().filter(|l| l.outlived(now)).cloned().collect();
        over.iter().for_each(|l| self.states.larvals.remove(l));
        over
    }

    /// States and larval states, newest first, as `ip xfrm state list` prints them.
    pub fn state_infos(&self) -> Vec<StateInfo> {
        let states = self.states.newest_first().into_iter().map(|sa| (sa.number, sa.info()));
        let mut all: Vec<_> =
            states.chain(self.states.larvals.iter().map(|l| (l.number, l.info()))).collect();
        all.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        all.into_iter().map(|(_, info)| info).collect()
    }

    /// The state or larval state of that name.
    pub fn state_info(&self, id: &SaId) -> Option<StateInfo> {
        let state = self.states.named(id).map(|sa| sa.info());
        state.or_else(|| self.states.larvals.named(id).map(|l| l.info()))
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn add_state(&mut self, spec: &StateSpec, cx: &mut Context<'_>) -> Result<(), Refusal> {
        check_state(spec)?;
        let crypter = Arc::new(Crypter::new(&spec.algs)?);
        self.states.check_new(spec)?;
        if let Some(larval) = self.states.larvals.delivered_by(spec) {
            self.states.larvals.remove(&larval);
        }
        let run = Arc::new(Runtime::new(spec, cx.now, (cx.random)()));
        let home = home(spec, self.workers);
        let header = spec.header().map_err(|_| Refusal::errno(Errno::Invalid))?;
        let (selector, number) = (spec.selector(), self.number());
        self.states.insert(Arc::new(Sa { spec: spec.clone(), selector, header, crypter, number, home, run }));
        Ok(())
    }

    /// Reserves a free SPI of a range, its ends included, for a state like `spec`: in the larval state that asks for
    /// one, or in one of its own.
    ///
    /// kernel: net/xfrm/xfrm_state.c xfrm_find_acq(), xfrm_alloc_spi()
    pub fn allocate(
        &mut self,
        spec: &StateSpec,
        range: (u32, u32),
        cx: &mut Context<'_>,
    ) -> Result<Arc<Larval>, Refusal> {
        check_proto(spec)?;
        let taken = |spi| {
            let id = SaId { spi, ..spec.id() };
            self.states.named(&id).is_some() || self.states.larvals.named(&id).is_some()
        };
        let in_use = || Refusal::message(Errno::NoEntry, "Requested SPI is already in use");
        let spi = free_spi(range, cx.random, taken).ok_or_else(in_use)?;
        let asked = self.states.larvals.waiting(spec);
        if asked.is_none() && self.states.larvals.is_full() {
            return Err(Refusal::errno(Errno::NoBuffers));
        }
        let larval = match &asked {
            Some(old) => Larval { spec: StateSpec { spi, ..old.spec.clone() }, ..Larval::clone(old) },
            None => Larval::reserved(spec, spi, self.number(), cx.now, self.settings.acq_expires),
        };
        if let Some(old) = asked {
            self.states.larvals.remove(&old);
        }
        let larval = Arc::new(larval);
        self.states.larvals.insert(larval.clone());
        Ok(larval)
    }

    /// Selector, limits, encapsulation, marks and if_id change; keys, counters, numbers and window stay.
    ///
    /// kernel: net/xfrm/xfrm_state.c xfrm_state_update()
    fn update_state(&mut self, spec: &StateSpec, cx: &mut Context<'_>) -> Result<(), Refusal> {
        check_state(spec)?;
        if let Some(larval) = self.states.larvals.named(&spec.id()).cloned() {
            self.states.larvals.remove(&larval);
            return self.add_state(spec, cx);
        }
        let old = self.states.named(&spec.id()).cloned().ok_or(Refusal::errno(Errno::NoProcess))?;
        let mut new = old.spec.clone();
        new.limits = spec.limits;
        new.sel = spec.sel.clone();
        if spec.encap.is_some() && old.spec.encap.is_some() {
            new.encap = spec.encap;
        }
        if !spec.output_mark.is_unset() {
            new.output_mark = spec.output_mark;
        }
        if spec.if_id != 0 {
            new.if_id = spec.if_id;
        }
        let sa = Sa {
            selector: new.selector(),
            header: new.header().map_err(|_| Refusal::errno(Errno::Invalid))?,
            spec: new,
            crypter: old.crypter.clone(),
            number: old.number,
            home: old.home,
            run: old.run.clone(),
        };
        self.states.remove(&old);
        self.states.insert(Arc::new(sa));
        Ok(())
    }

    fn delete_state(&mut self, id: &SaId) -> Result<(), Refusal> {
        if let Some(sa) = self.states.named(id).cloned() {
            self.states.remove(&sa);
            return Ok(());
        }
        let larval = self.states.larvals.named(id).cloned().ok_or(Refusal::errno(Errno::NoProcess))?;
        self.states.larvals.remove(&larval);
        Ok(())
    }

    /// kernel: net/xfrm/xfrm_user.c xfrm_flush_sa(): flushing nothing is no error
    fn flush_states(&mut self, proto: Proto) -> Result<(), Refusal> {
        if proto == Proto::Any {
            self.states = States::default();
        } else {
            let doomed: Vec<_> =
                self.states.newest_first().into_iter().filter(|sa| sa.spec.proto == proto).cloned().collect();
            doomed.iter().for_each(|sa| self.states.remove(sa));
            self.states.larvals.retain(|l| l.spec.proto != proto);
        }
        Ok(())
    }

    fn put_policy(&mut self, spec: &PolicySpec, replace: bool, now: u64) -> Result<(), Refusal> {
        check_policy(spec)?;
        let number = self.number();
        self.policies.insert(spec, replace, number, now)
    }

    fn delete_policy(&mut self, id: &PolicyId) -> Result<(), Refusal> {
        let policy = self.policies.named(id).cloned().ok_or(Refusal::errno(Errno::NoEntry))?;
        self.policies.remove(&policy);
        Ok(())
    }
}

/// What the kernel refuses, and what only userspace does: by name.
fn check_state(spec: &StateSpec) -> Result<(), Refusal> {
    check_proto(spec)?;
    if spec.src.is_ipv4() != spec.dst.is_ipv4() {
        return Err(Refusal::errno(Errno::Invalid));
    }
    // kernel: net/xfrm/xfrm_replay.c xfrm_init_replay(): without a window the high half could not be told
    let inbound = spec.dir != Some(SaDirection::Out);
    if spec.flags.has(StateFlags::ESN) && spec.replay_window == 0 && inbound {
        return Err(Refusal::message(Errno::Invalid, "ESN replay window must be > 0"));
    }
    Ok(())
}

fn check_proto(spec: &StateSpec) -> Result<(), Refusal> {
    if spec.proto == Proto::Esp {
        return Ok(());
    }
    let text = format!("uvti: proto {}: not supported in userspace, only esp", spec.proto.name());
    Err(Refusal::message(Errno::NotSupported, text))
}

/// kernel: net/xfrm/xfrm_user.c verify_newpolicy_info(); validate_tmpl(): an optional tunnel on output could be
/// left out in the clear
fn check_policy(spec: &PolicySpec) -> Result<(), Refusal> {
    if spec.index != 0 && spec.index & 7 != spec.dir as u32 {
        return Err(Refusal::message(Errno::Invalid, "Policy index doesn't match direction"));
    }
    let optional_tunnel = |t: &crate::xfrm::Template| {
        t.level == Level::Use && matches!(t.mode, Mode::Tunnel | Mode::Beet) && spec.dir == Direction::Out
    };
    if spec.templates.iter().any(optional_tunnel) {
        let text = "Mode in optional template not allowed in outbound policy";
        return Err(Refusal::message(Errno::Invalid, text));
    }
    if spec.templates.len() > 1 {
        let text = "uvti: more than one template: not supported in userspace";
        return Err(Refusal::message(Errno::NotSupported, text));
    }
    Ok(())
}

/// A free SPI of a range: tried at random, as often as the range is long, but not for ever.
fn free_spi(
    (min, max): (u32, u32),
    random: &mut dyn FnMut() -> u64,
    taken: impl Fn(Spi) -> bool,
) -> Option<Spi> {
    let len = u64::from(max.checked_sub(min)?) + 1;
    (0..len.min(1024)).map(|_| Spi(min + (random() % len) as u32)).find(|spi| spi.0 != 0 && !taken(*spi))
}

/// The home worker: the same for an SA that is deleted and added again.
fn home(spec: &StateSpec, workers: u16) -> u16 {
    let mut h = foldhash::quality::FixedState::default().build_hasher();
    h.write_u32(spec.spi.0);
    (h.finish() % u64::from(workers.max(1))) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vti::testing::{IN, Lab};

    /// kernel 6.12: only what is for output alone may do without a window
    #[test]
    fn esn_needs_a_window() {
        let answer = |window, dir| {
            let mut spec = Lab::vti().states[IN].clone();
            (spec.replay_window, spec.dir) = (window, dir);
            spec.flags.0 |= StateFlags::ESN;
            check_state(&spec).map_err(|refusal| refusal.to_string())
        };
        let refused = Err("Error: ESN replay window must be > 0.".to_owned());
        assert_eq!(answer(0, None), refused);
        assert_eq!(answer(0, Some(SaDirection::In)), refused);
        assert_eq!(answer(0, Some(SaDirection::Out)), Ok(()));
        assert_eq!(answer(1, None), Ok(()));
    }
}
