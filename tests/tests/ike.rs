//! Two IKE daemons negotiate; one is killed, and uvti takes its address, port 4500 and the negotiated SAs over, as
//! docs/ike.md says.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use uvti_tests::gateway::{Engine, Gateway};
use uvti_tests::netns::Namespace;
use uvti_tests::require::{Need, have};
use uvti_tests::strongswan::{Daemon, Side};
use uvti_tests::traffic::{self, Datagrams, End};

const UVTI: &str = env!("CARGO_BIN_EXE_uvti-under-test");
const LEFT: Side = Side { outer: Ipv4Addr::new(198, 51, 100, 1), net: "10.1.0.0/24" };
const RIGHT: Side = Side { outer: Ipv4Addr::new(198, 51, 100, 2), net: "10.2.0.0/24" };
const INNER: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 2, 0, 1)];

/// Two hosts on one wire.
fn hosts() -> [Namespace; 2] {
    let hosts = [Namespace::new().unwrap(), Namespace::new().unwrap()];
    hosts[0].join("wan", "02:00:00:00:00:01", &hosts[1], "wan", "02:00:00:00:00:02").unwrap();
    for ((host, side), inner) in hosts.iter().zip([LEFT, RIGHT]).zip(INNER) {
        let outer = format!("addr add {}/24 dev wan", side.outer);
        host.ip(&["link set lo up", &outer, &format!("addr add {inner}/24 dev lo")]).unwrap();
    }
    hosts
}

fn ends(hosts: &[Namespace; 2]) -> [End<'_>; 2] {
    [0, 1].map(|i| End { namespace: &hosts[i], address: IpAddr::V4(INNER[i]) })
}

/// The lines of `ip` that add the newest SAs of the daemon's log.
fn sas(left: &Namespace, folder: &Path, log: &Path) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/charon-esp-sa");
    let output = Command::new(script).arg(log).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all = String::from_utf8(output.stdout).unwrap();
    let newest: Vec<_> = all.lines().rev().take(2).collect();
    assert_eq!(newest.len(), 2, "{}", fs::read_to_string(log).unwrap());
    let file = folder.join("esp_sa");
    fs::write(&file, newest.join("\n")).unwrap();
    let words = "reqid 1 replay-window 32 replay-oseq 100000 encap espinudp 4500 4500 0.0.0.0";
    let import = ["keys", "import", "--print", file.to_str().unwrap()];
    let words: Vec<_> = import.into_iter().chain(words.split(' ')).collect();
    left.command(Path::new(UVTI), &words, "").unwrap().lines().map(str::to_owned).collect()
}

/// The left daemon's place, with uvti in it.
fn take_over(left: &Namespace, states: Vec<String>) -> Gateway {
    let (own, far) = (LEFT.outer, RIGHT.outer);
    let mut lines = vec![format!("link add vti0 type vti local {own} remote {far} key 1")];
    lines.extend(states);
    lines.extend([
        format!(
            "xfrm policy add src {} dst {} dir out mark 1 tmpl src {own} dst {far} proto esp reqid 1 mode tunnel",
            LEFT.net, RIGHT.net
        ),
        format!(
            "xfrm policy add src {} dst {} dir in mark 1 tmpl src {far} dst {own} proto esp reqid 1 mode tunnel",
            RIGHT.net, LEFT.net
        ),
        "link set vti0 up".to_owned(),
        format!("route add {} dev vti0 src {}", RIGHT.net, INNER[0]),
    ]);
    Gateway::start(left.clone(), Engine::Uvti { program: PathBuf::from(UVTI), workers: 1 }, &lines).unwrap()
}

#[test]
fn uvti_takes_over_from_a_killed_ike_daemon() {
    let name = "uvti_takes_over_from_a_killed_ike_daemon";
    if !have(name, Need::Netns) || !have(name, Need::Strongswan) {
        return;
    }
    // As initiator of the first SAs, and as responder of the ones that follow them.
    for (algorithms, rekey) in [("aes128gcm16", false), ("aes256-sha256", false), ("aes256gcm16", true)] {
        let hosts = hosts();
        let folder = std::env::temp_dir().join(format!("uvti-ike-{}", std::process::id()));
        let start =
            |host, name: &str, sides| Daemon::start(host, &folder.join(name), sides, algorithms).unwrap();
        let left = start(&hosts[0], "left", [LEFT, RIGHT]);
        let right = start(&hosts[1], "right", [RIGHT, LEFT]);
        left.initiate().unwrap();
        if rekey {
            right.rekey().unwrap();
        }
        let [near, far] = ends(&hosts);
        traffic::ping(&near, &far, 3).unwrap();

        let states = sas(&hosts[0], &folder, &left.log_file());
        drop(left);
        let gateway = take_over(&hosts[0], states);
        traffic::ping(&near, &far, 3).unwrap();
        let run = Datagrams { count: 200, size: 1000, tos: 0, df: true, port: 5000 };
        traffic::udp(&near, &far, &run).unwrap();
        traffic::udp(&far, &near, &run).unwrap();
        let link = gateway.link("vti0").unwrap();
        assert!(link["tx_packets"] >= 203 && link["rx_packets"] >= 203, "{algorithms}: {link:?}");
        assert!(!link.contains_key("rx_errors") && !link.contains_key("tx_errors"), "{algorithms}: {link:?}");
        gateway.check().unwrap();
        gateway.stop().unwrap();
        drop(right);
        fs::remove_dir_all(&folder).unwrap();
    }
}
