//! Outer routes: what the host answers for a tunnel's endpoints.
//!
//! The host routed the inner packet to the device already. What a VTI looks up is the way to the far end, once per
//! (source, destination, mark); the answer is cached here and asked for again when the host's routing changes.

use std::net::IpAddr;

/// What the outer route depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteKey {
    /// Outer source.
    pub src: IpAddr,
    /// Outer destination.
    pub dst: IpAddr,
    /// Mark of the look-up (`output-mark` of the SA).
    pub mark: u32,
}

/// The way to the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Device the packet leaves by.
    pub ifindex: u32,
    /// Path MTU: of the route if it has one, else of the device. Bytes.
    pub mtu: u32,
}

/// What the host does with an inner packet that a device hands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Onward {
    /// Delivers it to itself, by the device of this name.
    Local(String),
    /// Forwards it by the device of this name.
    Forward(String),
    /// Neither: it has no route, does not forward, or does not believe the source.
    Dropped,
}

/// The host's answer; `None` when there is no way: no route, blackhole, unreachable, prohibit, link down.
pub type Answer = Option<Route>;
