//! What the tests of all crates share: they run as far as the machine allows, and say so when it does not.

use crate::host::netlink::{Events, Netlink, Scope};
use crate::host::netns::Netns;
use netlink_packet_route::link::State;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

/// Whether tests that need network namespaces and `/dev/net/tun` can run here.
///
/// If not, prints `skipped: NAME: needs …`, or panics when `UVTI_TEST_REQUIRE` contains `netns`: a CI that is
/// meant to run them must not pass by skipping.
pub fn require_netns(name: &str) -> bool {
    match probe() {
        Ok(()) => true,
        Err(error) => {
            skip(name, "netns", &format!("root (network namespaces and /dev/net/tun): {error}"));
            false
        }
    }
}

/// Says that test `name` is skipped because it needs `what`; panics if `UVTI_TEST_REQUIRE` contains `feature`.
pub fn skip(name: &str, feature: &str, what: &str) {
    let required = std::env::var("UVTI_TEST_REQUIRE").unwrap_or_default();
    if required.split([',', ' ']).any(|f| f == feature) {
        panic!("{name}: UVTI_TEST_REQUIRE has {feature}, but the test needs {what}");
    }
    println!("skipped: {name}: needs {what}");
}

fn probe() -> io::Result<()> {
    Netns::new()?;
    std::fs::File::options().read(true).write(true).open("/dev/net/tun")?;
    Ok(())
}

/// Waits until a descriptor is readable or has an error; panics after far longer than it can take.
pub fn wait(fd: BorrowedFd<'_>) {
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&limit));
    assert_eq!(ready, Ok(1), "nothing came");
}

/// Two namespaces joined by a veth pair that is up, `veth0` in each: 192.0.2.1 and 2001:db8::1 in the first,
/// .2 and ::2 in the second, with prefixes of 24 and 64 bits.
pub fn veth_pair() -> (Netns, Netns) {
    let (a, b) = (Netns::new().unwrap(), Netns::new().unwrap());
    a.run(|| Netlink::open().unwrap().add_veth("veth0", "veth0", &b).unwrap()).unwrap();
    let v6 = |host: u8| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()]);
    for (netns, host) in [(&a, 1u8), (&b, 2)] {
        let set_up = || {
            let mut netlink = Netlink::open().unwrap();
            for name in ["lo", "veth0"] {
                let link = netlink.link_by_name(name).unwrap();
                netlink.set_up(link.index, true).unwrap();
            }
            let link = netlink.link_by_name("veth0").unwrap();
            netlink.add_address(link.index, [192, 0, 2, host].into(), 24).unwrap();
            netlink.add_address(link.index, v6(host), 64).unwrap();
        };
        netns.run(set_up).unwrap();
    }
    for (netns, host) in [(&a, 1u8), (&b, 2)] {
        let settle = || {
            wait_until_running("veth0");
            wait_until_local(v6(host));
        };
        netns.run(settle).unwrap();
    }
    (a, b)
}

/// Waits until the calling thread's namespace has `name` running: a carrier takes effect a moment after it is there.
fn wait_until_running(name: &str) {
    wait_until(|netlink| netlink.link_by_name(name).unwrap().operstate == State::Up);
}

/// Waits until the calling thread's namespace receives packets for `address`: the kernel adds the route of a new
/// IPv6 address later, in a worker, and sends packets for it away until then.
pub fn wait_until_local(address: IpAddr) {
    wait_until(|netlink| matches!(netlink.route(None, address, 0, 0), Ok(r) if r.scope == Scope::Local));
}

/// Waits for a condition that netlink events announce.
fn wait_until(condition: impl Fn(&mut Netlink) -> bool) {
    let (mut events, mut netlink) = (Events::subscribe().unwrap(), Netlink::open().unwrap());
    while !condition(&mut netlink) {
        wait(events.as_fd());
        events.drain().unwrap();
    }
}
