//! Two gateways joined by a wire, with a VTI between them: the left one is what is examined, the right one is
//! the kernel's.

use crate::capture::Capture;
use crate::gateway::{Counters, Engine, Gateway, SaCount};
use crate::netns::Namespace;
use crate::traffic::End;
use crate::{sys, wait};
use anyhow::Result;
use socket2::{Domain, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Outer address of the left gateway.
pub const LEFT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Outer address of the right gateway.
pub const RIGHT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// SPI of what the left gateway sends.
pub const SPI_LEFT: u32 = 0x100;
/// SPI of what the right gateway sends.
pub const SPI_RIGHT: u32 = 0x200;
/// Outer addresses of the two where the outer packets are IPv6.
const LEFT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1);
const RIGHT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 2);
/// The last sequence number before those of an SA with extended sequence numbers: the low half wraps soon.
pub const ESN_START: u64 = 0xffff_fff0;
/// The port of ESP in UDP.
pub const NATT: u16 = 4500;

/// What is between the gateways.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Algorithms and keys of what the left and the right gateway send, as `ip xfrm state add` takes them.
    pub algorithms: [String; 2],
    /// ESP in UDP.
    pub natt: bool,
    /// The outer packets are IPv6: a vti6.
    pub outer6: bool,
    /// Extended sequence numbers, from [`ESN_START`] on.
    pub esn: bool,
    /// The inner packets are IPv6.
    pub v6: bool,
    /// Replay window of both SAs.
    pub window: u32,
    /// An IN policy without mark sits in the left namespace's kernel and would swallow the outer packets.
    pub unmarked_policy: bool,
}

impl Plan {
    /// IPv4 in bare ESP over IPv4, with these algorithms.
    pub fn bare(algorithms: [String; 2]) -> Plan {
        Plan {
            algorithms,
            natt: false,
            outer6: false,
            esn: false,
            v6: false,
            window: 32,
            unmarked_policy: false,
        }
    }
}

/// The two gateways, up.
#[derive(Debug)]
pub struct Tunnel {
    /// The gateway that is examined.
    pub left: Gateway,
    /// The kernel's.
    pub right: Gateway,
    /// Captures the wire at the right end: `In` came from the left gateway.
    pub capture: Capture,
    v6: bool,
    // Holds the port on which the right kernel takes ESP in UDP.
    _encap: Vec<Socket>,
}

impl Tunnel {
    /// Builds the namespaces, the wire and both ends of the tunnel.
    pub fn build(plan: &Plan, left: &Engine) -> Result<Tunnel> {
        let (left_space, right_space) = (Namespace::new()?, Namespace::new()?);
        for (space, address) in [(&left_space, LEFT), (&right_space, RIGHT)] {
            prepare(space, plan.v6 || plan.outer6)?;
            space.ip(&["link set lo up"])?;
            if space.inode()? == right_space.inode()? {
                left_space.join("wan", "02:00:00:00:01:00", &right_space, "wan", "02:00:00:00:01:01")?;
                left_space.ip(&[&format!("addr add {LEFT}/24 dev wan")])?;
                right_space.ip(&[&format!("addr add {address}/24 dev wan")])?;
            }
        }
        if plan.outer6 {
            left_space.ip(&[&format!("addr add {LEFT6}/64 dev wan nodad")])?;
            right_space.ip(&[&format!("addr add {RIGHT6}/64 dev wan nodad")])?;
        }
        if plan.unmarked_policy {
            left_space.ip(&[&unmarked_policy(plan.natt)])?;
        }
        let capture = Capture::open(&right_space, "wan")?;
        let mut encap = Vec::new();
        for (space, kernel) in [(&left_space, *left == Engine::Kernel), (&right_space, true)] {
            if plan.natt && kernel {
                encap.push(space.run(|| encap_socket(plan.outer6))?);
            }
        }
        let right = Gateway::start(right_space, Engine::Kernel, &end_lines(plan, RIGHT, LEFT))?;
        let left = Gateway::start(left_space, left.clone(), &end_lines(plan, LEFT, RIGHT))?;
        Ok(Tunnel { left, right, capture, v6: plan.v6, _encap: encap })
    }

