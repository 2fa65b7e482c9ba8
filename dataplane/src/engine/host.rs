//! What the engine needs of the system it runs on, as traits: tests and benches run without one.

use crate::host::pathfinder::{NoPathfinder, Pathfinder};
use crate::io::TunQueue;
use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use uvti_core::device::LinkSpec;
use uvti_core::route::{Answer, RouteKey};
use uvti_core::tables::Refusal;
use uvti_core::vti::icmp;

/// A device that the host made.
pub struct Created {
    /// Its interface index.
    pub ifindex: u32,
    /// A queue for each worker.
    pub queues: Vec<Box<dyn TunQueue>>,
    /// The worker that reads from it, if there is only one queue.
    pub reader: Option<usize>,
    /// For its removal.
    pub device: Box<dyn HostDevice>,
}

/// A device in the host's hands.
pub trait HostDevice: Send {
    /// Removes it from the host. Without this it stays, so that the host's routes go on leading into it.
    fn remove(self: Box<Self>) -> io::Result<()>;
}

/// A device's state, as the host has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Name: it may have been renamed.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// MTU, bytes.
    pub mtu: u32,
    /// Transmit queue length, packets.
    pub txqlen: u32,
}

/// Packets that a device's driver lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceLosses {
    /// From the host for a device whose queue was full, or that nobody served.
    pub from_host: u64,
    /// For the host, which did not take them from the device.
    pub to_host: u64,
}

/// The system.
pub trait Host: Send {
    /// Makes a device.
    fn create(&mut self, spec: &LinkSpec, mtu: u32, workers: usize) -> Result<Created, Refusal>;

    /// State of a device; `None` when it is gone.
    fn link(&mut self, ifindex: u32) -> Option<LinkState>;

    /// What the host counts of a device besides us; `None` where it keeps no count, or the device is gone.
    fn losses(&mut self, _ifindex: u32) -> Option<DeviceLosses> {
        None
    }

    /// Sets a device's MTU, bytes.
    fn set_mtu(&mut self, ifindex: u32, mtu: u32) -> Result<(), Refusal>;

    /// Outer route, and whether the destination is this host.
    fn route(&mut self, key: RouteKey) -> (Answer, bool);

    /// Addresses of this host.
    fn addresses(&mut self) -> HashSet<IpAddr> {
        HashSet::new()
    }

    /// MTU of the device or route towards `remote`, for a new device's own MTU.
    fn path_mtu(&mut self, local: IpAddr, remote: IpAddr) -> Option<u32> {
        if remote.is_unspecified() {
            return None;
        }
        self.route(RouteKey { src: local, dst: remote, mark: 0 }).0.map(|r| r.mtu)
    }

    /// For a worker to ask by itself.
    fn pathfinder(&mut self) -> io::Result<Box<dyn Pathfinder>> {
        Ok(Box::new(NoPathfinder))
    }

    /// Sends an ICMP error to the sender of an inner packet.
    fn send_icmp(&mut self, message: &icmp::Message) -> io::Result<()>;

    /// A sysctl by its name, as `sysctl(8)` writes it; `None` if the host lacks it.
    fn sysctl(&mut self, _name: &str) -> Option<String> {
        None
    }

    /// Sets a sysctl; `None` if the host lacks it.
    fn set_sysctl(&mut self, _name: &str, _value: &str) -> Option<io::Result<()>> {
        None
    }

    /// Random bits, for salts.
    fn random(&mut self) -> u64;
}
