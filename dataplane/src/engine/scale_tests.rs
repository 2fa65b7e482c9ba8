//! What a transaction and a look at the host cost does not grow with the SAs: counted in questions to the host.

use super::tests::{LOCAL, MemoryHost, REMOTE, Tuns, link, sa};
use super::*;
use crate::io::memory::MemoryUnderlay;
use crate::worker::tamper::Honest;
use uvti_core::device::LinkSpec;
use uvti_core::route::{Answer, RouteKey};
use uvti_core::tables::{Op, Refusal};
use uvti_core::vti::icmp;
use uvti_core::xfrm::{Encap, EncapKind};

/// A host that counts how often it is asked for a route.
struct Counting(MemoryHost, Arc<AtomicU64>);

impl Host for Counting {
    fn create(&mut self, spec: &LinkSpec, mtu: u32, workers: usize) -> Result<Created, Refusal> {
        self.0.create(spec, mtu, workers)
    }

    fn link(&mut self, ifindex: u32) -> Option<LinkState> {
        self.0.link(ifindex)
    }

    fn set_mtu(&mut self, ifindex: u32, mtu: u32) -> Result<(), Refusal> {
        self.0.set_mtu(ifindex, mtu)
    }

    fn route(&mut self, key: RouteKey) -> (Answer, bool) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.route(key)
    }

    fn send_icmp(&mut self, message: &icmp::Message) -> io::Result<()> {
        self.0.send_icmp(message)
    }

    fn random(&mut self) -> u64 {
        self.0.random()
    }
}

#[test]
fn routes_are_asked_for_by_path_not_by_sa_or_transaction() {
    let (asked, net) = (Arc::new(AtomicU64::new(0)), MemoryUnderlay::new().unwrap());
    let host = MemoryHost { tuns: Tuns::default(), icmp: unbounded().0 };
    let config = Config {
        workers: 1,
        keep_devices: false,
        attribution_rows: 8,
        record: 0,
        unmarked: Unmarked::default(),
        ecn: EcnRule::default(),
    };
    let host = Box::new(Counting(host, asked.clone()));
    let engine = Engine::start(config, host, vec![Box::new(net)], || Honest).unwrap();
    let add = |spi, encap| {
        let spec = uvti_core::xfrm::StateSpec { encap, ..sa(LOCAL, REMOTE, spi) };
        engine.apply(&[Op::StateAdd(Box::new(spec))]).unwrap();
        asked.swap(0, Ordering::Relaxed)
    };
    engine.apply(&[Op::LinkAdd(link())]).unwrap();
    let original = "0.0.0.0".parse().unwrap();
    let encap = Encap { kind: EncapKind::EspInUdp, sport: 4500, dport: 4501, original };
    add(1, Some(encap));
    assert!(engine.lock().udp_ports.contains(&UdpPort { v6: false, number: 4500 }));
    for spi in 2..100 {
        assert_eq!(add(spi, None), 0, "neither the path, which is known, nor the ports of the SA in UDP");
    }
    engine.refresh();
    assert_eq!(asked.swap(0, Ordering::Relaxed), 1, "99 SAs, one path");
    let id = sa(LOCAL, REMOTE, 1).id();
    engine.apply(&[Op::StateDel(id)]).unwrap();
    assert!(engine.lock().udp_ports.is_empty());
    engine.stop();
}
