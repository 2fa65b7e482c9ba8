//! The counters of a link.

use super::{Netlink, NetlinkError, indexed};
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::{LinkAttribute, Stats64};

impl Netlink {
    /// What the kernel counted on the link of this index, by the names of `struct rtnl_link_stats64`.
    pub fn link_stats(&mut self, index: u32) -> Result<Vec<(&'static str, u64)>, NetlinkError> {
        let what = format!("reading the counters of link number {index}");
        let Message::NewLink(message) = self.query(Message::GetLink(indexed(index)), &what)? else {
            return Err(Self::misread(&what, "it is not a link"));
        };
        let stats = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(stats) => Some(named(stats)),
            _ => None,
        });
        stats.ok_or_else(|| Self::misread(&what, "it has no counters"))
    }
}

/// kernel: include/uapi/linux/if_link.h
pub(super) fn named(stats: &Stats64) -> Vec<(&'static str, u64)> {
    macro_rules! fields { ($($name:ident)*) => { vec![$((stringify!($name), stats.$name)),*] } }
    fields!(
        rx_packets tx_packets rx_bytes tx_bytes rx_errors tx_errors rx_dropped tx_dropped multicast collisions
        rx_length_errors rx_over_errors rx_crc_errors rx_frame_errors rx_fifo_errors rx_missed_errors
        tx_aborted_errors tx_carrier_errors tx_fifo_errors tx_heartbeat_errors tx_window_errors
        rx_nohandler rx_otherhost_dropped
    )
}
