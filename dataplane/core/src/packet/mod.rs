//! Packets: buffers, views of IP headers, flows, checksums, outer headers.

mod buf;
mod checksum;
pub mod coalesce;
mod encap;
mod ethertype;
mod fragment;
mod inner;
mod outer;
pub mod segment;
#[doc(hidden)]
pub mod testing;
pub mod tos;
mod transport;

pub use buf::{Buf, HEADROOM, TAILROOM};
pub use checksum::{Sum, adjust, checksum};
pub use encap::{IPV4_HEADER, IPV6_HEADER, NoRoom, OuterHeader, PerPacket, TTL, UDP_HEADER};
pub use ethertype::EtherType;
pub use fragment::fragment;
pub(crate) use inner::hash_ends;
pub use inner::{Flow, Inner, NotIp, proto};
pub use outer::{Incoming, Outer, UdpPorts};
pub use transport::{Layout, Transport};
