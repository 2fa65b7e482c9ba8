//! Identifiers: what names an SA, a mark, a mode, a direction.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// Security Parameters Index, in host order (RFC 4303 §2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Spi(pub u32);

impl fmt::Display for Spi {
    /// As iproute2 prints it: `0x00000100`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// A mark and its mask. A value `m` matches when `m & mask == value`; the default (0/0) matches every mark.
///
/// kernel: include/uapi/linux/xfrm.h struct xfrm_mark
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// The value looked for.
    pub value: u32,
    /// The bits compared.
    pub mask: u32,
}

impl Mark {
    /// A mark compared in all of its bits, as iproute2's `mark N` without `mask`.
    pub const fn exact(value: u32) -> Self {
        Self { value, mask: u32::MAX }
    }

    /// Whether a packet's or device's mark `m` is one of those meant.
    #[inline]
    pub const fn matches(self, m: u32) -> bool {
        m & self.mask == self.value
    }

    /// Whether no mark was given (0/0): it is then not printed.
    pub const fn is_unset(self) -> bool {
        self.value == 0 && self.mask == 0
    }
}

/// Address family of a selector or of an outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(a: IpAddr) -> Self {
        match a {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

/// IPsec protocol of a state or template. Only [`Proto::Esp`] carries traffic here; the others can be named,
/// so that a template for them finds no state, as in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Proto {
    /// ESP, protocol 50.
    #[default]
    Esp,
    /// AH, protocol 51.
    Ah,
    /// IPComp, protocol 108.
    Comp,
    /// Mobile IPv6 type 2 routing header, 43.
    Route2,
    /// Mobile IPv6 home address option, 60.
    Hao,
    /// Any IPsec protocol, 255 (templates, `deleteall`).
    Any,
}

impl Proto {
    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Proto::Esp => 50,
            Proto::Ah => 51,
            Proto::Comp => 108,
            Proto::Route2 => 43,
            Proto::Hao => 60,
            Proto::Any => 255,
        }
    }

    /// iproute2's name.
    pub const fn name(self) -> &'static str {
        match self {
            Proto::Esp => "esp",
            Proto::Ah => "ah",
            Proto::Comp => "comp",
            Proto::Route2 => "route2",
            Proto::Hao => "hao",
            Proto::Any => "ipsec-any",
        }
    }
}

/// XFRM mode of a state or template. A VTI carries [`Mode::Tunnel`] only; the others are decided against by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// RFC 4303 transport mode (the default of `ip xfrm`).
    #[default]
    Transport,
    /// RFC 4303 tunnel mode.
    Tunnel,
    /// Bound end-to-end tunnel.
    Beet,
    /// Mobile IPv6 route optimisation.
    RouteOptimization,
    /// Mobile IPv6 in_trigger.
    InTrigger,
}

impl Mode {
    /// iproute2's name.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Transport => "transport",
            Mode::Tunnel => "tunnel",
            Mode::Beet => "beet",
            Mode::RouteOptimization => "ro",
            Mode::InTrigger => "in_trigger",
        }
    }
}

/// Direction of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// Packets for this host that IPsec has just decapsulated.
    In,
    /// Packets that leave.
    Out,
    /// Decapsulated packets that are forwarded.
    Fwd,
}

impl Direction {
    /// All three, in the kernel's numbering (`XFRM_POLICY_IN` = 0).
    pub const ALL: [Direction; 3] = [Direction::In, Direction::Out, Direction::Fwd];

    /// iproute2's name.
    pub const fn name(self) -> &'static str {
        match self {
            Direction::In => "in",
            Direction::Out => "out",
            Direction::Fwd => "fwd",
        }
    }
}

/// `dir` of a state (kernel 6.10 and later).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SaDirection {
    /// For received packets only.
    In,
    /// For sent packets only.
    Out,
}

/// What names a state: destination, SPI, protocol (RFC 4301 §4.1), and in Linux its mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SaId {
    /// Outer destination.
    pub dst: IpAddr,
    /// SPI.
    pub spi: Spi,
    /// IPsec protocol.
    pub proto: Proto,
    /// Mark of the state (not of a packet).
    pub mark: Mark,
}
