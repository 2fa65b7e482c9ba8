//! What a scenario is: lines of configuration, packets, and what must have been counted in the end.

use super::On;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What was counted and seen, by a name of several words: `vti0 tx_errors`, `xfrm XfrmOutNoStates`,
/// `wire esp4 len 152`. What is 0 is not there.
pub(crate) type Counts = BTreeMap<String, u64>;

/// One scenario of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scenario {
    /// Its name, unique among all that run together.
    pub(crate) name: String,
    /// What it is about.
    pub(crate) title: String,
    /// The file it is from.
    pub(crate) file: String,
    /// The lines of the file after which its expectations belong, and those that hold them now; from 1.
    pub(crate) place: Place,
    /// What is expected was recorded on a kernel with devices that others lack: it stands for the kernel.
    pub(crate) recorded: bool,
    /// What happens, in order.
    pub(crate) steps: Vec<Step>,
    /// What a kernel counted.
    pub(crate) expected: Counts,
}

impl Scenario {
    /// Of the engines that were asked for, those on which it is run.
    pub(crate) fn engines(&self, asked: &[On]) -> Vec<On> {
        let kernel_too = !self.recorded || asked == [On::Kernel];
        asked.iter().copied().filter(|on| *on == On::Uvti || kernel_too).collect()
    }
}

/// Where in its file the expectations of a scenario are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Last line that is no expectation and not empty.
    pub(crate) after: usize,
    /// Lines that are expectations.
    pub(crate) expect: Vec<usize>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// A line of `ip`.
    Ip(Vec<String>),
    /// A line of `ip` that must be refused.
    Refused(Vec<String>),
    /// A line of `tc`.
    Tc(Vec<String>),
    /// A value below `/proc/sys/net`.
    Sysctl {
        /// The path below `/proc/sys`.
        path: String,
        /// The value.
        value: String,
    },
    /// A UDP socket of the gateway that takes what comes.
    Listen {
        /// Its address.
        address: IpAddr,
        /// Its port.
        port: u16,
    },
    /// Waits until an SA has vanished.
    Gone {
        /// Its SPI.
        spi: u32,
    },
    /// Inner packets.
    Send(Send),
    /// Packets from the far end of the tunnel.
    Inject(Inject),
}

/// Inner packets on their way into the tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Send {
    pub(crate) count: u32,
    pub(crate) what: Inner,
    pub(crate) via: Via,
}

/// How inner packets come to the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Via {
    /// The client sends them, the gateway forwards them.
    Forward,
    /// By a UDP socket of the gateway.
    Local,
    /// By an AF_PACKET socket on the device, with this EtherType: past routing and policies of the host.
    Device { name: String, ethertype: u16 },
}

/// A packet without encapsulation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Inner {
    /// UDP between two addresses of one family.
    Udp(Udp),
    /// Bytes that are what they are.
    Bytes(Vec<u8>),
}

/// A UDP packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Udp {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    /// The whole IP packet, bytes.
    pub(crate) len: u16,
    /// Don't fragment: said or not said (which is for sockets the host's choice).
    pub(crate) df: Option<bool>,
    /// TOS, or traffic class.
    pub(crate) tos: u8,
    /// TTL, or hop limit.
    pub(crate) ttl: u8,
    /// Flow label of IPv6.
    pub(crate) flow: u32,
    /// What else is odd about it.
    pub(crate) odd: Option<Odd>,
}

/// What can be odd about a UDP packet over IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Odd {
    /// It is a fragment that begins at this offset, in units of 8 bytes.
    Fragment(u16),
    /// It is an ICMP error about such a packet instead.
    IcmpError,
    /// The checksum of its header is wrong.
    Checksum,
}

/// Packets from the peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inject {
    pub(crate) count: u32,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) tos: u8,
    /// The checksum of the outer header is wrong (IPv4).
    pub(crate) bad_checksum: bool,
    /// The outer packet arrives in two fragments, the second from this many bytes on.
    pub(crate) fragment: Option<u16>,
    pub(crate) what: Outer,
}

/// What the peer sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outer {
    /// ESP, a packet for each sequence number.
    Esp(Esp),
    /// The inner packet in IP, without IPsec.
    Ipip(Inner),
    /// ICMP frag-needed about an ESP packet with this SPI.
    FragNeeded { mtu: u16, spi: u32 },
}

/// ESP packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Esp {
    pub(crate) spi: u32,
    pub(crate) sequences: Vec<u32>,
    /// High half of the sequence number, for an SA with ESN.
    pub(crate) high: Option<u32>,
    /// Key and salt as `ip xfrm state` takes them.
    pub(crate) key: Vec<u8>,
    pub(crate) next_header: Option<u8>,
    pub(crate) inner: Inner,
    /// Zeros between the inner packet and the padding (RFC 4303 §2.7), bytes.
    pub(crate) tfc: u16,
    /// The padding, if it is not that of RFC 4303 §2.4.
    pub(crate) pad: Option<Vec<u8>>,
    /// The pad length that is written, if it is a lie.
    pub(crate) pad_length: Option<u8>,
    /// A bit of the ICV is flipped.
    pub(crate) bad_icv: bool,
    /// The ESP packet ends after so many bytes.
    pub(crate) cut: Option<u16>,
}
