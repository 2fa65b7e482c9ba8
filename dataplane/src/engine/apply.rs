//! Transactions: all changes of one are published by a single swap, or none is.

use super::host::{Created, Host};
use super::{Engine, State, note, sysctl};
use crate::io::underlay::UdpPort;
use crate::worker::Message;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use uvti_core::device::{Device, DeviceId, LinkKind, LinkSpec};
use uvti_core::route::RouteKey;
use uvti_core::tables::{Context, Errno, Op, Refusal, Snapshot};
use uvti_core::vti::transmit::route_key;
use uvti_core::xfrm::{EncapKind, Family, Sa, SaId, StateInfo, StateSpec};

/// A transaction on its way: the next tables, and what goes with them.
struct Draft {
    now: u64,
    tables: Snapshot,
    created: Vec<(DeviceId, Created)>,
    removed: Vec<DeviceId>,
    /// Whether it touches SAs in UDP, whose ports are received on.
    in_udp: bool,
}

impl Engine {
    /// Applies all of `ops`, in order, or nothing; says which one was refused, and why.
    pub fn apply(&self, ops: &[Op]) -> Result<(), (usize, Refusal)> {
        let mut state = self.lock();
        let tables = (*self.tables.load_full()).clone();
        let mut draft =
            Draft { now: self.now(), tables, created: Vec::new(), removed: Vec::new(), in_udp: false };
        let mut notices = Vec::new();
        for (i, op) in ops.iter().enumerate() {
            let before = state.monitors.want_changes().then(|| draft.tables.clone());
            if let Err(refusal) = self.draft(&mut state, &mut draft, op) {
                self.abandon(draft);
                return Err((i, refusal));
            }
            if let Some(before) = before {
                note(op, &before, &draft.tables, &mut notices);
            }
        }
        if let Some(Err(error)) = self.journal().map(|mut journal| journal.commit()) {
            self.abandon(draft);
            let text = format!("uvti: cannot note sequence numbers in the state directory: {error}");
            return Err((ops.len().saturating_sub(1), Refusal::message(Errno::Unspecified, text)));
        }
        self.publish(&mut state, draft);
        notices.iter().for_each(|notice| state.monitors.tell(notice));
        Ok(())
    }

    /// Undoes what a transaction that is refused has done outside of the tables.
    fn abandon(&self, draft: Draft) {
        for (_, created) in draft.created {
            drop(created.queues);
            let _ = created.device.remove();
        }
        if let Some(mut journal) = self.journal() {
            journal.abandon();
        }
    }

    /// `ip xfrm state allocspi`: reserves an SPI of a range (its ends included) for an SA to come.
    pub fn allocate(&self, spec: &StateSpec, range: (u32, u32)) -> Result<StateInfo, Refusal> {
        let mut state = self.lock();
        let mut tables = (*self.tables.load_full()).clone();
        let host = &mut state.host;
        let larval =
            tables.allocate(spec, range, &mut Context { now: self.now(), random: &mut || host.random() })?;
        self.store(Arc::new(tables));
        Ok(larval.info())
    }

    fn draft(&self, state: &mut State, draft: &mut Draft, op: &Op) -> Result<(), Refusal> {
        draft.in_udp |= touches_udp(&draft.tables, op);
        match op {
            Op::LinkAdd(spec) => self.add_link(state, draft, spec),
            Op::LinkChange(spec) => change_link(state.host.as_mut(), draft, spec),
            Op::LinkDel { name } => delete_link(draft, name),
            Op::StateAdd(spec) | Op::StateUpdate(spec) => {
                check_carriage(spec)?;
                apply(state, draft, op)?;
                learn_route(state.host.as_mut(), &mut draft.tables, spec);
                if let (Some(mut journal), Some(sa)) = (self.journal(), draft.tables.states.named(&spec.id()))
                {
                    journal.take_up(sa);
                }
                Ok(())
            }
            _ => apply(state, draft, op),
        }
    }

