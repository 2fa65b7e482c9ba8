//! Path MTUs: what routers report of them, and what they leave for inner packets.

use super::{Engine, State};
use std::net::IpAddr;
use std::sync::Arc;
use uvti_core::tables::Hearsay;
use uvti_core::vti::ledger::{self, Ledger};
use uvti_core::vti::pmtu::Report;
use uvti_core::vti::transmit::route_key;

/// Seconds for which a report is believed, unless the host says otherwise. kernel: net/ipv4/route.c DEFAULT_MTU_EXPIRES
const EXPIRES: u32 = 600;
/// kernel: net/ipv4/route.c DEFAULT_MIN_PMTU
const MIN_PMTU: u32 = 552;

impl Engine {
    /// Takes a router's report that a packet of ours was too big, if it is about an SA of ours. Whether it was taken.
    pub fn hear(&self, report: &Report) -> bool {
        if report.sa(&self.tables.load()).is_none() {
            tracing::debug!(?report, "ICMP about size that names no SA: ignored");
            return false;
        }
        let mut state = self.lock();
        let mut tables = (*self.tables.load_full()).clone();
        let Some(key) = report.sa(&tables).map(|sa| route_key(sa)) else { return false };
        let expires = match key.dst {
            IpAddr::V4(_) => "net.ipv4.route.mtu_expires",
            IpAddr::V6(_) => "net.ipv6.route.mtu_expires",
        };
        let hearsay = Hearsay {
            mtu: report.mtu,
            now: self.now(),
            keep: number(&mut state, expires, EXPIRES),
            min_v4: number(&mut state, "net.ipv4.route.min_pmtu", MIN_PMTU),
        };
        let taken = tables.learn(key, &hearsay);
        if taken {
            tracing::info!(src = %key.src, dst = %key.dst, mtu = report.mtu, "learned the path's MTU");
            self.store(Arc::new(tables));
        }
        taken
    }

    /// What each SA leaves of its path's MTU for inner packets, device by device.
    pub fn ledgers(&self) -> Vec<Ledger> {
        let mut state = self.lock();
        let mut below = |ifindex| state.host.link(ifindex).map(|link| link.mtu);
        ledger::ledgers(&self.tables.load(), self.now(), &mut below)
    }
}

/// A sysctl that is a number, or its default.
fn number(state: &mut State, name: &str, default: u32) -> u32 {
    state.host.sysctl(name).and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::{LOCAL, REMOTE, lab, link, sa};
    use crate::worker::tamper::Honest;
    use uvti_core::tables::Op;
    use uvti_core::vti::ledger::Source;
    use uvti_core::xfrm::Spi;

    #[test]
    fn a_report_lowers_the_route_until_it_expires() {
        let lab = lab(1, || Honest);
        lab.engine.apply(&[Op::LinkAdd(link()), Op::StateAdd(Box::new(sa(LOCAL, REMOTE, 0x100)))]).unwrap();
        let (src, dst) = (LOCAL.parse().unwrap(), REMOTE.parse().unwrap());
        let report = |spi, mtu| Report { src, dst, spi: Spi(spi), udp: None, mtu };
        let path = || lab.engine.ledgers()[0].path.unwrap();

        assert!(!lab.engine.hear(&report(0x666, 1300)));
        assert_eq!(path().mtu, 1500);
        assert!(lab.engine.hear(&report(0x100, 1300)));
        assert_eq!((path().mtu, path().largest_inner), (1300, 1246));
        assert!(matches!(path().source, Source::Learned { expires_in: 599..=600 }));
        lab.engine.refresh();
        assert_eq!(path().mtu, 1300, "asking the host again does not forget it");
        assert!(!lab.engine.hear(&report(0x100, 1400)), "it does not rise");
        assert_eq!(path().mtu, 1300);

        lab.engine.set_clock_ahead(601);
        lab.engine.refresh();
        assert_eq!(path().mtu, 1500);
        lab.engine.stop();
    }
}
