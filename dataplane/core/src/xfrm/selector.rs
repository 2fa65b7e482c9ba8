//! Selectors: which inner packets a policy or a state is for.

use super::Family;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A port (or ICMP type, code, GRE key half) and its mask. The default (0/0) matches all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortMatch {
    /// The value looked for.
    pub value: u16,
    /// The bits compared.
    pub mask: u16,
}

impl PortMatch {
    /// All bits of `value`.
    pub const fn exact(value: u16) -> Self {
        Self { value, mask: u16::MAX }
    }

    /// Whether port `p` is meant.
    #[inline]
    pub const fn matches(self, p: u16) -> bool {
        p & self.mask == self.value & self.mask
    }
}

/// A traffic selector. `None` as a family matches both (`AF_UNSPEC`).
///
/// kernel: include/uapi/linux/xfrm.h struct xfrm_selector
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Selector {
    /// Family of the inner packet; `None` is `AF_UNSPEC`.
    pub family: Option<Family>,
    /// Inner source.
    pub src: IpNet,
    /// Inner destination.
    pub dst: IpNet,
    /// Inner protocol, 0 is any.
    pub proto: u8,
    /// Source port, ICMP type, or high half of a GRE key.
    pub sport: PortMatch,
    /// Destination port, ICMP code, or low half of a GRE key.
    pub dport: PortMatch,
    /// Interface name (`dev`), if any.
    pub dev: Option<String>,
}

impl Selector {
    /// Every packet of a family: `src 0.0.0.0/0 dst 0.0.0.0/0` or `src ::/0 dst ::/0`.
    pub fn any(family: Family) -> Self {
        let net: IpNet = match family {
            Family::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
            Family::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
        };
        Self {
            family: Some(family),
            src: net,
            dst: net,
            proto: 0,
            sport: PortMatch::default(),
            dport: PortMatch::default(),
            dev: None,
        }
    }
}
