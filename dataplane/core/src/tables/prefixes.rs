//! Prefixes of addresses: which lengths occur around one.

use super::Shards;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// The first `len` bits of an address, and whether it is IPv6. A /0 is the same in both families; none if the family
/// has no such prefix.
#[inline]
pub(super) fn head(address: IpAddr, len: u8) -> Option<(u128, bool)> {
    let len = u32::from(len);
    match address {
        _ if len == 0 => Some((0, false)),
        IpAddr::V4(a) if len <= 32 => Some((u128::from(u32::from(a) & (u32::MAX << (32 - len))), false)),
        IpAddr::V4(_) => None,
        IpAddr::V6(a) => Some((u128::from(a) & (u128::MAX << (128 - len)), true)),
    }
}

/// A selector's prefix in the same form. [`IpNet`] never has more bits than its family.
pub(super) fn prefix(net: &IpNet) -> (u128, bool) {
    head(net.addr(), net.prefix_len()).unwrap_or_default()
}

/// The prefixes of all policies on one side.
#[derive(Clone, Default)]
pub(super) struct Prefixes {
    count: Shards<(u128, bool, u8), u32>,
    /// How many of each length there are.
    lengths: Arc<Vec<(u8, u32)>>,
}

/// A set of prefix lengths. Length 0 is always in.
#[derive(Clone, Copy)]
pub(super) struct Lengths(u128);

impl Lengths {
    pub(super) const ALL: Self = Self(u128::MAX);

    #[inline]
    pub(super) fn has(self, len: u8) -> bool {
        len == 0 || self.0 >> (len - 1) & 1 == 1
    }
}

impl Prefixes {
    /// Lengths of the prefixes that contain an address.
    #[inline]
    pub(super) fn around(&self, address: IpAddr) -> Lengths {
        let mut found = 0;
        for (len, _) in self.lengths.iter().filter(|(len, _)| *len > 0) {
            if let Some((bits, six)) = head(address, *len)
                && self.count.find(&(bits, six, *len)).is_some()
            {
                found |= 1 << (len - 1);
            }
        }
        Lengths(found)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.count.is_empty() && self.lengths.is_empty()
    }

    pub(super) fn insert(&mut self, net: &IpNet) {
        self.change(net, |n| n + 1);
    }

    pub(super) fn remove(&mut self, net: &IpNet) {
        self.change(net, |n| n - 1);
    }

    fn change(&mut self, net: &IpNet, change: impl Fn(u32) -> u32) {
        let ((bits, six), len) = (prefix(net), net.prefix_len());
        let key = (bits, six, len);
        match change(self.count.find(&key).copied().unwrap_or(0)) {
            0 => drop(self.count.remove(&key)),
            n => self.count.insert(key, n),
        }
        let lengths = Arc::make_mut(&mut self.lengths);
        let at = lengths.iter().position(|(l, _)| *l == len).unwrap_or_else(|| {
            lengths.push((len, 0));
            lengths.len() - 1
        });
        lengths[at].1 = change(lengths[at].1);
        if lengths[at].1 == 0 {
            lengths.remove(at);
        }
    }
}
