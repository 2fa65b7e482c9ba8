//! A door for the fuzz targets (`tests/src/fuzz`).

use super::link::Link;
use super::{Changes, address, messages, stats};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::LinkAttribute;

/// What is read of a datagram.
#[derive(Debug, Default)]
pub struct Seen {
    /// What changed.
    pub changes: Changes,
    /// Messages that are cut out of it.
    pub messages: usize,
    /// Links, whole.
    pub links: Vec<Link>,
    /// Addresses.
    pub addresses: usize,
}

/// Reads a datagram as an answer and as an event.
pub fn read(datagram: &[u8]) -> Seen {
    let mut seen = Seen::default();
    seen.changes.note_all(datagram);
    for bytes in messages(datagram) {
        seen.messages += 1;
        let Ok(message) = NetlinkMessage::<Message>::deserialize(bytes) else { continue };
        match message.payload {
            NetlinkPayload::InnerMessage(Message::NewLink(link)) => {
                seen.links.push(Link::read(&link));
                for attribute in &link.attributes {
                    if let LinkAttribute::Stats64(counted) = attribute {
                        let _ = stats::named(counted);
                    }
                }
            }
            NetlinkPayload::InnerMessage(Message::NewAddress(found)) => {
                seen.addresses += usize::from(address::own(&found).is_some());
            }
            _ => {}
        }
    }
    seen
}
