//! The dataplane's side: explains on the live tables.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use uvti_core::device::Device;
use uvti_core::packet::{Buf, Outer, UdpPorts};
use uvti_core::route::Onward;
use uvti_core::tables::Snapshot;
use uvti_core::vti::explain::{self, Context, Esp, Explanation};
use uvti_core::xfrm::Spi;
use uvti_dataplane::host::netlink::Netlink;
use uvti_dataplane::io::PACKET_MAX;

/// What is asked. Packets start with their IP header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// An inner packet that is about to leave.
    Transmit {
        /// The device it leaves by.
        device: String,
        /// The packet.
        packet: Vec<u8>,
    },
    /// An outer packet that has come.
    Receive {
        /// The packet.
        packet: Vec<u8>,
    },
    /// The header of an ESP packet that would come.
    Header {
        /// Outer source.
        src: IpAddr,
        /// Outer destination.
        dst: IpAddr,
        /// Ports, if it comes in UDP.
        udp: Option<(u16, u16)>,
        /// SPI.
        spi: u32,
        /// Low half of the sequence number.
        seq: u32,
        /// What would be in it.
        inner: Option<Vec<u8>>,
    },
    /// A packet of a capture: received if it is ESP for us, otherwise it leaves.
    Captured {
        /// The device that it leaves by.
        device: Option<String>,
        /// The packet.
        packet: Vec<u8>,
    },
}

/// Explains, or says why it cannot. Reads the tables, and copies of packets.
pub fn answer(tables: &Snapshot, query: &Query) -> Result<Explanation, String> {
    let names = Names::new();
    let onward = |device: &Device, src, dst| {
        Netlink::open().map_or(Onward::Dropped, |mut netlink| netlink.onward(device.ifindex, src, dst))
    };
    let cx = Context { ifname: &|index| names.of(index), onward: &onward };
    match query {
        Query::Transmit { device, packet } => transmit(tables, device, packet, &cx),
        Query::Receive { packet } => {
            let whole =
                "not a whole ESP packet: the host would not hand it to uvti, or after reassembly only";
            let incoming = explain::incoming(tables, packet).ok_or(whole)?;
            Ok(explain::receive(tables, &incoming.outer, Esp::Packet(copy(incoming.buf.bytes())?), &cx))
        }
        Query::Header { src, dst, udp, spi, seq, inner } => {
            let udp = udp.map(|(src, dst)| UdpPorts { src, dst });
            let outer = Outer { src: *src, dst: *dst, tos: 0, udp };
            let inner = inner.as_deref().map(copy).transpose()?;
            Ok(explain::receive(tables, &outer, Esp::Header { spi: Spi(*spi), seq: *seq, inner }, &cx))
        }
        Query::Captured { device, packet } => match (explain::received(tables, packet), device) {
            (Some(incoming), _) => {
                Ok(explain::receive(tables, &incoming.outer, Esp::Packet(copy(incoming.buf.bytes())?), &cx))
            }
            (None, Some(device)) => transmit(tables, device, packet, &cx),
            (None, None) => Err("not ESP for this host, and no --dev says by which VTI it leaves".to_owned()),
        },
    }
}

fn transmit(tables: &Snapshot, device: &str, packet: &[u8], cx: &Context<'_>) -> Result<Explanation, String> {
    let known = || tables.devices.iter().map(|d| d.spec.name.as_str()).collect::<Vec<_>>().join(", ");
    let device = tables.devices.by_name(device).ok_or_else(|| match known() {
        none if none.is_empty() => format!("\"{device}\" is no VTI of uvti; there is none"),
        known => format!("\"{device}\" is no VTI of uvti; there is {known}"),
    })?;
    Ok(explain::transmit(tables, device, copy(packet)?, cx))
}

/// A buffer as those of the workers: what does not fit there does not fit here.
fn copy(packet: &[u8]) -> Result<Buf, String> {
    if packet.len() > PACKET_MAX {
        return Err(format!("{} bytes: longer than an IP packet can be", packet.len()));
    }
    let mut buf = Buf::with_capacity(PACKET_MAX + 1);
    buf.fill(packet);
    Ok(buf)
}

/// Names of interfaces, in the namespace of the calling thread.
struct Names(Option<socket2::Socket>);

impl Names {
    fn new() -> Self {
        Self(socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None).ok())
    }

    fn of(&self, index: u32) -> String {
        let name = self.0.as_ref().and_then(|s| rustix::net::netdevice::index_to_name(s, index).ok());
        name.unwrap_or_else(|| format!("if{index}"))
    }
}
