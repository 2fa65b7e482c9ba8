//! What the host does with a packet that a device hands it: delivers, forwards, or drops it.

use super::address::family;
use super::route::full_prefix;
use super::{Netlink, NetlinkError};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use std::net::IpAddr;
use uvti_core::route::Onward;

/// Whether the host forwards IPv6. The answer for IPv6 does not depend on it, that for IPv4 does.
const FORWARDING6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

impl Netlink {
    /// What the kernel would do with a packet from `src` to `dst` that comes out of device `iif`.
    pub fn onward(&mut self, iif: u32, src: IpAddr, dst: IpAddr) -> Onward {
        // An error is its answer: no route, no forwarding, a source that rp_filter refuses.
        let Ok(message) = self.ask_onward(iif, src, dst) else { return Onward::Dropped };
        let oif = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        let name = oif.and_then(|index| self.link_by_index(index).ok()).map(|link| link.name);
        match (message.header.kind, name) {
            (RouteType::Local, name) => Onward::Local(name.unwrap_or_else(|| "lo".to_owned())),
            (RouteType::Unicast, Some(name)) if dst.is_ipv4() || forwards_ipv6() => Onward::Forward(name),
            _ => Onward::Dropped,
        }
    }

    fn ask_onward(&mut self, iif: u32, src: IpAddr, dst: IpAddr) -> Result<RouteMessage, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(dst);
        message.header.destination_prefix_length = full_prefix(dst);
        message.header.source_prefix_length = full_prefix(src);
        message.attributes.push(RouteAttribute::Destination(dst.into()));
        message.attributes.push(RouteAttribute::Source(src.into()));
        message.attributes.push(RouteAttribute::Iif(iif));
        let what = format!("asking where a packet to {dst} goes");
        match self.query(Message::GetRoute(message), &what)? {
            Message::NewRoute(message) => Ok(message),
            _ => Err(Self::misread(&what, "it is not a route")),
        }
    }
}

fn forwards_ipv6() -> bool {
    std::fs::read_to_string(FORWARDING6).is_ok_and(|value| value.trim() != "0")
}