    /// The left end of the traffic inside.
    pub fn left_end(&self) -> End<'_> {
        End { namespace: &self.left.namespace, address: inner_address(LEFT, self.v6) }
    }

    /// The right end of the traffic inside.
    pub fn right_end(&self) -> End<'_> {
        End { namespace: &self.right.namespace, address: inner_address(RIGHT, self.v6) }
    }

    /// Waits until what each side has sent was received by the other, and returns both counters.
    ///
    /// When something was lost they never agree: then the counters of that moment tell what.
    pub fn settled(&self) -> Result<(Counters, Counters)> {
        let both =
            || -> Result<(Counters, Counters)> { Ok((self.left.link("vti0")?, self.right.link("vti0")?)) };
        let same = |a: &Counters, b: &Counters| a.get("tx_packets") == b.get("rx_packets");
        let agreed = || match both() {
            Ok((left, right)) => (same(&left, &right) && same(&right, &left)).then_some(Ok((left, right))),
            Err(error) => Some(Err(error)),
        };
        wait::until(Duration::from_secs(5), agreed).unwrap_or_else(both)
    }

    /// Gives both ends other SAs, those of the plan, in place of the ones they have.
    pub fn renew(&self, plan: &Plan) -> Result<()> {
        let lines = [vec!["xfrm state flush".to_owned()], states(plan)].concat();
        self.right.ip(&lines)?;
        self.left.ip(&lines)
    }

    /// What all counters must say when nothing was lost: pushes what they say wrongly.
    pub fn compare_counters(&self, failures: &mut Vec<String>) -> Result<(Counters, Counters)> {
        let (left, right) = self.compare_links(failures)?;
        for (side, gateway, link) in [("left", &self.left, &left), ("right", &self.right, &right)] {
            let (out, inward) = if side == "left" { (SPI_LEFT, SPI_RIGHT) } else { (SPI_RIGHT, SPI_LEFT) };
            let sas = gateway.sas()?;
            for (spi, way) in [(out, "tx"), (inward, "rx")] {
                let bytes = count(link, &format!("{way}_bytes"));
                let expected = SaCount { bytes, packets: count(link, &format!("{way}_packets")) };
                let counted = sas.get(&spi).copied();
                if counted != Some(expected) {
                    failures
                        .push(format!("{side}: the SA {spi:#x} counted {counted:?}, its link {expected:?}"));
                }
            }
        }
        Ok((left, right))
    }

    /// The same without those of the SAs.
    pub fn compare_links(&self, failures: &mut Vec<String>) -> Result<(Counters, Counters)> {
        let (left, right) = self.settled()?;
        for unit in ["packets", "bytes"] {
            for (way, from, to) in [("left to right", &left, &right), ("right to left", &right, &left)] {
                let (sent, received) = (count(from, &format!("tx_{unit}")), count(to, &format!("rx_{unit}")));
                if sent != received || sent == 0 {
                    failures.push(format!("{way}: {sent} {unit} sent, {received} received"));
                }
            }
        }
        for (side, gateway, link) in [("left", &self.left, &left), ("right", &self.right, &right)] {
            let mut errors = link.clone();
            errors.retain(|name, _| !name.ends_with("_packets") && !name.ends_with("_bytes"));
            let xfrm = gateway.xfrm_stat()?;
            if !errors.is_empty() || !xfrm.is_empty() {
                failures.push(format!("{side}: errors on the link {errors:?}, xfrm_stat {xfrm:?}"));
            }
            if let Err(error) = gateway.check() {
                failures.push(format!("{side}: {error:#}"));
            }
        }
        Ok((left, right))
    }
}

fn count(counters: &Counters, name: &str) -> u64 {
    counters.get(name).copied().unwrap_or(0)
}

/// The address inside the tunnel of the gateway with this outer address.
fn inner_address(outer: Ipv4Addr, v6: bool) -> IpAddr {
    let host = outer.octets()[3];
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, host.into()).into()
    } else {
        Ipv4Addr::new(10, 9, 0, host).into()
    }
}

