//! The place: two nameless namespaces, a veth cable between them, a dataplane in each.

use super::daemon::Daemon;
use super::stop::Stop;
use crate::client::{Client, ClientError};
use crate::protocol::{CheckReport, Request, Response};
use anyhow::{Context, Result, anyhow};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uvti_core::device::LinkInfo;
use uvti_dataplane::host::netlink::{Netlink, RouteKind, RouteSpec};
use uvti_dataplane::host::netns::Netns;

/// The device in both.
pub(crate) const DEVICE: &str = "vti0";
/// Where packets that nobody answers go to, in both.
pub(super) const SINK: u16 = 5000;
/// Address of A in the tunnel.
pub(crate) const A: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// Address of B in the tunnel.
pub(crate) const B: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// Address of A on the cable.
pub(super) const OUTER_A: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Address of B on the cable.
pub(super) const OUTER_B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// A far end to which the only route is back into the tunnel.
const ROUTED_BACK: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// How long the host's changes may take to be seen.
const LIMIT: Duration = Duration::from_secs(3);
/// How long nothing has to move before all is quiet.
const QUIET: Duration = Duration::from_millis(200);

/// One end of the tunnel.
pub(crate) struct End {
    pub(crate) netns: Netns,
    pub(crate) client: Client,
    /// Its control socket.
    pub(crate) control: PathBuf,
    daemon: Daemon,
    /// Takes packets without answering: an ICMP error about a closed port would be counted too.
    _sink: UdpSocket,
}

/// Both ends. Dropped, everything is gone.
pub(crate) struct Stage {
    pub(crate) a: End,
    pub(crate) b: End,
    _dir: Dir,
}

impl Stage {
    /// Builds it, up to a tunnel that carries traffic: the two batches are configurations, `args` goes to `uvti run`.
    pub(crate) fn build(batches: [&str; 2], args: &[String], stop: &Stop) -> Result<Self> {
        let dir = Dir::new()?;
        let (a, b) = (Netns::new()?, Netns::new()?);
        a.run(quieten)?;
        b.run(quieten)?;
        a.run(|| Netlink::open()?.add_veth("wan", "wan", &b))?.context("cannot lay the veth cable")?;
        a.run(|| raise("wan", OUTER_A, 24))??;
        b.run(|| raise("wan", OUTER_B, 24))??;
        let a = End::start(a, &dir.0, ("a", batches[0], args), A, stop)?;
        let b = End::start(b, &dir.0, ("b", batches[1], args), B, stop)?;
        Ok(Self { a, b, _dir: dir })
    }

    /// Gives A a far end to which the only route is back into the tunnel.
    pub(super) fn route_back(&self) -> Result<()> {
        self.a.netns.run(route_back)?
    }

    /// Waits until no packet is on its way.
    pub(super) fn settle(&mut self, stop: &Stop) -> Result<()> {
        let mut last = None;
        let mut since = Instant::now();
        stop.wait(LIMIT, "the tunnel falling silent", || {
            let now = (self.a.link()?.stats, self.b.link()?.stats);
            if last != Some(now) {
                (last, since) = (Some(now), Instant::now());
            }
            Ok((since.elapsed() >= QUIET).then_some(()))
        })
    }

    /// Whether every packet is accounted for, at A and at B.
    pub(super) fn check(&mut self) -> Result<[CheckReport; 2]> {
        Ok([self.a.check()?, self.b.check()?])
    }

    /// Ends both dataplanes as a service manager would.
    pub(crate) fn end(self, stop: &Stop) -> Result<()> {
        self.a.daemon.end(stop)?;
        self.b.daemon.end(stop)
    }
}

impl End {
    fn start(
        netns: Netns,
        dir: &Path,
        run: (&str, &str, &[String]),
        inner: Ipv4Addr,
        stop: &Stop,
    ) -> Result<Self> {
        let control = dir.join(format!("{}.sock", run.0));
        let (daemon, client) = Daemon::start(&netns, dir, run, stop)?;
        netns.run(|| raise(DEVICE, inner, 30))??;
        let sink = netns.run(|| UdpSocket::bind((inner, SINK)))??;
        let mut end = Self { netns, client, control, daemon, _sink: sink };
        stop.wait(LIMIT, "the dataplane seeing its device up", || Ok(end.link()?.up.then_some(())))?;
        Ok(end)
    }

    /// Its VTI.
    pub(super) fn link(&mut self) -> Result<LinkInfo> {
        let links = self.client.links()?;
        links.into_iter().find(|l| l.spec.name == DEVICE).ok_or_else(|| anyhow!("{DEVICE} is gone"))
    }

    fn check(&mut self) -> Result<CheckReport, ClientError> {
        match self.client.ask(&Request::Check)? {
            Response::Check(report) => Ok(report),
            _ => Err(ClientError::Unexpected),
        }
    }
}

/// Keeps IPv6 from sending of its own accord. Where it cannot be, there is none, or its packets are counted.
fn quieten() {
    for scope in ["all", "default"] {
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
    }
}

/// Gives a link its address, and sets it and the loopback up.
fn raise(name: &str, address: Ipv4Addr, prefix: u8) -> Result<()> {
    let mut netlink = Netlink::open()?;
    for link in ["lo", name] {
        let index = netlink.link_by_name(link)?.index;
        if link == name {
            netlink.add_address(index, address.into(), prefix)?;
        }
        netlink.set_up(index, true)?;
    }
    Ok(())
}

fn route_back() -> Result<()> {
    let mut netlink = Netlink::open()?;
    let dev = Some(netlink.link_by_name(DEVICE)?.index);
    let dst = IpAddr::V4(ROUTED_BACK);
    Ok(netlink.add_route(RouteSpec {
        dst,
        prefix: 32,
        via: None,
        dev,
        mtu: None,
        kind: RouteKind::Unicast,
    })?)
}

/// A directory for sockets and logs, which goes with this.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("uvti-stage-{}", std::process::id()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
