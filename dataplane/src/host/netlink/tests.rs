//! Against the kernel, in namespaces.

use super::*;
use crate::host::netns::Netns;
use crate::testing::require_netns;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::net::IpAddr;
use std::os::fd::AsFd;

/// Runs `test` in a namespace that has veth0 with 192.0.2.1/24 and 2001:db8::1/64, whose peer veth1 is elsewhere.
fn with_veth(name: &str, test: impl FnOnce(&mut Netlink, Link, &Netns) + Send) {
    if !require_netns(name) {
        return;
    }
    let (here, there) = (Netns::new().unwrap(), Netns::new().unwrap());
    here.run(|| {
        let mut netlink = Netlink::open().unwrap();
        netlink.add_veth("veth0", "veth1", &there).unwrap();
        let link = netlink.link_by_name("veth0").unwrap();
        netlink.add_address(link.index, ip("192.0.2.1"), 24).unwrap();
        netlink.add_address(link.index, ip("2001:db8::1"), 64).unwrap();
        netlink.set_up(link.index, true).unwrap();
        set_peer(&there, true);
        let link = netlink.link_by_index(link.index).unwrap();
        test(&mut netlink, link, &there);
    })
    .unwrap();
}

fn set_peer(there: &Netns, up: bool) {
    there
        .run(|| {
            let mut netlink = Netlink::open().unwrap();
            let peer = netlink.link_by_name("veth1").unwrap();
            netlink.set_up(peer.index, up).unwrap();
        })
        .unwrap();
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn to(dst: &str, prefix: u8, kind: RouteKind) -> RouteSpec {
    RouteSpec { dst: ip(dst), prefix, via: None, dev: None, mtu: None, kind }
}

#[test]
fn links_as_configured() {
    with_veth("links_as_configured", |netlink, link, _| {
        assert_eq!((link.name.as_str(), link.kind.as_deref()), ("veth0", Some("veth")));
        assert!(link.up);
        netlink.set_mtu(link.index, 1300).unwrap();
        netlink.set_txqlen(link.index, 77).unwrap();
        let link = netlink.link_by_name("veth0").unwrap();
        assert_eq!((link.mtu, link.txqlen), (1300, 77));
        let names: Vec<_> = netlink.links().unwrap().into_iter().map(|l| l.name).collect();
        assert!(names.contains(&"lo".to_owned()) && names.contains(&"veth0".to_owned()), "{names:?}");
        netlink.delete_link(link.index).unwrap();
        let error = netlink.link_by_name("veth0").unwrap_err();
        assert_eq!(error.errno(), Some(Errno::NODEV), "{error}");
    });
}

#[test]
fn routes_that_lead_somewhere() {
    with_veth("routes_that_lead_somewhere", |netlink, link, _| {
        let route = netlink.route(Some(ip("192.0.2.1")), ip("192.0.2.2"), 0, 0).unwrap();
        assert_eq!((route.ifindex, route.mtu, route.scope), (link.index, 1500, Scope::Unicast));
        let route = netlink.route(None, ip("192.0.2.2"), 0, 0).unwrap();
        assert_eq!(route.prefsrc, Some(ip("192.0.2.1")));

        let via = RouteSpec {
            via: Some(ip("192.0.2.254")),
            mtu: Some(1350),
            ..to("198.51.100.0", 24, RouteKind::Unicast)
        };
        netlink.add_route(via).unwrap();
        assert_eq!(netlink.route(None, ip("198.51.100.7"), 0, 0).unwrap().mtu, 1350);

        netlink.set_mtu(link.index, 1400).unwrap();
        assert_eq!(netlink.route(None, ip("192.0.2.2"), 0, 0).unwrap().mtu, 1400);
        assert_eq!(netlink.route(None, ip("2001:db8::2"), 0, 0).unwrap().ifindex, link.index);
        assert_eq!(netlink.route(None, ip("192.0.2.1"), 0, 0).unwrap().scope, Scope::Local);
    });
}

#[test]
fn routes_that_do_not() {
    with_veth("routes_that_do_not", |netlink, _, _| {
        netlink.add_route(to("198.51.100.1", 32, RouteKind::Blackhole)).unwrap();
        netlink.add_route(to("198.51.100.2", 32, RouteKind::Unreachable)).unwrap();
        netlink.add_route(to("198.51.100.3", 32, RouteKind::Prohibit)).unwrap();
        netlink.add_route(to("2001:db8:1::1", 128, RouteKind::Blackhole)).unwrap();
        netlink.add_route(to("2001:db8:1::2", 128, RouteKind::Unreachable)).unwrap();
        netlink.add_route(to("2001:db8:1::3", 128, RouteKind::Prohibit)).unwrap();
        for (v4, v6) in [(Some(ip("192.0.2.1")), Some(ip("2001:db8::1"))), (None, None)] {
            for (src, net) in [(v4, "198.51.100."), (v6, "2001:db8:1::")] {
                let mut ask = |host: u8| netlink.route(src, ip(&format!("{net}{host}")), 0, 0).unwrap_err();
                assert!(matches!(ask(1), RouteError::Blackhole), "{:?}", ask(1));
                assert!(matches!(ask(2), RouteError::Unreachable), "{:?}", ask(2));
                assert!(matches!(ask(3), RouteError::Prohibit), "{:?}", ask(3));
                assert!(matches!(ask(4), RouteError::NoRoute), "{:?}", ask(4));
            }
        }
        let foreign = netlink.route(Some(ip("203.0.113.1")), ip("192.0.2.2"), 0, 0).unwrap_err();
        assert!(matches!(foreign, RouteError::SourceNotLocal), "{foreign:?}");
    });
}

#[test]
fn a_dead_link_is_told() {
    with_veth("a_dead_link_is_told", |netlink, link, there| {
        assert!(netlink.route(None, ip("192.0.2.2"), 0, 0).unwrap().carrier);
        set_peer(there, false);
        assert!(!netlink.route(None, ip("192.0.2.2"), 0, 0).unwrap().carrier);
        netlink.set_up(link.index, false).unwrap();
        let error = netlink.route(None, ip("192.0.2.2"), 0, 0).unwrap_err();
        assert!(matches!(error, RouteError::NoRoute), "{error:?}");
    });
}

#[test]
fn events_tell_kinds_and_losses() {
    with_veth("events_tell_kinds_and_losses", |netlink, link, _| {
        let mut events = Events::subscribe().unwrap();
        assert_eq!(events.drain().unwrap(), Changes::default());
        netlink.set_mtu(link.index, 1400).unwrap();
        let mut ready = [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::IN)];
        assert_eq!(poll(&mut ready, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).unwrap(), 1);
        let seen = events.drain().unwrap();
        assert!(seen.links && !seen.rules && !seen.lost, "{seen:?}");
        assert!(!events.drain().unwrap().any());

        netlink.add_route(to("198.51.100.1", 32, RouteKind::Blackhole)).unwrap();
        assert_eq!(events.drain().unwrap(), Changes { routes: true, ..Changes::default() });
        netlink.add_address(link.index, ip("192.0.2.9"), 32).unwrap();
        assert!(events.drain().unwrap().addresses);

        for i in 0..2000u32 {
            netlink.set_mtu(link.index, 1300 + i % 2).unwrap();
        }
        assert_eq!(events.drain().unwrap(), Changes::ALL);
        assert!(!events.drain().unwrap().any(), "and then it goes on");
    });
}

#[test]
fn datagrams_are_split_safely() {
    let mut two = vec![20, 0, 0, 0, 16, 0];
    two.resize(20, 0);
    two.extend([16, 0, 0, 0]);
    two.resize(36, 0);
    assert_eq!(messages(&two).map(<[u8]>::len).collect::<Vec<_>>(), [20, 16]);
    assert_eq!(messages(&two[..30]).count(), 1, "a cut message is not read");
    assert_eq!(messages(&[0; 64]).count(), 0, "a length of zero ends it");
}
