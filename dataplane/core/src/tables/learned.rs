//! Path MTUs that routers reported, each for a time.
//!
//! kernel: net/ipv4/route.c __ip_rt_update_pmtu(), net/ipv6/route.c __ip6_rt_update_pmtu()

use crate::route::{Answer, Route};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The smallest MTU of an IPv6 link: less is not believed.
const MIN_V6: u32 = 1280;
/// Pairs of endpoints that are kept, as many as an IPv4 route of the kernel has at the most.
///
/// kernel: net/ipv4/route.c FNHE_RECLAIM_DEPTH times FNHE_HASH_SIZE
const MOST: usize = 5 * 2048;

/// What was learned, by outer source and destination. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Learned(Arc<BTreeMap<(IpAddr, IpAddr), PathMtu>>);

/// What a router reported of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMtu {
    /// Bytes.
    pub mtu: u32,
    /// Seconds since the Unix epoch at which it is forgotten.
    pub until: u64,
}

/// A router's report, and the host's rules for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hearsay {
    /// The MTU reported, bytes.
    pub mtu: u32,
    /// When it came, seconds since the Unix epoch.
    pub now: u64,
    /// For how many seconds it is believed (`mtu_expires`).
    pub keep: u32,
    /// The least that is believed over IPv4 (`net.ipv4.route.min_pmtu`).
    pub min_v4: u32,
}

impl Learned {
    /// What is known of a path.
    pub fn find(&self, src: IpAddr, dst: IpAddr) -> Option<PathMtu> {
        self.0.get(&(src, dst)).copied()
    }

    /// The host's answer for a path, with what is known of it.
    pub fn lower(&self, src: IpAddr, dst: IpAddr, answer: Answer) -> Answer {
        let learned = self.find(src, dst).map_or(u32::MAX, |path| path.mtu);
        answer.map(|route| Route { mtu: route.mtu.min(learned), ..route })
    }

    /// Takes a report about a path whose MTU is `current` until now. Whether it was taken: one that is larger is not, one
    /// that is too small counts as the least, and one that says the same again only prolongs what is half over.
    pub(super) fn take(&mut self, ends: (IpAddr, IpAddr), current: u32, report: &Hearsay) -> bool {
        let mtu = match ends.1 {
            IpAddr::V4(_) => report.mtu.max(report.min_v4.min(current)),
            IpAddr::V6(_) if report.mtu < MIN_V6 => return false,
            IpAddr::V6(_) => report.mtu,
        };
        let (known, keep) = (self.0.get(&ends), u64::from(report.keep));
        let fresh = known.is_some_and(|k| k.mtu == mtu && k.until > report.now.saturating_add(keep / 2));
        let room = self.0.len() < MOST || known.is_some();
        if mtu > current || fresh || !room {
            return false;
        }
        let path = PathMtu { mtu, until: report.now.saturating_add(keep) };
        Arc::make_mut(&mut self.0).insert(ends, path);
        true
    }

    /// Forgets what is over at `now`; whether there was any.
    pub fn expire(&mut self, now: u64) -> bool {
        let over = self.0.values().any(|path| path.until <= now);
        if over {
            Arc::make_mut(&mut self.0).retain(|_, path| path.until > now);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vti::testing::ip;

    fn v4() -> (IpAddr, IpAddr) {
        (ip("198.51.100.1"), ip("198.51.100.2"))
    }

    fn v6() -> (IpAddr, IpAddr) {
        (ip("2001:db8::1"), ip("2001:db8::2"))
    }

    fn at(now: u64, mtu: u32) -> Hearsay {
        Hearsay { mtu, now, keep: 600, min_v4: 552 }
    }

    /// What is learned of a path of `current` bytes by a report.
    fn learn(ends: (IpAddr, IpAddr), current: u32, mtu: u32) -> Option<u32> {
        let mut learned = Learned::default();
        let taken = learned.take(ends, current, &at(0, mtu));
        let found = learned.find(ends.0, ends.1).map(|path| path.mtu);
        assert_eq!(taken, found.is_some());
        found
    }

    #[test]
    fn only_downwards_and_not_below_the_least() {
        assert_eq!(learn(v4(), 1500, 1300), Some(1300));
        assert_eq!(learn(v4(), 1500, 1501), None);
        assert_eq!(learn(v4(), 1500, 100), Some(552));
        // RFC 1191 §3: a router that does not say
        assert_eq!(learn(v4(), 1500, 0), Some(552));
        assert_eq!(learn(v4(), 500, 100), Some(500), "a path that is narrower already");
        assert_eq!(learn(v6(), 1500, 1300), Some(1300));
        assert_eq!(learn(v6(), 1500, 1279), None);
    }

    #[test]
    fn it_lowers_a_route_for_a_time() {
        let mut learned = Learned::default();
        let (src, dst) = v4();
        let route = |mtu| Some(Route { ifindex: 2, mtu });
        assert!(learned.take((src, dst), 1500, &at(0, 1300)));
        assert_eq!(learned.lower(src, dst, route(1500)), route(1300));
        assert_eq!(learned.lower(src, dst, route(1200)), route(1200), "the route has become narrower");
        assert_eq!(learned.lower(src, dst, None), None);
        assert_eq!(learned.lower(dst, src, route(1500)), route(1500), "the way back is another path");
        assert!(!learned.expire(599));
        assert!(learned.expire(600));
        assert_eq!(learned.lower(src, dst, route(1500)), route(1500));
    }

    #[test]
    fn a_report_again_prolongs_what_is_half_over() {
        let mut learned = Learned::default();
        assert!(learned.take(v4(), 1500, &at(0, 1300)));
        assert!(!learned.take(v4(), 1300, &at(299, 1300)), "a flood of reports changes no tables");
        assert!(learned.take(v4(), 1300, &at(300, 1300)));
        assert!(!learned.expire(899));
    }
}
