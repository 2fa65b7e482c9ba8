//! The traffic of the tests, between two namespaces of the host that a plain wire joins.

use std::net::{IpAddr, Ipv4Addr};
use uvti_tests::netns::Namespace;
use uvti_tests::require::{Need, have};
use uvti_tests::traffic::{self, Datagrams, End};

#[test]
fn traffic_crosses_a_plain_wire() {
    if !have("traffic_crosses_a_plain_wire", Need::Netns) {
        return;
    }
    let (left, right) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    left.join("wire", "02:00:00:00:00:01", &right, "wire", "02:00:00:00:00:02").unwrap();
    left.ip(&["addr add 192.0.2.1/24 dev wire"]).unwrap();
    right.ip(&["addr add 192.0.2.2/24 dev wire"]).unwrap();
    let end = |namespace, host| End { namespace, address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)) };
    let (left, right) = (end(&left, 1), end(&right, 2));
    traffic::ping(&left, &right, 3).unwrap();
    traffic::udp(&left, &right, &Datagrams { count: 100, size: 64, tos: 0, df: true, port: 5000 }).unwrap();
    traffic::tcp(&right, &left, 5000, 100_000).unwrap();
}
