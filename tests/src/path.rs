//! Two uvti gateways whose outer path leads through a router, whose second link may be narrower than its first.

use crate::frame::mac_text;
use crate::gateway::{Engine, Gateway};
use crate::netns::Namespace;
use crate::wait;
use anyhow::{Context, Result};
use rustix::net::sockopt::{Ipv4PathMtuDiscovery, ip_mtu, set_ip_mtu_discover};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;
use uvti_core::xfrm::Spi;

/// Outer address of the left gateway.
pub const LEFT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Outer address of the right gateway.
pub const RIGHT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// The two where the outer packets are IPv6.
const OUTER6: [&str; 2] = ["2001:db8:1::1", "2001:db8:2::2"];
/// SPI of what the left gateway sends.
pub const SPI_LEFT: Spi = Spi(0x100);
/// SPI of what the right gateway sends.
pub const SPI_RIGHT: Spi = Spi(0x200);
/// The right gateway's link address.
pub const RIGHT_MAC: [u8; 6] = [2, 0, 0, 0, 2, 2];
/// The router's on the right.
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];
/// Inner addresses.
pub const INNER: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 9, 0, 2)];

/// How it is set up.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// Algorithms and keys of both directions, as `ip xfrm state add` takes them.
    pub algorithms: [String; 2],
    /// More words of both states (`encap …`).
    pub words: &'a str,
    /// The outer packets are IPv6: a vti6.
    pub outer6: bool,
    /// MTU of the link between router and right gateway.
    pub right_mtu: u32,
    /// More flags of `uvti run` on the left.
    pub flags: &'a [&'a str],
}

impl Plan<'_> {
    /// Bare ESP over IPv4, with these algorithms, on links of that MTU.
    pub fn bare(algorithms: [String; 2], right_mtu: u32) -> Plan<'static> {
        Plan { algorithms, words: "", outer6: false, right_mtu, flags: &[] }
    }
}

/// The namespaces, up.
#[derive(Debug)]
pub struct Path {
    /// The left gateway.
    pub left: Gateway,
    /// What is between. Its interfaces are `left` and `right`.
    pub router: Namespace,
    /// The right gateway.
    pub right: Gateway,
}

impl Path {
    /// Builds all of it. `prepare` may change the left namespace before uvti starts in it.
    pub fn build(
        plan: &Plan<'_>,
        program: PathBuf,
        prepare: impl Fn(&Namespace) -> Result<()>,
    ) -> Result<Path> {
        let (left, router, right) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        router.sysctl("net/ipv4/ip_forward", "1")?;
        router.join("left", "02:00:00:00:01:01", &left, "wan", "02:00:00:00:01:02")?;
        router.join("right", &mac_text(ROUTER_MAC), &right, "wan", &mac_text(RIGHT_MAC))?;
        let mtu = |name: &str| format!("link set {name} mtu {}", plan.right_mtu);
        router.ip(&[
            "link set lo up",
            "addr add 198.51.100.254/24 dev left",
            "addr add 203.0.113.254/24 dev right",
        ])?;
        router.ip(&[&mtu("right")])?;
        left.ip(&[
            "link set lo up",
            &format!("addr add {LEFT}/24 dev wan"),
            "route add default via 198.51.100.254",
        ])?;
        right.ip(&[
            "link set lo up",
            &format!("addr add {RIGHT}/24 dev wan"),
            "route add default via 203.0.113.254",
        ])?;
        right.ip(&[&mtu("wan")])?;
        if plan.outer6 {
            router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
            for (space, dev, address) in [
                (&router, "left", "2001:db8:1::254"),
                (&router, "right", "2001:db8:2::254"),
                (&left, "wan", OUTER6[0]),
                (&right, "wan", OUTER6[1]),
            ] {
                space.ip(&[&format!("addr add {address}/64 dev {dev} nodad")])?;
            }
            left.ip(&["route add default via 2001:db8:1::254"])?;
            right.ip(&["route add default via 2001:db8:2::254"])?;
        }
        prepare(&left)?;
        let engine = Engine::Uvti { program, workers: 1 };
        let right = Gateway::start(right, engine.clone(), &lines(plan, 1))?;
        let left = Gateway::start_with(left, engine, &lines(plan, 0), plan.flags)?;
        Ok(Path { left, router, right })
    }

    /// The only ledger of `uvti mtu` on the left.
    pub fn ledger(&self) -> Result<serde_json::Value> {
        let text = self.left.uvti(&["mtu", "vti0", "-j"])?;
        let ledgers: Vec<serde_json::Value> = serde_json::from_str(&text)?;
        ledgers.into_iter().next().with_context(|| format!("no ledger: {text}"))
    }

