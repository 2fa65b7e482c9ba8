//! `uvti run --metrics`: what Prometheus reads is what `uvti stat -j` says.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use uvti_tests::netns::Namespace;
use uvti_tests::require::{Need, have};
use uvti_tests::wait::until;

const UVTI: &str = env!("CARGO_BIN_EXE_uvti-under-test");
const ADDRESS: &str = "127.0.0.1:9436";

struct Dataplane(Child);

impl Drop for Dataplane {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(namespace: &Namespace) -> Dataplane {
    let mut command = Command::new(UVTI);
    command.args(["run", "--metrics", ADDRESS]).stdout(Stdio::piped());
    let mut child = namespace.run(|| Ok(command.spawn()?)).unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    Dataplane(child)
}

fn http(namespace: &Namespace, request: &str) -> String {
    let mut stream = namespace.run(|| Ok(TcpStream::connect(ADDRESS)?)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Samples by name and labels, as a scraper reads them: each has a type before it, and comes once.
fn samples(answer: &str) -> BTreeMap<String, u64> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    let (mut family, mut samples) = (String::new(), BTreeMap::new());
    for line in body.lines() {
        if let Some(text) = line.strip_prefix("# TYPE ") {
            family = text.strip_suffix(" counter").unwrap().to_owned();
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(name.split('{').next(), Some(family.as_str()), "{line}");
            assert!(samples.insert(name.to_owned(), value.parse().unwrap()).is_none(), "twice: {line}");
        }
    }
    samples
}

#[test]
fn a_scrape_is_what_stat_says() {
    if !have("a_scrape_is_what_stat_says", Need::Netns) {
        return;
    }
    let namespace = Namespace::new().unwrap();
    namespace.ip(&["link set lo up"]).unwrap();
    let dataplane = start(&namespace);
    let uvti = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        namespace.command(Path::new(UVTI), &words, "").unwrap()
    };
    for line in [
        "ip link add vti0 type vti local 198.51.100.1 remote 198.51.100.2 key 1",
        "ip link set vti0 up",
        "ip addr add 10.9.0.1/24 dev vti0",
    ] {
        uvti(line);
    }
    let socket = namespace.run(|| Ok(UdpSocket::bind("10.9.0.1:0")?)).unwrap();
    for _ in 0..3 {
        // What a drop tells the sender comes back as an error of the next call.
        let _ = socket.send_to(b"nowhere", "10.9.0.2:9");
    }
    let stat = || -> Value { serde_json::from_str(&uvti("stat -j")).unwrap() };
    let dropped = |stat: &Value| {
        let devices = stat["devices"].as_array().unwrap();
        let drops = devices.iter().flat_map(|d| d["drops"].as_array().unwrap());
        drops.map(|d| d[1].as_u64().unwrap()).sum::<u64>()
    };
    // An ICMP error may have taken the place of one of the three.
    let enough = until(Duration::from_secs(20), || (dropped(&stat()) >= 2).then_some(()));
    assert!(enough.is_some(), "{}", stat());

    let (before, scrape, after) =
        (stat(), samples(&http(&namespace, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")), stat());
    assert_eq!(before, after, "nothing else happens");
    let mut told = 0;
    for device in after["devices"].as_array().unwrap() {
        let name = device["name"].as_str().unwrap();
        for drop in device["drops"].as_array().unwrap() {
            let reason = drop[0].as_str().unwrap();
            let label = format!("reason=\"{reason}\",direction=\"{}\",device=\"{name}\"", &reason[..2]);
            assert_eq!(scrape.get(&format!("uvti_drop_packets_total{{{label}}}")), drop[1].as_u64().as_ref());
            told += 1;
        }
        let link =
            |metric: &str| scrape.get(&format!("node_network_{metric}_total{{device=\"{name}\"}}")).copied();
        if name == "-" {
            assert_eq!(link("transmit_errs"), None);
            continue;
        }
        let field = |names: &[&str]| Some(names.iter().map(|n| device["stats"][n].as_u64().unwrap()).sum());
        assert_eq!(link("transmit_errs"), field(&["tx_errors"]));
        assert_eq!(link("transmit_carrier"), field(&["tx_carrier_errors", "tx_aborted_errors"]));
        assert_eq!(link("transmit_packets"), field(&["tx_packets"]));
        assert_eq!(link("receive_drop"), field(&["rx_dropped"]));
        assert_eq!(link("transmit_colls"), field(&["collisions"]));
    }
    assert!(told > 0);
    assert_eq!(scrape.keys().filter(|k| k.starts_with("uvti_drop")).count(), told, "no other drops");
    assert_eq!(
        scrape.keys().filter(|k| k.starts_with("node_xfrm_")).count(),
        after["xfrm"].as_array().unwrap().len()
    );

    assert!(http(&namespace, "GET /other HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
    assert!(http(&namespace, "POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    // One who says nothing does not keep the others out for ever.
    let _silent = namespace.run(|| Ok(TcpStream::connect(ADDRESS)?)).unwrap();
    samples(&http(&namespace, "GET /metrics HTTP/1.1\r\n\r\n"));
    drop(dataplane);
}
