//! VTI devices as configured and as shown.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Kind of a link that uvti owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LinkKind {
    /// IPv4 outer header. kernel: net/ipv4/ip_vti.c
    Vti,
    /// IPv6 outer header. kernel: net/ipv6/ip6_vti.c
    Vti6,
}

impl LinkKind {
    /// iproute2's name (`type vti`).
    pub const fn name(self) -> &'static str {
        match self {
            LinkKind::Vti => "vti",
            LinkKind::Vti6 => "vti6",
        }
    }
}

/// A VTI as configured by `ip link add NAME type vti …` or `ip tunnel add NAME mode vti …`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSpec {
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// Kind.
    pub kind: LinkKind,
    /// Tunnel source; unspecified is any.
    pub local: IpAddr,
    /// Tunnel destination; unspecified is any.
    pub remote: IpAddr,
    /// Mark with which received packets look up SA and policy (0 is none).
    pub ikey: u32,
    /// Mark with which sent packets look up policy and SA (0 is none).
    pub okey: u32,
    /// Physical device to bind to (`dev PHYS`).
    pub dev: Option<String>,
    /// `fwmark` of the outer route look-up.
    pub fwmark: u32,
    /// `mtu N`; otherwise derived from the route to the remote when it is created.
    pub mtu: Option<u32>,
}

/// Link counters, those of `struct rtnl_link_stats64` that a VTI touches.
///
/// kernel: include/uapi/linux/if_link.h
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the kernel's, and its documentation is the reference")]
pub struct LinkStats {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
    pub collisions: u64,
    pub tx_carrier_errors: u64,
    pub tx_aborted_errors: u64,
}

/// A running VTI, as shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkInfo {
    /// As configured.
    pub spec: LinkSpec,
    /// Interface index of the TUN device behind it.
    pub ifindex: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// MTU in force.
    pub mtu: u32,
    /// Transmit queue length.
    pub txqlen: u32,
    /// Counters as a kernel VTI would show them.
    pub stats: LinkStats,
}
