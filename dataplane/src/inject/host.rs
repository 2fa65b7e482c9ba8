//! Faults of the host's routing: a [`Host`] around another one that answers otherwise for the routes of tunnels.

use super::Fault;
use crate::engine::{Created, DeviceLosses, Host, LinkState};
use crate::host::pathfinder::Pathfinder;
use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use uvti_core::device::{Device, LinkSpec};
use uvti_core::route::{Answer, Route, RouteKey};
use uvti_core::tables::Refusal;
use uvti_core::vti::icmp;

/// The faults in force, oldest first.
pub(super) type Routes = Arc<Mutex<Vec<RouteFault>>>;

/// Another answer for the outer routes of some tunnels.
pub(super) struct RouteFault {
    /// The number of the fault.
    pub(super) number: u32,
    way: Way,
    tunnels: Vec<Tunnel>,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Into the tunnel's own device.
    Loop,
    /// None.
    Nowhere,
    /// As before, with at most this MTU, bytes.
    Narrow(u32),
}

/// A tunnel, by the routes it uses.
pub(super) struct Tunnel {
    local: IpAddr,
    remote: IpAddr,
    ifindex: u32,
}

impl Tunnel {
    /// Of a device.
    pub(super) fn of(device: &Device) -> Self {
        Self { local: device.spec.local, remote: device.spec.remote, ifindex: device.ifindex }
    }

    fn uses(&self, key: &RouteKey) -> bool {
        let is = |end: IpAddr, address| end.is_unspecified() || end == address;
        is(self.local, key.src) && is(self.remote, key.dst)
    }
}

impl RouteFault {
    /// What `fault` does to the routes of `tunnels`; none if it is no fault of routes.
    pub(super) fn of(number: u32, fault: &Fault, tunnels: Vec<Tunnel>) -> Option<Self> {
        let way = match fault {
            Fault::LoopRoute { .. } => Way::Loop,
            Fault::NoRoute { .. } => Way::Nowhere,
            Fault::SmallMtu { mtu, .. } => Way::Narrow(*mtu),
            _ => return None,
        };
        Some(Self { number, way, tunnels })
    }

    /// The answer instead of `truth`, if the route is one of its tunnels'.
    fn answer(&self, key: &RouteKey, truth: &Answer) -> Option<Answer> {
        let tunnel = self.tunnels.iter().find(|t| t.uses(key))?;
        let mtu = truth.map_or(DEFAULT_MTU, |route| route.mtu);
        Some(match self.way {
            Way::Loop => Some(Route { ifindex: tunnel.ifindex, mtu }),
            Way::Nowhere => None,
            Way::Narrow(most) => truth.map(|route| Route { mtu: route.mtu.min(most), ..route }),
        })
    }
}

/// Of a route that is made up where there is none. Bytes.
const DEFAULT_MTU: u32 = 1500;

/// A host with faults.
pub(super) struct FaultyHost {
    inner: Box<dyn Host>,
    routes: Routes,
}

impl FaultyHost {
    /// Around `inner`.
    pub(super) fn new(inner: Box<dyn Host>, routes: Routes) -> Self {
        Self { inner, routes }
    }
}

impl Host for FaultyHost {
    fn create(&mut self, spec: &LinkSpec, mtu: u32, workers: usize) -> Result<Created, Refusal> {
        self.inner.create(spec, mtu, workers)
    }

    fn link(&mut self, ifindex: u32) -> Option<LinkState> {
        self.inner.link(ifindex)
    }

    fn losses(&mut self, ifindex: u32) -> Option<DeviceLosses> {
        self.inner.losses(ifindex)
    }

    fn set_mtu(&mut self, ifindex: u32, mtu: u32) -> Result<(), Refusal> {
        self.inner.set_mtu(ifindex, mtu)
    }

    /// The newest fault that knows the route has its way.
    fn route(&mut self, key: RouteKey) -> (Answer, bool) {
        let (truth, local) = self.inner.route(key);
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = routes.iter().rev().find_map(|fault| fault.answer(&key, &truth));
        (answer.unwrap_or(truth), local)
    }

    fn addresses(&mut self) -> HashSet<IpAddr> {
        self.inner.addresses()
    }

    fn pathfinder(&mut self) -> io::Result<Box<dyn Pathfinder>> {
        self.inner.pathfinder()
    }

    fn send_icmp(&mut self, message: &icmp::Message) -> io::Result<()> {
        self.inner.send_icmp(message)
    }

    fn sysctl(&mut self, name: &str) -> Option<String> {
        self.inner.sysctl(name)
    }

    fn set_sysctl(&mut self, name: &str, value: &str) -> Option<io::Result<()>> {
        self.inner.set_sysctl(name, value)
    }

    fn random(&mut self) -> u64 {
        self.inner.random()
    }
}