/// No address but those that are set, and IPv6 silent unless it is tested.
fn prepare(space: &Namespace, v6: bool) -> Result<()> {
    let disable = if v6 { "0" } else { "1" };
    for (name, value) in [
        ("all/disable_ipv6", disable),
        ("default/disable_ipv6", disable),
        ("default/accept_ra", "0"),
        ("default/accept_dad", "0"),
        ("default/router_solicitations", "0"),
        ("default/addr_gen_mode", "1"),
    ] {
        space.sysctl(&format!("net/ipv6/conf/{name}"), value)?;
    }
    for name in ["all", "default"] {
        space.sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "0")?;
    }
    Ok(())
}

/// A socket that gives the kernel the ESP in UDP of port 4500.
fn encap_socket(v6: bool) -> Result<Socket> {
    let (domain, any): (_, IpAddr) = match v6 {
        true => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
        false => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
    };
    let socket = Socket::new(domain, Type::DGRAM, None)?;
    socket.bind(&SocketAddr::from((any, NATT)).into())?;
    sys::encapsulate_esp(&socket)?;
    Ok(socket)
}

/// Wants the outer packets to have come through IPsec, which they have not.
fn unmarked_policy(natt: bool) -> String {
    let protocol = if natt { "udp" } else { "esp" };
    format!(
        "xfrm policy add src {RIGHT} dst {LEFT} proto {protocol} dir in \
         tmpl src {RIGHT} dst {LEFT} proto esp reqid 9 mode tunnel"
    )
}

/// The script of one end, as a lab would write it.
fn end_lines(plan: &Plan, local: Ipv4Addr, remote: Ipv4Addr) -> Vec<String> {
    let prefix = if plan.v6 { "64 nodad" } else { "24" };
    let policy = |dir: &str, src: Ipv4Addr, dst: Ipv4Addr| {
        let any = if plan.v6 { "::/0" } else { "0.0.0.0/0" };
        let (src, dst) = (outer(plan, src), outer(plan, dst));
        format!(
            "xfrm policy add src {any} dst {any} dir {dir} mark 1 \
             tmpl src {src} dst {dst} proto esp reqid 1 mode tunnel"
        )
    };
    let kind = if plan.outer6 { "vti6" } else { "vti" };
    let mut lines = vec![
        format!(
            "link add vti0 type {kind} local {} remote {} key 1",
            outer(plan, local),
            outer(plan, remote)
        ),
        format!("addr add {}/{prefix} dev vti0", inner_address(local, plan.v6)),
        // Below the tunnel's MTU with every suite, so that nothing has to be discovered.
        "link set vti0 mtu 1360 up".to_owned(),
        policy("out", local, remote),
        policy("in", remote, local),
    ];
    lines.extend(states(plan));
    lines
}

/// The outer address of a gateway.
fn outer(plan: &Plan, address: Ipv4Addr) -> IpAddr {
    match plan.outer6 {
        true if address == LEFT => LEFT6.into(),
        true => RIGHT6.into(),
        false => address.into(),
    }
}

/// The SAs of both directions, the same lines at both ends.
fn states(plan: &Plan) -> Vec<String> {
    let [left, right] = &plan.algorithms;
    let state = |src: Ipv4Addr, dst: Ipv4Addr, spi: u32, algorithms: &str| {
        let encap = if plan.natt { "encap espinudp 4500 4500 0.0.0.0 " } else { "" };
        let mut flags = Vec::new();
        flags.extend((plan.v6 || plan.outer6).then_some("af-unspec"));
        flags.extend(plan.esn.then_some("esn"));
        let flag = if flags.is_empty() { String::new() } else { format!("flag {} ", flags.join(" ")) };
        let start =
            if plan.esn { format!("replay-seq {ESN_START} replay-oseq {ESN_START} ") } else { String::new() };
        let (src, dst, window) = (outer(plan, src), outer(plan, dst), plan.window);
        format!(
            "xfrm state add src {src} dst {dst} proto esp spi {spi:#x} reqid 1 mode tunnel \
             replay-window {window} {start}{flag}{encap}{algorithms}"
        )
    };
    vec![state(LEFT, RIGHT, SPI_LEFT, left), state(RIGHT, LEFT, SPI_RIGHT, right)]
}
