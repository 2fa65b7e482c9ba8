//! Decisions and passes, against what a kernel VTI was measured to do (Linux 6.1, one line a scenario).

mod bursts;
mod explain;
mod onward;
mod receive;
mod transmit;
mod unmarked;
mod xfrmi;

use super::testing::Lab;
use super::{Drop, RxSlot, RxVerdict, Stage, TxSlot, TxVerdict, icmp};
use crate::device::DeviceId;
use crate::reason::{Icmp, LinkField, LinkKind, LinkStats, Mib, Reason};
use std::collections::BTreeMap;

/// What is counted and told, in the words in which the kernel's was written down:
/// `txp=3 txB=300 txE=3 aborted=1 carrier=2 | XfrmOutNoStates=2 XfrmOutStateExpired=1 | 2x host-unreach`.
#[derive(Default)]
struct Told {
    link: LinkStats,
    mib: BTreeMap<Mib, u64>,
    notes: Vec<(String, u64)>,
    /// What happened, as `3 sent, 1 tx_sa_expired`.
    verdicts: Vec<(String, u64)>,
}

fn count(list: &mut Vec<(String, u64)>, what: &str) {
    match list.iter_mut().find(|(name, _)| name == what) {
        Some((_, n)) => *n += 1,
        None => list.push((what.into(), 1)),
    }
}

impl Told {
    fn drop(&mut self, drop: &Drop, kind: Option<LinkKind>) {
        let row = drop.reason.row();
        row.counted_by(kind).for_each(|field| field.add(&mut self.link, 1));
        for mib in row.mib {
            *self.mib.entry(*mib).or_default() += 1;
        }
        if let Some(stat) = row.sa {
            count(&mut self.notes, stat.name());
        }
        count(&mut self.verdicts, row.name);
    }

    fn verdicts(&self) -> String {
        let each: Vec<_> = self.verdicts.iter().map(|(what, n)| format!("{n} {what}")).collect();
        each.join(", ")
    }

    fn counted(&self) -> String {
        let l = &self.link;
        let fields = [
            ("rxp", l.rx_packets),
            ("txp", l.tx_packets),
            ("rxB", l.rx_bytes),
            ("txB", l.tx_bytes),
            ("rxE", l.rx_errors),
            ("rxD", l.rx_dropped),
            ("rxframe", l.rx_frame_errors),
            ("txE", l.tx_errors),
            ("txD", l.tx_dropped),
            ("aborted", l.tx_aborted_errors),
            ("carrier", l.tx_carrier_errors),
            ("colls", l.collisions),
        ];
        let link: Vec<_> = fields.iter().filter(|f| f.1 > 0).map(|(name, n)| format!("{name}={n}")).collect();
        let mib: Vec<_> = self.mib.iter().map(|(m, n)| format!("{}={n}", m.name())).collect();
        let notes: Vec<_> = self.notes.iter().map(|(what, n)| format!("{n}x {what}")).collect();
        format!("{} | {} | {}", link.join(" "), mib.join(" "), notes.join(" "))
            .trim_end_matches([' ', '|'])
            .into()
    }

    fn transmitted(burst: &[TxSlot], kind: LinkKind) -> Self {
        let mut told = Told::default();
        for slot in burst {
            match &slot.verdict {
                TxVerdict::Send { stage: Stage::Host, .. } => count(&mut told.verdicts, "sent before"),
                TxVerdict::Send { .. } => {
                    told.link.tx_packets += 1;
                    told.link.tx_bytes += slot.len as u64;
                    count(&mut told.verdicts, "sent");
                }
                TxVerdict::Drop(drop) => {
                    told.drop(drop, Some(kind));
                    if let Some(error) = icmp_error(slot, drop) {
                        count(&mut told.notes, &error);
                    }
                }
                TxVerdict::Hold(..) => count(&mut told.verdicts, "held"),
                TxVerdict::Pending | TxVerdict::Hop(_) => count(&mut told.verdicts, "not decided here"),
            }
        }
        told
    }

    fn received(burst: &[RxSlot]) -> Self {
        Self::received_by(burst, LinkKind::Vti)
    }

    fn received_by(burst: &[RxSlot], kind: LinkKind) -> Self {
        let mut told = Told::default();
        for slot in burst {
            match &slot.verdict {
                RxVerdict::Deliver { .. } => {
                    told.link.rx_packets += 1;
                    told.link.rx_bytes += slot.len as u64;
                    count(&mut told.verdicts, "delivered");
                }
                RxVerdict::Drop(drop) => {
                    let kind = Some(kind).filter(|_| slot.device != DeviceId::NONE);
                    told.drop(drop, kind);
                    if drop.reason.row().counted_by(kind).any(|field| field == LinkField::RxBytes) {
                        told.link.rx_bytes += slot.len as u64;
                    }
                }
                RxVerdict::Pending | RxVerdict::Hop(_) => count(&mut told.verdicts, "not decided here"),
            }
        }
        told
    }
}

/// The ICMP error that goes with a drop, in tcpdump's words.
fn icmp_error(slot: &TxSlot, drop: &Drop) -> Option<String> {
    let kind = drop.reason.row().icmp;
    let message = icmp::error(kind, slot.buf.bytes(), slot.inner()?, drop.mtu)?;
    let mtu = u32::from_be_bytes(*message.bytes[4..].first_chunk()?);
    Some(match (kind, message.dst.is_ipv4()) {
        (Icmp::Silent, _) => return None,
        (Icmp::Unreachable, true) => "host-unreach".into(),
        (Icmp::Unreachable, false) => "addr-unreach".into(),
        (Icmp::TooBig | Icmp::TooBigForIpv6, true) => format!("frag-needed mtu {mtu}"),
        (Icmp::TooBig | Icmp::TooBigForIpv6, false) => format!("packet-too-big mtu {mtu}"),
    })
}

/// A scenario: its name, what is spoilt, what then happens and what the kernel counted.
type Case<Packets> = (&'static str, fn(&mut Lab), Packets, &'static str, &'static str);

/// Every reason that the core can give stands in one of `texts`: those that only the runtime gives are listed.
fn assert_covered(texts: &[&str], prefix: &str, by_the_runtime: &[Reason]) {
    let missing: Vec<_> = Reason::ALL
        .iter()
        .filter(|r| r.row().name.starts_with(prefix) && !by_the_runtime.contains(r))
        .filter(|r| !texts.iter().any(|t| t.split([' ', ',']).any(|word| word == r.row().name)))
        .collect();
    assert!(missing.is_empty(), "no test gives {missing:?}");
}
