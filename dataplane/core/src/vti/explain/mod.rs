//! Why a packet would be dropped, or that it would not: every check of the datapath, without doing anything.
//!
//! [`transmit`] and [`receive`] call the functions that [`Transmitter`](super::Transmitter) and
//! [`Receiver`](super::Receiver) call, on a private copy of the packet, and leave out what changes something. The list
//! of checks is drawn from their verdict, so that it cannot say anything else. `near` then looks for what would
//! have made it pass; it comes after the verdict and cannot touch it.

mod command;
mod near;
mod rx;
mod subject;
mod tx;

pub use rx::{Esp, receive};
pub use subject::{Flow, Invalid, incoming, received};
pub use tx::transmit;

use super::Drop;
use crate::device::Device;
use crate::reason::{LinkField, LinkKind, LinkStats, Mib, Reason};
use crate::route::Onward;
use crate::xfrm::Sa;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Everything there is to say about one packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// `tx` or `rx`.
    pub way: String,
    /// The device, if it met one.
    pub device: Option<String>,
    /// The packet, in a line.
    pub packet: String,
    /// The checks in the order in which they are made, up to the one that fails.
    pub checks: Vec<Check>,
    /// What becomes of it.
    pub verdict: Verdict,
    /// What a kernel VTI would count, and uvti in its place.
    pub counts: Counts,
    /// The ICMP error that the sender gets, unless too many went before it.
    pub icmp: Option<String>,
    /// What was seen of the SA and the path.
    pub seen: Seen,
    /// What would nearly have done, and how to repair it.
    pub near: Vec<Near>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What is checked: `policy`.
    pub name: String,
    /// How it ended.
    pub result: Outcome,
    /// What it looked at.
    pub object: String,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It lets the packet go on.
    Ok,
    /// It drops the packet.
    Fail,
    /// It cannot be made with what was given.
    Unchecked,
}

/// What becomes of the packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether it passes; what comes after uvti (the host's queues and firewall) is not asked.
    pub passes: bool,
    /// Why not.
    pub reason: Option<String>,
    /// What that means, or what is done with the packet.
    pub meaning: String,
    /// The command that shows the cause.
    pub look_at: Option<String>,
}

/// What moves by one packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Link counters.
    pub link: LinkStats,
    /// Lines of `/proc/net/xfrm_stat`.
    pub xfrm: Vec<Mib>,
    /// Counter under `stats:` of `ip -s xfrm state`.
    pub sa: Option<String>,
}

/// What was seen, as far as the packet came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The SA.
    pub sa: Option<SeenSa>,
    /// The way to the far end.
    pub route: Option<SeenRoute>,
    /// How the largest inner packet comes about.
    pub mtu: Option<Ledger>,
}

/// An SA at that moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenSa {
    /// SPI as iproute2 prints it.
    pub spi: String,
    /// Last number sent.
    pub oseq: u64,
    /// Highest number received.
    pub window_top: u64,
    /// Size of the replay window, packets.
    pub window: u32,
    /// Numbers that left the window unseen.
    pub lost: u64,
    /// Packets it has carried.
    pub packets: u64,
    /// Packets it may carry; none is without limit.
    pub packet_limit: Option<u64>,
    /// Bytes it has carried.
    pub bytes: u64,
    /// Bytes it may carry; none is without limit.
    pub byte_limit: Option<u64>,
}

/// The way to the far end at that moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRoute {
    /// Name of the device, or its number.
    pub dev: String,
    /// Path MTU, bytes.
    pub mtu: u32,
}

/// What the path's MTU is spent on, bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The path's MTU.
    pub path: u32,
    /// Outer header, UDP included.
    pub outer: u32,
    /// SPI, sequence number and IV.
    pub esp: u32,
    /// ICV.
    pub icv: u32,
    /// Padding to the cipher's block, pad length and next header.
    pub trailer: u32,
    /// The device's own MTU.
    pub device: u32,
    /// The largest inner packet: what is left, but not more than the device's.
    pub largest: u32,
}