    fn add_link(&self, state: &mut State, draft: &mut Draft, spec: &LinkSpec) -> Result<(), Refusal> {
        draft.tables.check_device(spec)?;
        let mtu = spec.mtu.unwrap_or_else(|| default_mtu(state.host.as_mut(), spec));
        let created = state.host.create(spec, mtu, self.workers.len())?;
        let id = DeviceId(state.next_device);
        state.next_device += 1;
        let link = state.host.link(created.ifindex);
        let mut device = Device {
            id,
            spec: spec.clone(),
            ifindex: created.ifindex,
            mtu: link.as_ref().map_or(mtu, |l| l.mtu),
            up: link.as_ref().is_some_and(|l| l.up),
            txqlen: link.as_ref().map_or(1000, |l| l.txqlen),
            disable_xfrm: false,
            no_policy: false,
            disable_policy: [false; 2],
            local_not_ours: false,
            remote_is_ours: false,
        };
        sysctl::Flags::default().set(state, &draft.tables, &mut device);
        look_at_ends(state.host.as_mut(), &mut device);
        draft.tables.put_device(device);
        draft.created.push((id, created));
        Ok(())
    }

    /// New ports first: whoever sees the new tables finds the port, or its message. Removed ones last.
    fn publish(&self, state: &mut State, draft: Draft) {
        let tables = Arc::new(draft.tables);
        for (id, created) in draft.created {
            if let Some(device) = tables.devices.get(id) {
                state.names.insert(id, device.spec.name.clone());
                self.open_ports(state, id, created);
            }
        }
        self.store(tables.clone());
        for id in draft.removed {
            self.workers.iter().for_each(|w| w.tell(Message::RemovePort(id)));
            if let Some(device) = state.devices.remove(&id)
                && let Err(error) = device.remove()
            {
                tracing::error!(device = id.0, %error, "cannot remove the device");
            }
        }
        // A walk over all SAs: one more of a million must not take it.
        if draft.in_udp {
            self.follow_udp_ports(state, &tables);
        }
    }

    /// The one root swap. A worker that sleeps is woken, so that it lets go of the old tables, and of deleted keys.
    pub(super) fn store(&self, tables: Arc<Snapshot>) {
        self.tables.store(tables);
        self.workers.iter().for_each(|w| w.bell.ring());
    }

    fn open_ports(&self, state: &mut State, id: DeviceId, created: Created) {
        let counters = state.collector.add_device(id);
        for (i, queue) in created.queues.into_iter().enumerate() {
            let reads = created.reader.is_none_or(|r| r == i);
            self.workers[i].tell(Message::AddPort { id, queue, counters: counters.clone(), reads });
        }
        state.devices.insert(id, created.device);
    }

    /// Receives on the UDP ports that SAs with encapsulation name, and on no others.
    fn follow_udp_ports(&self, state: &mut State, tables: &Snapshot) {
        let wanted: BTreeSet<UdpPort> = tables
            .states
            .iter()
            .filter(|sa| sa.run.alive())
            .filter_map(|sa| udp_port(state.host.as_mut(), sa))
            .collect();
        if wanted == state.udp_ports {
            return;
        }
        // The first worker receives; all send.
        let (answer, failed) = crossbeam_channel::bounded(1);
        self.workers[0].tell(Message::UdpPorts(wanted.iter().copied().collect(), answer));
        state.udp_ports = wanted;
        for (port, error) in failed.recv_timeout(std::time::Duration::from_secs(2)).unwrap_or_default() {
            tracing::error!(%port, %error, "cannot receive ESP in UDP on this port");
        }
    }