    /// Waits until the ledger is as wanted.
    pub fn wait_for_ledger(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> Result<serde_json::Value> {
        let found = wait::until(Duration::from_secs(10), || self.ledger().ok().filter(&wanted));
        found.with_context(|| format!("the ledger stays {:?}", self.ledger()))
    }

    /// How many packets the left gateway dropped for this reason, whatever device they met.
    pub fn dropped(&self, reason: &str) -> Result<u64> {
        let stat: serde_json::Value = serde_json::from_str(&self.left.uvti(&["stat", "-j"])?)?;
        let devices = stat["devices"].as_array().context("no devices in the JSON of stat")?;
        let drops = devices.iter().filter_map(|device| device["drops"].as_array()).flatten();
        Ok(drops.filter(|d| d[0] == reason).filter_map(|d| d[1].as_u64()).sum())
    }
}

/// Both ends of a UDP flow through the tunnel.
#[derive(Debug)]
pub struct Flow {
    sender: UdpSocket,
    receiver: UdpSocket,
}

/// IPv4 and UDP headers.
const HEADERS: usize = 28;

impl Flow {
    /// Opens it from left to right; `discover` says whether packets have DF.
    pub fn open(path: &Path, discover: Ipv4PathMtuDiscovery) -> Result<Flow> {
        let receiver = path.right.namespace.run(|| Ok(UdpSocket::bind((INNER[1], 0))?))?;
        receiver.set_read_timeout(Some(Duration::from_secs(10)))?;
        let sender = path.left.namespace.run(|| Ok(UdpSocket::bind((INNER[0], 0))?))?;
        set_ip_mtu_discover(&sender, discover)?;
        sender.connect(receiver.local_addr()?)?;
        Ok(Flow { sender, receiver })
    }

    /// Sends an IP packet of that many bytes.
    pub fn send(&self, bytes: usize) -> Result<()> {
        let payload = vec![bytes as u8; bytes - HEADERS];
        // The first time the host only tells of an earlier packet that was too big.
        let sent = self.sender.send(&payload).or_else(|_| self.sender.send(&payload));
        sent.map(drop).context("cannot send")
    }

    /// The length of the next IP packet that arrives.
    pub fn receive(&self) -> Result<usize> {
        let mut buffer = [0; 2048];
        Ok(self.receiver.recv(&mut buffer).context("nothing arrives")? + HEADERS)
    }

    /// The path MTU that the sending host has for it.
    pub fn path_mtu(&self) -> Result<u32> {
        Ok(ip_mtu(&self.sender)?)
    }

    /// Waits until the sending host has learned a path MTU.
    pub fn wait_for_path_mtu(&self, wanted: u32) -> Result<()> {
        let known = wait::until(Duration::from_secs(10), || (self.path_mtu().ok()? == wanted).then_some(()));
        known.with_context(|| format!("the sender's path MTU is {:?}, not {wanted}", self.path_mtu()))
    }
}

/// The batch of the gateway `own`: 0 is the left one.
pub fn lines(plan: &Plan<'_>, own: usize) -> Vec<String> {
    let outer = if plan.outer6 { OUTER6.map(str::to_owned) } else { [LEFT, RIGHT].map(|a| a.to_string()) };
    let kind = if plan.outer6 { "vti6" } else { "vti" };
    let ends = |from: usize| format!("src {} dst {}", outer[from], outer[1 - from]);
    let state = |from: usize, spi: Spi| {
        let (ends, algorithms, words) = (ends(from), &plan.algorithms[from], plan.words);
        // Without it an SA between IPv6 addresses is for IPv6 inside.
        let words = if plan.outer6 { "flag af-unspec" } else { words };
        format!("xfrm state add {ends} proto esp spi {:#x} mode tunnel {algorithms} {words}", spi.0)
    };
    let policy = |dir: &str, from: usize| {
        let any = "src 0.0.0.0/0 dst 0.0.0.0/0";
        format!("xfrm policy add {any} dir {dir} mark 1 tmpl {} proto esp mode tunnel", ends(from))
    };
    vec![
        format!("link add vti0 type {kind} local {} remote {} key 1", outer[own], outer[1 - own]),
        state(0, SPI_LEFT),
        state(1, SPI_RIGHT),
        policy("out", own),
        policy("in", 1 - own),
        format!("addr add {}/24 dev vti0", INNER[own]),
        "link set vti0 mtu 1480 up".to_owned(),
    ]
}
