//! Where inner packets go behind a device, for workers to ask.

use super::netlink::Netlink;
use std::net::IpAddr;
use uvti_core::route::Onward;

/// Asks the host about inner packets, on behalf of a worker.
pub trait Pathfinder: Send {
    /// What the host does with a packet from `src` to `dst` that comes out of a device.
    fn onward(&mut self, ifindex: u32, src: IpAddr, dst: IpAddr) -> Onward;
}

impl Pathfinder for Netlink {
    fn onward(&mut self, ifindex: u32, src: IpAddr, dst: IpAddr) -> Onward {
        Netlink::onward(self, ifindex, src, dst)
    }
}

/// Of a host without an IP stack behind its devices.
pub struct NoPathfinder;

impl Pathfinder for NoPathfinder {
    fn onward(&mut self, _: u32, _: IpAddr, _: IpAddr) -> Onward {
        Onward::Dropped
    }
}
