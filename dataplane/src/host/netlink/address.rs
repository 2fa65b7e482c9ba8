//! Addresses of links.

use super::{Netlink, NetlinkError};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, address::AddressScope};
use std::collections::HashSet;
use std::net::IpAddr;

impl Netlink {
    /// Adds an address to a link. IPv6 addresses are usable at once (no duplicate address detection).
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> Result<(), NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = prefix;
        message.header.scope = AddressScope::Universe;
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.push(AddressAttribute::Address(address));
        if address.is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        let what = format!("adding {address}/{prefix} to link number {index}");
        self.change(Message::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL, &what)
    }

    /// All addresses of this namespace, and those that its networks broadcast to.
    pub fn addresses(&mut self) -> Result<HashSet<IpAddr>, NetlinkError> {
        let answers = self.dump(Message::GetAddress(AddressMessage::default()), "listing addresses")?;
        let mut all = HashSet::new();
        for answer in answers {
            let Message::NewAddress(found) = answer else { continue };
            all.extend(own(&found));
            all.extend(found.attributes.iter().find_map(|a| match a {
                AddressAttribute::Broadcast(address) => Some(IpAddr::V4(*address)),
                _ => None,
            }));
        }
        Ok(all)
    }

    /// Whether `address` is one of this namespace's, on any link (127.0.0.0/8 counts by its prefix).
    pub fn has_address(&mut self, address: IpAddr) -> Result<bool, NetlinkError> {
        if address.is_loopback() {
            return Ok(true);
        }
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        let answers = self.dump(Message::GetAddress(message), "listing addresses")?;
        Ok(answers.iter().any(|answer| match answer {
            Message::NewAddress(found) => own(found) == Some(address),
            _ => false,
        }))
    }
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// The host's own address: on a point-to-point link `Address` is the other end's.
pub(super) fn own(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}