    /// Asks the host again for every route and device, and publishes what is new.
    pub fn refresh(&self) {
        let mut state = self.lock();
        let old = self.tables.load_full();
        let mut tables = (*old).clone();
        let mut changed = tables.learned.expire(self.now());
        let keys: Vec<RouteKey> = old.routes.iter().map(|(k, _)| *k).collect();
        for key in keys {
            changed |= tables.put_route(key, state.host.route(key).0);
        }
        let addresses = state.host.addresses();
        if addresses != *tables.addresses {
            tables.addresses = Arc::new(addresses);
            changed = true;
        }
        changed |= look_at_sysctls(&mut state, &mut tables);
        for device in old.devices.iter() {
            let Some(link) = state.host.link(device.ifindex) else { continue };
            changed |= change_device(&mut tables, device.id, |now| {
                now.spec.name = link.name;
                (now.up, now.mtu, now.txqlen) = (link.up, link.mtu, link.txqlen);
                look_at_ends(state.host.as_mut(), now);
            });
        }
        // The workers ask again where the host takes inner packets when the tables are others.
        changed |= tables.policies.concern_host();
        if changed {
            self.store(Arc::new(tables));
        }
    }

    /// Looks at what the host sends no event about: sysctls, and the time.
    pub(super) fn look(&self) {
        let mut state = self.lock();
        let mut tables = (*self.tables.load_full()).clone();
        if tables.learned.expire(self.now()) {
            // The routes are the host's again, which has to be asked.
            drop(state);
            return self.refresh();
        }
        if look_at_sysctls(&mut state, &mut tables) {
            self.store(Arc::new(tables));
        }
    }

    /// Takes expired SAs out of the tables.
    pub(super) fn remove_states(&self, dead: &[Arc<Sa>]) {
        let _state = self.lock();
        let mut tables = (*self.tables.load_full()).clone();
        dead.iter().for_each(|sa| tables.remove_state(sa));
        self.store(Arc::new(tables));
    }
}

/// Whether an operation adds, changes or removes SAs in UDP; may say so of one that does not.
fn touches_udp(tables: &Snapshot, op: &Op) -> bool {
    let running = |id: &SaId| tables.states.named(id).is_some_and(|sa| sa.spec.encap.is_some());
    match op {
        Op::StateAdd(spec) | Op::StateUpdate(spec) => spec.encap.is_some() || running(&spec.id()),
        Op::StateDel(id) => running(id),
        Op::StateFlush(_) => true,
        _ => false,
    }
}

fn apply(state: &mut State, draft: &mut Draft, op: &Op) -> Result<(), Refusal> {
    let host = &mut state.host;
    draft.tables.apply(op, &mut Context { now: draft.now, random: &mut || host.random() })
}

/// Endpoints, keys, if_id and MTU of a device that stays.
fn change_link(host: &mut dyn Host, draft: &mut Draft, spec: &LinkSpec) -> Result<(), Refusal> {
    let old = draft.tables.devices.by_name(&spec.name).ok_or(Refusal::errno(Errno::NoDevice))?;
    let mut device = Device::clone(old);
    if device.spec.kind != spec.kind {
        return Err(Refusal::errno(Errno::Invalid));
    }
    // kernel: net/xfrm/xfrm_interface_core.c xfrmi_changelink(): the device below cannot be changed
    if device.is_xfrm() && spec.dev != device.spec.dev {
        return Err(Refusal::errno(Errno::Invalid));
    }
    let known_by = |spec: &LinkSpec| (spec.local, spec.remote, spec.if_id);
    if known_by(spec) != known_by(&device.spec) {
        let named_otherwise = LinkSpec { name: String::new(), ..spec.clone() };
        draft.tables.check_device(&named_otherwise)?;
    }
    device.spec = spec.clone();
    if let Some(mtu) = spec.mtu.filter(|mtu| *mtu != device.mtu) {
        host.set_mtu(device.ifindex, mtu)?;
        device.mtu = mtu;
    }
    draft.tables.put_device(device);
    Ok(())
}