/// Something that would nearly have let the packet pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Near {
    /// What is there, and what differs.
    pub text: String,
    /// The commands that repair it, to be pasted in this order.
    pub repair: Vec<String>,
}

/// What is needed from outside.
pub struct Context<'a> {
    /// The name of the interface with that index, or something in its place.
    pub ifname: &'a dyn Fn(u32) -> String,
    /// Where the host takes a packet from a device, by source and destination.
    pub onward: &'a dyn Fn(&Device, IpAddr, IpAddr) -> Onward,
}

/// A check: its name, and the reasons that it fails with.
type Step = (&'static str, &'static [Reason]);

/// The checks up to the one that failed. `object` says what a check looked at, if it does so with this packet; a check
/// that stands behind the end of what is known is `unchecked` from there on.
fn checks(
    steps: &[Step],
    failed: Option<Reason>,
    unchecked: &[&str],
    object: impl Fn(&str) -> Option<String>,
) -> Vec<Check> {
    let mut checks = Vec::new();
    for (name, reasons) in steps {
        let fails = failed.is_some_and(|reason| reasons.contains(&reason));
        let result = match (fails, unchecked.contains(name)) {
            (true, _) => Outcome::Fail,
            (false, true) => Outcome::Unchecked,
            (false, false) => Outcome::Ok,
        };
        if let Some(object) = object(name) {
            checks.push(Check { name: (*name).to_owned(), result, object });
        }
        if fails {
            break;
        }
    }
    checks
}

impl Verdict {
    /// `device` and `ends` (local and remote) stand in for the names in the command that shows the cause.
    fn dropped(reason: Reason, device: &str, ends: Option<(IpAddr, IpAddr)>) -> Self {
        let row = reason.row();
        let mut look_at = row.check.replace("DEV", device);
        if let Some((local, remote)) = ends {
            look_at = look_at.replace("LOCAL", &local.to_string()).replace("REMOTE", &remote.to_string());
        }
        Self {
            passes: false,
            reason: Some(row.name.to_owned()),
            meaning: row.meaning.to_owned(),
            look_at: Some(look_at).filter(|c| !c.is_empty()),
        }
    }

    fn passed(meaning: String) -> Self {
        Self { passes: true, reason: None, meaning, look_at: None }
    }
}

impl Counts {
    fn of(drop: &Drop, kind: Option<LinkKind>, received_bytes: usize) -> Self {
        let row = drop.reason.row();
        let mut link = LinkStats::default();
        for field in row.counted_by(kind) {
            field.add(&mut link, 1);
            if field == LinkField::RxBytes {
                link.rx_bytes = received_bytes as u64;
            }
        }
        Self { link, xfrm: row.mib.to_vec(), sa: row.sa.map(|s| s.name().to_owned()) }
    }
}

impl SeenSa {
    fn of(sa: &Sa) -> Self {
        let (used, limits) = (sa.run.current(), &sa.spec.limits);
        let limit = |n: u64| (n != u64::MAX).then_some(n);
        Self {
            spi: sa.spec.spi.to_string(),
            oseq: sa.run.out.last(),
            window_top: sa.run.window.top(),
            window: sa.spec.replay_window,
            lost: sa.run.lost(),
            packets: used.packets,
            packet_limit: limit(limits.hard_packets),
            bytes: used.bytes,
            byte_limit: limit(limits.hard_bytes),
        }
    }

    /// `5 packets, 500 of 1000 bytes`.
    fn used(&self) -> String {
        let of = |n: u64, limit: Option<u64>| match limit {
            Some(limit) => format!("{n} of {limit}"),
            None => n.to_string(),
        };
        format!("{} packets, {} bytes", of(self.packets, self.packet_limit), of(self.bytes, self.byte_limit))
    }
}

/// Whether a check of either direction fails with this reason.
#[cfg(test)]
pub(crate) fn has_step(reason: Reason) -> bool {
    tx::STEPS.iter().chain(tx::UNMARKED).chain(rx::STEPS).any(|(_, reasons)| reasons.contains(&reason))
}
