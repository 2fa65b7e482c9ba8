//! Links: interfaces of the namespace.

use super::{Netlink, NetlinkError};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
};
use std::os::fd::{AsFd, AsRawFd};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index, unique in the namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Largest packet, bytes.
    pub mtu: u32,
    /// Whether it is set up.
    pub up: bool,
    /// Whether the layer below is up (a cable, the other end of a veth, the reader of a TUN).
    pub carrier: bool,
    /// Transmit queue length, packets.
    pub txqlen: u32,
    /// RFC 2863 state.
    pub operstate: State,
    /// Kind as `ip link add … type` names it; none for physical devices and loopback.
    pub kind: Option<String>,
    /// `ARPHRD_*`.
    pub link_type: u16,
    /// Packets for the host that were dropped.
    pub rx_dropped: u64,
    /// Packets of the host that were dropped.
    pub tx_dropped: u64,
}

impl Link {
    pub(super) fn read(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            txqlen: 0,
            operstate: State::Unknown,
            kind: None,
            link_type: message.header.link_layer_type.into(),
            rx_dropped: 0,
            tx_dropped: 0,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::TxQueueLen(len) => link.txqlen = *len,
                LinkAttribute::Stats64(stats) => {
                    (link.rx_dropped, link.tx_dropped) = (stats.rx_dropped, stats.tx_dropped);
                }
                LinkAttribute::OperState(state) => link.operstate = *state,
                LinkAttribute::LinkInfo(info) => {
                    link.kind = info.iter().find_map(|i| match i {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }
}

impl Netlink {
    /// All links.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let answers = self.dump(Message::GetLink(LinkMessage::default()), "listing links")?;
        Ok(answers
            .iter()
            .filter_map(|answer| match answer {
                Message::NewLink(message) => Some(Link::read(message)),
                _ => None,
            })
            .collect())
    }

    /// The link of this name; `ENODEV` if there is none.
    pub fn link_by_name(&mut self, name: &str) -> Result<Link, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.link(message, name)
    }

    /// The link of this index; `ENODEV` if there is none.
    pub fn link_by_index(&mut self, index: u32) -> Result<Link, NetlinkError> {
        self.link(indexed(index), &format!("number {index}"))
    }

    fn link(&mut self, message: LinkMessage, which: &str) -> Result<Link, NetlinkError> {
        let what = format!("looking up link {which}");
        match self.query(Message::GetLink(message), &what)? {
            Message::NewLink(message) => Ok(Link::read(&message)),
            _ => Err(Self::misread(&what, "it is not a link")),
        }
    }

    /// Sets a link up or down.
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), NetlinkError> {
        let mut message = indexed(index);
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        let what = format!("setting link number {index} {}", if up { "up" } else { "down" });
        self.change(Message::SetLink(message), 0, &what)
    }

    /// Takes a link's multicast flag away.
    pub fn clear_multicast(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut message = indexed(index);
        message.header.change_mask = LinkFlags::Multicast;
        message.header.flags = LinkFlags::empty();
        let what = format!("clearing the multicast flag of link number {index}");
        self.change(Message::SetLink(message), 0, &what)
    }

    /// Sets a link's MTU, bytes.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        let mut message = indexed(index);
        message.attributes.push(LinkAttribute::Mtu(mtu));
        self.change(Message::SetLink(message), 0, &format!("setting the MTU of link number {index} to {mtu}"))
    }

    /// Sets a link's transmit queue length, packets.
    pub fn set_txqlen(&mut self, index: u32, txqlen: u32) -> Result<(), NetlinkError> {
        let mut message = indexed(index);
        message.attributes.push(LinkAttribute::TxQueueLen(txqlen));
        let what = format!("setting the transmit queue of link number {index} to {txqlen}");
        self.change(Message::SetLink(message), 0, &what)
    }

    /// Adds a pair of veth devices, the second one in another namespace.
    pub fn add_veth(&mut self, name: &str, peer: &str, peer_netns: impl AsFd) -> Result<(), NetlinkError> {
        let mut other = LinkMessage::default();
        other.attributes.push(LinkAttribute::IfName(peer.to_owned()));
        other.attributes.push(LinkAttribute::NetNsFd(peer_netns.as_fd().as_raw_fd()));
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
        ]));
        let what = format!("adding veth {name} with peer {peer}");
        self.change(Message::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, &what)
    }

    /// Deletes a link.
    pub fn delete_link(&mut self, index: u32) -> Result<(), NetlinkError> {
        self.change(Message::DelLink(indexed(index)), 0, &format!("deleting link number {index}"))
    }
}

pub(super) fn indexed(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}
