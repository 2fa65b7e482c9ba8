//! VTIs and xfrm interfaces: as configured, as shown, and as the datapath sees them.

pub use crate::reason::LinkKind;
use crate::reason::LinkStats;
use crate::xfrm::{Direction, Family};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A device as configured by `ip link add NAME type vti|vti6|xfrm …` or `ip tunnel add NAME mode vti …`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSpec {
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// Kind.
    pub kind: LinkKind,
    /// Tunnel source; unspecified is any. An xfrm interface has no ends of its own.
    pub local: IpAddr,
    /// Tunnel destination; unspecified is any.
    pub remote: IpAddr,
    /// Mark with which received packets look up SA and policy (0 is none).
    pub ikey: u32,
    /// Mark with which sent packets look up policy and SA (0 is none).
    pub okey: u32,
    /// What an xfrm interface looks policies up by, and received SAs find it by; 0 for a VTI.
    pub if_id: u32,
    /// `dev PHYS`: shown; to an xfrm interface also the `dev` of selectors.
    pub dev: Option<String>,
    /// `fwmark` of the outer route look-up.
    pub fwmark: u32,
    /// `mtu N`; otherwise derived from the route to the remote when it is created.
    pub mtu: Option<u32>,
    /// What `ip tunnel` sets besides.
    pub header: TunnelHeader,
}

impl LinkSpec {
    /// A device without options: any endpoints, no keys, no `if_id`.
    pub fn new(name: impl Into<String>, kind: LinkKind) -> Self {
        let any = match kind {
            LinkKind::Vti | LinkKind::Xfrm => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            LinkKind::Vti6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Self {
            name: name.into(),
            kind,
            local: any,
            remote: any,
            ikey: 0,
            okey: 0,
            if_id: 0,
            dev: None,
            fwmark: 0,
            mtu: None,
            header: TunnelHeader::default(),
        }
    }
}

/// What `ip tunnel` sets of an outer header. A VTI keeps and shows it, and sends by it nothing: its outer header is the
/// SA's.
///
/// kernel: net/ipv4/ip_vti.c vti_xmit() hands the packet to dst_output(); no tunnel header is built
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunnelHeader {
    /// The device was added by `ip tunnel add`, not `ip link add`.
    pub by_ioctl: bool,
    /// `ttl N`; 0 is inherit.
    pub ttl: u8,
    /// `tos`; its lowest bit is inherit.
    pub tos: u8,
    /// `pmtudisc`.
    pub df: bool,
}

/// A running device, as shown.
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
    /// Counters as a kernel's device would show them.
    pub stats: LinkStats,
}

/// Names a device for as long as the process lives; never used again after the device is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeviceId(pub u32);

impl DeviceId {
    /// Stands for packets that met no device.
    pub const NONE: DeviceId = DeviceId(0);
}

/// What a policy is looked up by, besides the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyKey<'a> {
    /// `dev` of selectors; empty for none.
    pub dev: &'a str,
    /// Mark.
    pub mark: u32,
    /// `if_id` of an xfrm interface, 0 for others.
    pub if_id: u32,
}

/// A device as the datapath sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub id: DeviceId,
    /// As configured.
    pub spec: LinkSpec,
    /// Interface index of the TUN device.
    pub ifindex: u32,
    /// MTU in force, bytes.
    pub mtu: u32,
    /// Whether it is administratively up: a device that is down receives nothing.
    pub up: bool,
    /// Transmit queue length, packets.
    pub txqlen: u32,
    /// `net.ipv4.conf.DEV.disable_xfrm`.
    pub disable_xfrm: bool,
    /// `disable_policy`, of the device below or of an xfrm interface itself: what comes by it needs no input policy.
    pub no_policy: bool,
    /// `disable_policy` of the device itself, for inner IPv4 and for inner IPv6: the host asks no policy about what
    /// comes out of it.
    pub disable_policy: [bool; 2],
    /// `vti6` with endpoints: the local one is not an address of this host.
    pub local_not_ours: bool,
    /// `vti6` with endpoints: the remote one is an address of this host.
    pub remote_is_ours: bool,
}

impl Device {
    /// Family of the outer header, where that is the device's.
    pub const fn family(&self) -> Option<Family> {
        match self.spec.kind {
            LinkKind::Vti => Some(Family::V4),
            LinkKind::Vti6 => Some(Family::V6),
            LinkKind::Xfrm => None,
        }
    }

    /// What policies of a direction are looked up by for its packets. A VTI stands for its keys; an xfrm interface leaves
    /// the mark to the packet, and lends it its `dev` on the way out.
    ///
    /// kernel: net/ipv4/ip_vti.c vti_xmit(), vti_rcv_cb(); net/xfrm/xfrm_interface_core.c xfrmi_xmit2(),
    /// xfrmi_decode_session()
    #[inline]
    pub fn policy_key(&self, dir: Direction) -> PolicyKey<'_> {
        let spec = &self.spec;
        match (spec.kind, dir) {
            (LinkKind::Xfrm, Direction::Out) => {
                PolicyKey { dev: spec.dev.as_deref().unwrap_or(""), mark: 0, if_id: spec.if_id }
            }
            (LinkKind::Xfrm, _) => PolicyKey { dev: &spec.name, mark: 0, if_id: spec.if_id },
            (_, Direction::Out) => PolicyKey { dev: &spec.name, mark: spec.okey, if_id: 0 },
            (_, _) => PolicyKey { dev: &spec.name, mark: spec.ikey, if_id: 0 },
        }
    }

    /// Whether it is an xfrm interface.
    #[inline]
    pub fn is_xfrm(&self) -> bool {
        self.spec.kind == LinkKind::Xfrm
    }
}