fn delete_link(draft: &mut Draft, name: &str) -> Result<(), Refusal> {
    let id = draft.tables.devices.by_name(name).map(|d| d.id).ok_or(Refusal::errno(Errno::NoDevice))?;
    draft.tables.remove_device(id);
    match draft.created.iter().position(|(created, _)| *created == id) {
        // Added and deleted in one transaction.
        Some(i) => {
            let (_, created) = draft.created.remove(i);
            drop(created.queues);
            let _ = created.device.remove();
        }
        None => draft.removed.push(id),
    }
    Ok(())
}

/// The tables hold any encapsulation; what no socket here carries is refused by name.
fn check_carriage(spec: &StateSpec) -> Result<(), Refusal> {
    match spec.encap.map(|e| e.kind) {
        None | Some(EncapKind::EspInUdp) => Ok(()),
        Some(kind) => {
            let text = format!("uvti: encap {}: not supported in userspace, only espinudp", kind.name());
            Err(Refusal::message(Errno::NotSupported, text))
        }
    }
}

/// The route is asked for before the SA is published: a packet never waits for it.
fn learn_route(host: &mut dyn Host, tables: &mut Snapshot, spec: &StateSpec) {
    let Some(sa) = tables.states.named(&spec.id()) else { return };
    let key = route_key(sa);
    if tables.routes.find(&key).is_none() {
        tables.put_route(key, host.route(key).0);
    }
}

/// What sysctls say, in general and about each device; whether that is new.
fn look_at_sysctls(state: &mut State, tables: &mut Snapshot) -> bool {
    let settings = sysctl::settings(state, tables.settings);
    let mut changed = settings != tables.settings;
    tables.settings = settings;
    let (seen, mut flags) = (tables.clone(), sysctl::Flags::default());
    for device in seen.devices.iter() {
        changed |= change_device(tables, device.id, |now| flags.set(state, &seen, now));
    }
    changed
}

/// Changes a device in the tables; whether that made a difference.
fn change_device(tables: &mut Snapshot, id: DeviceId, change: impl FnOnce(&mut Device)) -> bool {
    let Some(old) = tables.devices.get(id).cloned() else { return false };
    let mut new = Device::clone(&old);
    change(&mut new);
    let differs = new != *old;
    if differs {
        tables.put_device(new);
    }
    differs
}

/// Whose addresses the endpoints of a `vti6` are.
///
/// kernel: net/ipv6/ip6_tunnel.c ip6_tnl_xmit_ctl()
fn look_at_ends(host: &mut dyn Host, device: &mut Device) {
    let (local, remote) = (device.spec.local, device.spec.remote);
    if device.family() == Some(Family::V6) && !local.is_unspecified() && !remote.is_unspecified() {
        let any = IpAddr::from([0; 16]);
        let mut ours = |dst| host.route(RouteKey { src: any, dst, mark: 0 }).1;
        (device.local_not_ours, device.remote_is_ours) = (!ours(local), ours(remote));
    }
}

/// The port on which packets of an SA arrive: its destination port if it is for this host, else the one that we send
/// from, to which the peer answers.
fn udp_port(host: &mut dyn Host, sa: &Sa) -> Option<UdpPort> {
    let encap = sa.spec.encap?;
    let (_, local) = host.route(route_key(sa));
    let number = if local { encap.dport } else { encap.sport };
    Some(UdpPort { v6: sa.spec.dst.is_ipv6(), number })
}

/// kernel: net/ipv4/ip_tunnel.c ip_tunnel_bind_dev(), net/ipv6/ip6_vti.c vti6_link_config()
fn default_mtu(host: &mut dyn Host, spec: &LinkSpec) -> u32 {
    let path = host.path_mtu(spec.local, spec.remote);
    match spec.kind {
        LinkKind::Vti => path.map_or(1480, |mtu| mtu.saturating_sub(20).max(68)),
        // Without a route: an Ethernet's, less the longest link header of the kernel's build.
        // kernel: net/xfrm/xfrm_interface_core.c xfrmi_dev_setup()
        LinkKind::Xfrm => 1500,
        LinkKind::Vti6 => path.map_or(1428, |mtu| mtu.saturating_sub(40).max(1280 - 40)),
    }
}
