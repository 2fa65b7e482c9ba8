//! Why a packet was dropped: the one table, and what a kernel VTI would have counted.
//!
//! Everything that names a reason (counters, `uvti stat`, `uvti reasons`, README, tests) comes from the table in
//! this module. Numbers are append only: a reason keeps its number and meaning for ever.

mod kernel;
mod table;

pub use kernel::{Icmp, LinkField, LinkKind, LinkStats, Mib, SaStat};
pub use table::Reason;

/// Which way the packet was going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the device to the wire.
    Tx,
    /// From the wire to the device.
    Rx,
}

impl Way {
    /// `tx` or `rx`.
    pub const fn name(self) -> &'static str {
        match self {
            Way::Tx => "tx",
            Way::Rx => "rx",
        }
    }
}

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// Name, as printed and as a metric label: `tx_no_sa`.
    pub name: &'static str,
    /// Direction.
    pub way: Way,
    /// Link counters that a kernel `ip_vti` adds one to.
    pub link: &'static [LinkField],
    /// Whether `ip6_vti` and the xfrm interface add one to `tx_dropped` as well.
    ///
    /// kernel: net/ipv6/ip6_vti.c vti6_tnl_xmit(), net/xfrm/xfrm_interface_core.c xfrmi_xmit()
    pub vti6_tx_dropped: bool,
    /// What the xfrm interface adds one to, where that is something else.
    pub xfrm_link: Option<&'static [LinkField]>,
    /// `/proc/net/xfrm_stat` counters that it adds one to.
    pub mib: &'static [Mib],
    /// Counter of the SA (`ip -s xfrm state`, `stats:`).
    pub sa: Option<SaStat>,
    /// What the sender of the inner packet is told.
    pub icmp: Icmp,
    /// What it means, one line.
    pub meaning: &'static str,
    /// The command that shows the cause.
    pub check: &'static str,
}

impl Row {
    /// Link counters that a kernel's device of this kind adds one to; of a packet that met no device there are none.
    pub fn counted_by(&self, kind: Option<LinkKind>) -> impl Iterator<Item = LinkField> {
        let fields = match kind {
            None => &[],
            Some(LinkKind::Xfrm) => self.xfrm_link.unwrap_or(self.link),
            Some(LinkKind::Vti | LinkKind::Vti6) => self.link,
        };
        let own = kind == Some(LinkKind::Xfrm) && self.xfrm_link.is_some();
        let dropped = !own && matches!(kind, Some(LinkKind::Vti6 | LinkKind::Xfrm)) && self.vti6_tx_dropped;
        fields.iter().copied().chain(dropped.then_some(LinkField::TxDropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_carry_their_direction() {
        let mut seen = std::collections::HashSet::new();
        for r in Reason::ALL {
            let row = r.row();
            assert!(seen.insert(row.name), "{} stands twice", row.name);
            assert!(row.name.starts_with(row.way.name()), "{}", row.name);
            assert_eq!(Reason::from_name(row.name), Some(*r));
            assert_eq!(Reason::ALL[*r as usize], *r);
        }
    }

    /// kernel: net/ipv4/ip_vti.c vti_rcv_cb(): an error adds to both, a packet that met no tunnel to neither. What a VTI
    /// does not refuse is counted as by the kernel's other tunnels.
    #[test]
    fn kernel_receive_errors_come_with_a_drop() {
        for r in Reason::ALL.iter().filter(|r| r.row().way == Way::Rx) {
            let link = r.row().link;
            if link.contains(&LinkField::RxErrors) && *r != Reason::RxCongested {
                assert_eq!(link, [LinkField::RxErrors, LinkField::RxDropped], "{r}");
            }
        }
    }

    /// kernel: net/xfrm/xfrm_interface_core.c: what fails before xfrm_output() is dropped too, and what was decapsulated
    /// was received whatever policies say.
    #[test]
    fn an_xfrm_interface_counts_by_its_own_rules() {
        use LinkField::{RxBytes, RxPackets, TxCarrierErrors, TxDropped, TxErrors};
        let counted = |r: Reason, kind| r.row().counted_by(Some(kind)).collect::<Vec<_>>();
        let no_sa = [TxErrors, TxCarrierErrors, TxDropped];
        assert_eq!(counted(Reason::TxNoSa, LinkKind::Xfrm), no_sa);
        assert_eq!(counted(Reason::TxNoSa, LinkKind::Vti6), no_sa);
        assert_eq!(counted(Reason::TxNoSa, LinkKind::Vti), no_sa[..2]);
        assert_eq!(counted(Reason::RxNoPolicy, LinkKind::Xfrm), [RxPackets, RxBytes]);
        assert_eq!(counted(Reason::RxBadIcv, LinkKind::Xfrm), counted(Reason::RxBadIcv, LinkKind::Vti));
    }

    /// kernel: include/uapi/linux/if_link.h: carrier and aborted are part of tx_errors.
    #[test]
    fn detailed_errors_are_part_of_the_sum() {
        for r in Reason::ALL {
            let link = r.row().link;
            if link.iter().any(|f| matches!(f, LinkField::TxCarrierErrors | LinkField::TxAbortedErrors)) {
                assert!(link.contains(&LinkField::TxErrors), "{r}");
            }
        }
    }
}
