//! The devices, and which of them a received packet is for.

use super::{Errno, Refusal};
use crate::device::{Device, DeviceId, LinkKind, LinkSpec};
use crate::xfrm::Family;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// All devices. A change copies the whole: there are a thousand at most.
#[derive(Clone, Default)]
pub struct Devices {
    inner: Arc<Index>,
}

#[derive(Clone, Default)]
struct Index {
    by_id: BTreeMap<DeviceId, Arc<Device>>,
    by_ifindex: HashMap<u32, DeviceId>,
    by_name: HashMap<String, DeviceId>,
    /// (local, remote); several where they are bound to different devices below.
    by_ends: HashMap<(IpAddr, IpAddr), DeviceId>,
    /// xfrm interfaces.
    by_if_id: HashMap<u32, DeviceId>,
}

impl Devices {
    /// All, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Device>> {
        self.inner.by_id.values()
    }

    /// The device of that number.
    #[inline]
    pub fn get(&self, id: DeviceId) -> Option<&Arc<Device>> {
        self.inner.by_id.get(&id)
    }

    /// The device behind an interface index.
    #[inline]
    pub fn by_ifindex(&self, ifindex: u32) -> Option<&Arc<Device>> {
        self.get(*self.inner.by_ifindex.get(&ifindex)?)
    }

    /// The device of that name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Device>> {
        self.get(*self.inner.by_name.get(name)?)
    }

    /// The device that is up for packets from `remote` to `local`: both match, then the remote with any local,
    /// then the local with any remote, then any of both.
    ///
    /// kernel: net/ipv4/ip_tunnel.c ip_tunnel_lookup()
    #[inline]
    pub fn tunnel(&self, local: IpAddr, remote: IpAddr) -> Option<&Arc<Device>> {
        let any = unspecified(Family::of(local));
        [(local, remote), (any, remote), (local, any), (any, any)]
            .into_iter()
            .filter_map(|ends| self.get(*self.inner.by_ends.get(&ends)?))
            .find(|d| d.up)
    }

    /// The xfrm interface that is up for packets of an SA.
    ///
    /// kernel: net/xfrm/xfrm_interface_core.c xfrmi_lookup()
    #[inline]
    pub fn of_sa(&self, if_id: u32) -> Option<&Arc<Device>> {
        self.get(*self.inner.by_if_id.get(&if_id)?).filter(|d| d.up)
    }

    /// Refused if the name is taken, or what received packets are told apart by: the pair of endpoints, whatever the keys,
    /// or the `if_id`.
    ///
    /// kernel: net/ipv4/ip_tunnel.c ip_tunnel_newlink(), net/xfrm/xfrm_interface_core.c xfrmi_newlink()
    pub(super) fn check_new(&self, spec: &LinkSpec) -> Result<(), Refusal> {
        let taken = match spec.kind {
            LinkKind::Xfrm if spec.if_id == 0 => {
                return Err(Refusal::message(Errno::Invalid, "if_id must be non zero"));
            }
            LinkKind::Xfrm => self.inner.by_if_id.contains_key(&spec.if_id),
            LinkKind::Vti | LinkKind::Vti6 => self.inner.by_ends.contains_key(&(spec.local, spec.remote)),
        };
        let taken = taken || self.by_name(&spec.name).is_some();
        if taken { Err(Refusal::errno(Errno::Exists)) } else { Ok(()) }
    }

    pub(super) fn insert(&mut self, device: Arc<Device>) {
        let index = Arc::make_mut(&mut self.inner);
        if let Some(old) = index.by_id.get(&device.id).cloned() {
            index.forget(&old);
        }
        index.by_ifindex.insert(device.ifindex, device.id);
        index.by_name.insert(device.spec.name.clone(), device.id);
        match device.is_xfrm() {
            true => index.by_if_id.insert(device.spec.if_id, device.id),
            false => index.by_ends.insert((device.spec.local, device.spec.remote), device.id),
        };
        index.by_id.insert(device.id, device);
    }

    pub(super) fn remove(&mut self, id: DeviceId) -> Option<Arc<Device>> {
        let old = self.get(id)?.clone();
        Arc::make_mut(&mut self.inner).forget(&old);
        Some(old)
    }
}

impl Index {
    fn forget(&mut self, d: &Device) {
        self.by_id.remove(&d.id);
        self.by_ifindex.remove(&d.ifindex);
        self.by_name.remove(&d.spec.name);
        match d.is_xfrm() {
            true => self.by_if_id.remove(&d.spec.if_id),
            false => self.by_ends.remove(&(d.spec.local, d.spec.remote)),
        };
    }
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}
