//! Selectors: which inner packets a policy or a state is for.

use super::Family;
use crate::packet::Flow;
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

impl Selector {
    /// Whether a flow on device `dev` is meant.
    ///
    /// kernel: net/xfrm/xfrm_policy.c xfrm_selector_match()
    #[inline]
    pub fn matches(&self, flow: &Flow, dev: &str) -> bool {
        self.family.is_none_or(|f| f == flow.family())
            && contains(&self.dst, flow.dst)
            && contains(&self.src, flow.src)
            && self.dport.matches(flow.dport)
            && self.sport.matches(flow.sport)
            && (self.proto == 0 || self.proto == flow.proto)
            && self.dev.as_deref().is_none_or(|d| d == dev)
    }
}

/// A /0 contains everything, of the other family too: an `AF_UNSPEC` selector is written in one family.
#[inline]
fn contains(net: &IpNet, address: std::net::IpAddr) -> bool {
    net.prefix_len() == 0 || net.contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(src: &str, dst: &str, dport: u16) -> Flow {
        Flow { src: src.parse().unwrap(), dst: dst.parse().unwrap(), proto: 17, sport: 4000, dport }
    }

    #[test]
    fn every_field_counts() {
        let f = flow("10.1.0.2", "10.2.0.5", 5000);
        let any = Selector::any(Family::V4);
        assert!(any.matches(&f, "vti0"));
        let with = |change: fn(&mut Selector)| {
            let mut s = any.clone();
            change(&mut s);
            s.matches(&f, "vti0")
        };
        assert!(with(|s| s.dst = "10.2.0.0/16".parse().unwrap()));
        assert!(!with(|s| s.dst = "10.77.0.0/16".parse().unwrap()));
        assert!(!with(|s| s.src = "10.2.0.0/16".parse().unwrap()));
        assert!(with(|s| s.dport = PortMatch { value: 0x1300, mask: 0xff00 }));
        assert!(!with(|s| s.dport = PortMatch::exact(5001)));
        assert!(!with(|s| s.proto = 6));
        assert!(!with(|s| s.dev = Some("vti1".into())));
    }

    #[test]
    fn families_do_not_mix_unless_unspecified() {
        let six = flow("2001:db8::1", "2001:db8::2", 5000);
        assert!(!Selector::any(Family::V4).matches(&six, ""));
        assert!(Selector { family: None, ..Selector::any(Family::V4) }.matches(&six, ""));
    }
}
