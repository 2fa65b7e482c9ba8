//! One gateway between a client's LAN and a peer's WAN. Both far ends are bare wires: frames go in by hand and
//! are captured, and nothing but the scenario can touch a counter.

use crate::capture::Capture;
use crate::esp::{Key, Suite};
use crate::frame::{ESP, ETH_IPV4, Ipv4, UDP, ethernet, mac_text, udp};
use crate::gateway::{Engine, Gateway};
use crate::netns::Namespace;
use crate::wait;
use anyhow::Result;
use std::net::Ipv4Addr;
use std::time::Duration;

/// One step of a scenario.
#[derive(Debug)]
pub(super) enum Step {
    /// The client sends so many UDP packets of that size (IP header included) into the tunnel.
    Client { count: u64, size: usize, df: bool },
    /// The peer sends an ESP packet with a UDP packet of 100 bytes inside, and something wrong with it.
    Peer { spi: u32, sequence: u32, fault: Fault },
}

/// What is wrong with an ESP packet.
#[derive(Debug)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// A bit of the ICV.
    Icv,
    /// It ends after so many bytes.
    Cut(usize),
}

const GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 5);
const WAN: [u8; 6] = [2, 0, 0, 0, 1, 0];
const WAN_FAR: [u8; 6] = [2, 0, 0, 0, 1, 1];
const LAN: [u8; 6] = [2, 0, 0, 0, 2, 0];
const LAN_FAR: [u8; 6] = [2, 0, 0, 0, 2, 1];

/// How long the counters may take to get where they must.
const LIMIT: Duration = Duration::from_secs(3);

/// A gateway and both far ends.
#[derive(Debug)]
pub(super) struct Lab {
    gateway: Gateway,
    wan: Capture,
    lan: Capture,
    key: Key,
    sent: u64,
}

impl Lab {
    /// Builds everything and runs the script.
    pub(super) fn build(engine: &Engine, config: &[&str]) -> Result<Lab> {
        let (inside, outside) = (Namespace::new()?, Namespace::new()?);
        for (name, value) in [
            ("ip_forward", "1"),
            ("conf/all/rp_filter", "0"),
            ("conf/default/rp_filter", "0"),
            ("conf/all/send_redirects", "0"),
        ] {
            inside.sysctl(&format!("net/ipv4/{name}"), value)?;
        }
        for space in [&inside, &outside] {
            space.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
            space.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        }
        inside.join("wan", &mac_text(WAN), &outside, "wan", &mac_text(WAN_FAR))?;
        inside.join("lan", &mac_text(LAN), &outside, "lan", &mac_text(LAN_FAR))?;
        inside.ip(&[
            "link set lo up",
            &format!("addr add {GATEWAY}/24 dev wan"),
            "addr add 10.1.0.1/24 dev lan",
            &format!("neigh replace {PEER} lladdr {} dev wan nud permanent", mac_text(WAN_FAR)),
            &format!("neigh replace {CLIENT} lladdr {} dev lan nud permanent", mac_text(LAN_FAR)),
        ])?;
        let (wan, lan) = (Capture::open(&outside, "wan")?, Capture::open(&outside, "lan")?);
        let lines: Vec<String> = config.iter().flat_map(|block| block.lines()).map(str::to_owned).collect();
        let gateway = Gateway::start(inside, engine.clone(), &lines)?;
        let key = Key::counting(Suite::Gcm128, 0x21);
        Ok(Lab { gateway, wan, lan, key, sent: 0 })
    }

    /// Takes one step, and waits until all its packets are counted.
    pub(super) fn take(&mut self, step: &Step) -> Result<()> {
        match *step {
            Step::Client { count, size, df } => {
                let header = Ipv4 { df, ..Ipv4::new(CLIENT, SERVER, UDP) };
                let packet = header.packet(&udp(CLIENT, SERVER, (4000, 5000), &vec![0; size - 28]));
                for _ in 0..count {
                    self.lan.inject(&ethernet(LAN, LAN_FAR, ETH_IPV4, &packet))?;
                }
                self.sent += count;
            }
            Step::Peer { spi, sequence, ref fault } => {
                let packet = Ipv4::new(PEER, GATEWAY, ESP).packet(&self.esp(spi, sequence, fault));
                self.wan.inject(&ethernet(WAN, WAN_FAR, ETH_IPV4, &packet))?;
                self.sent += 1;
            }
        }
        // That they are not all counted shows in the comparison at the end.
        let counted = || match self.gateway.link("vti0") {
            Ok(link) => {
                let names = ["rx_packets", "rx_errors", "tx_packets", "tx_errors"];
                let total: u64 = names.iter().filter_map(|name| link.get(*name)).sum();
                (total >= self.sent).then_some(Ok(()))
            }
            Err(error) => Some(Err(error)),
        };
        wait::until(LIMIT, counted).unwrap_or(Ok(()))
    }

    /// Changes the configuration on the way, and asks for views.
    pub(super) fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    fn esp(&self, spi: u32, sequence: u32, fault: &Fault) -> Vec<u8> {
        let inner = Ipv4::new(SERVER, CLIENT, UDP).packet(&udp(SERVER, CLIENT, (4000, 5000), &[0; 72]));
        let mut packet = self.key.seal(spi, sequence, &inner, 4);
        match fault {
            Fault::None => {}
            Fault::Icv => {
                if let Some(last) = packet.last_mut() {
                    *last ^= 1;
                }
            }
            Fault::Cut(length) => packet.truncate(*length),
        }
        packet
    }
}
