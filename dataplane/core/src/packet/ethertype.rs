//! What a packet is said to be.

use crate::xfrm::Family;

/// The protocol under which the host handed a packet over, whatever its bytes say.
///
/// kernel: include/uapi/linux/if_ether.h ETH_P_*, `skb->protocol`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtherType {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Something else, by its number.
    Other(u16),
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

impl Default for EtherType {
    /// Nothing.
    fn default() -> Self {
        EtherType::Other(0)
    }
}

impl EtherType {
    /// By its number.
    #[inline]
    pub const fn new(number: u16) -> Self {
        match number {
            IPV4 => EtherType::Ipv4,
            IPV6 => EtherType::Ipv6,
            other => EtherType::Other(other),
        }
    }

    /// Its number.
    #[inline]
    pub const fn number(self) -> u16 {
        match self {
            EtherType::Ipv4 => IPV4,
            EtherType::Ipv6 => IPV6,
            EtherType::Other(number) => number,
        }
    }

    /// That of a packet of which only the bytes are known.
    #[inline]
    pub fn of(packet: &[u8]) -> Self {
        match packet.first().map(|byte| byte >> 4) {
            Some(4) => EtherType::Ipv4,
            Some(6) => EtherType::Ipv6,
            _ => EtherType::Other(0),
        }
    }

    /// The address family, if it is IP.
    #[inline]
    pub const fn family(self) -> Option<Family> {
        match self {
            EtherType::Ipv4 => Some(Family::V4),
            EtherType::Ipv6 => Some(Family::V6),
            EtherType::Other(_) => None,
        }
    }
}
