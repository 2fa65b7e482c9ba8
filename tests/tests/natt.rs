//! Port 4500 beside an IKE daemon: it gets every packet with the non-ESP marker, uvti every ESP packet.

use anyhow::Result;
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_socket_recv_buffer_size_force};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;
use uvti_tests::esp::Suite;
use uvti_tests::netns::Namespace;
use uvti_tests::path::{Flow, INNER, LEFT, Path, Plan};
use uvti_tests::require::{Need, have};
use uvti_tests::sys;
use uvti_tests::traffic::{self, Datagrams, End};
use uvti_tests::wait;

const UVTI: &str = env!("CARGO_BIN_EXE_uvti-under-test");
const NATT: u16 = 4500;

fn plan<'a>(flags: &'a [&'a str]) -> Plan<'a> {
    let algorithms = Suite::Gcm128.keys().map(|key| key.ip_words());
    Plan { words: "encap espinudp 4500 4500 0.0.0.0", flags, ..Plan::bare(algorithms, 1500) }
}

fn ends(path: &Path) -> [End<'_>; 2] {
    [
        End { namespace: &path.left.namespace, address: INNER[0].into() },
        End { namespace: &path.right.namespace, address: INNER[1].into() },
    ]
}

/// An IKE daemon's socket on 4500 in the left namespace.
fn daemon(left: &Namespace) -> Result<UdpSocket> {
    let socket = left.run(|| Ok(UdpSocket::bind(("0.0.0.0", NATT))?))?;
    // The ESP waits in it as well.
    set_socket_recv_buffer_size_force(&socket, 4 << 20)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(socket)
}

/// Sends IKE to the left gateway's port, `count` messages with their number, among ESP that goes both ways.
fn ike_and_esp(path: &Path, ike: &UdpSocket, count: u8) {
    let peer = path.router.run(|| Ok(UdpSocket::bind(("0.0.0.0", 0))?)).unwrap();
    let [left, right] = ends(path);
    for number in 0..count {
        peer.send_to(&[0, 0, 0, 0, number], (LEFT, NATT)).unwrap();
        let run = Datagrams { count: 20, size: 500, tos: 0, df: true, port: 5000 };
        traffic::udp(&left, &right, &run).unwrap();
        traffic::udp(&right, &left, &run).unwrap();
    }
    traffic::ping(&right, &left, 3).unwrap();
    let mut heard = Vec::new();
    while heard.len() < usize::from(count) {
        let mut buffer = [0; 2048];
        let (n, _) = ike.recv_from(&mut buffer).unwrap();
        // It gets the ESP as well, as it would from the kernel; it knows it by the marker that is not there.
        if buffer[..4] == [0; 4] {
            heard.push(buffer[4..n].to_vec());
        }
    }
    assert_eq!(heard, (0..count).map(|n| vec![n]).collect::<Vec<_>>());
    // Nothing of the daemon's was taken for ESP, and nothing of ESP was lost.
    for reason in ["rx_non_esp", "rx_keepalive"] {
        assert_eq!(path.dropped(reason).unwrap(), 0);
    }
    let (sent, got) = (path.right.link("vti0").unwrap(), path.left.link("vti0").unwrap());
    assert_eq!(sent["tx_packets"], got["rx_packets"]);
    path.left.check().unwrap();
}

#[test]
fn a_port_that_is_held_is_shared() {
    if !have("a_port_that_is_held_is_shared", Need::Netns) {
        return;
    }
    let ike = Mutex::new(None);
    let first = |left: &Namespace| {
        *ike.lock().unwrap() = Some(daemon(left)?);
        Ok(())
    };
    let path = Path::build(&plan(&[]), PathBuf::from(UVTI), first).unwrap();
    ike_and_esp(&path, &ike.into_inner().unwrap().unwrap(), 5);
}

#[test]
fn a_shared_port_is_left_to_whoever_comes() {
    if !have("a_shared_port_is_left_to_whoever_comes", Need::Netns) {
        return;
    }
    for flags in [&["--natt-port", "shared"][..], &["--natt-port", "shared", "--wire", "fast"]] {
        let path = Path::build(&plan(flags), PathBuf::from(UVTI), |_| Ok(())).unwrap();
        let ike = daemon(&path.left.namespace).unwrap();
        // As an IKE daemon does: the ESP on its socket is for the host's xfrm, which knows no such SA.
        sys::encapsulate_esp(&ike).unwrap();
        ike_and_esp(&path, &ike, 5);
    }
}

/// Without a daemon the port is uvti's, and what is not ESP is counted by what it is.
#[test]
fn on_its_own_port_all_is_counted() {
    if !have("on_its_own_port_all_is_counted", Need::Netns) {
        return;
    }
    let path = Path::build(&plan(&[]), PathBuf::from(UVTI), |_| Ok(())).unwrap();
    assert!(daemon(&path.left.namespace).is_err(), "the port is uvti's");
    let peer = path.right.namespace.run(|| Ok(UdpSocket::bind(("0.0.0.0", 0))?)).unwrap();
    for _ in 0..3 {
        peer.send_to(&[0xff], (LEFT, NATT)).unwrap();
    }
    for _ in 0..2 {
        peer.send_to(&[0, 0, 0, 0, 1, 2, 3, 4], (LEFT, NATT)).unwrap();
    }
    let counted = || {
        let counts = ["rx_keepalive", "rx_non_esp"].map(|reason| path.dropped(reason).unwrap_or(0));
        (counts == [3, 2]).then_some(())
    };
    wait::until(Duration::from_secs(10), counted).expect("3 keepalives and 2 with the marker are counted");
    path.left.check().unwrap();
}

/// Learning works for ESP in UDP as for bare ESP.
#[test]
fn a_path_mtu_is_learned_in_udp() {
    if !have("a_path_mtu_is_learned_in_udp", Need::Netns) {
        return;
    }
    let plan = Plan { right_mtu: 1300, ..plan(&[]) };
    let path = Path::build(&plan, PathBuf::from(UVTI), |_| Ok(())).unwrap();
    let flow = Flow::open(&path, Ipv4PathMtuDiscovery::DO).unwrap();
    flow.send(1400).unwrap();
    let ledger = path.wait_for_ledger(|l| l["path"]["mtu"] == 1300).unwrap();
    assert_eq!(ledger["path"]["largest_inner"], 1238);
    flow.send(1238).unwrap();
    assert_eq!(flow.receive().unwrap(), 1238);
}
