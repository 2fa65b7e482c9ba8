//! The real host: TUN devices, netlink, raw sockets of the namespace the process runs in.

use super::host::{Created, DeviceLosses, Host, HostDevice, LinkState};
use crate::host::icmp::IcmpSender;
use crate::host::netlink::{Netlink, Scope};
use crate::host::pathfinder::Pathfinder;
use crate::io::tun::{
    CreateError, Device, LINK_NONE, LINK_TUNNEL, OffloadQueue, OffloadTun, Offloads, Options, SimpleTun,
};
use crate::io::{Burst, Outcome, Pool, TunQueue};
use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uvti_core::device::{LinkKind, LinkSpec};
use uvti_core::packet::Buf;
use uvti_core::route::{Answer, Route, RouteKey};
use uvti_core::tables::{Errno, Refusal};
use uvti_core::vti::icmp;

/// The namespace of the thread that opened it.
pub struct SystemHost {
    netlink: Netlink,
    icmp: IcmpSender,
    backend: Backend,
    created: usize,
}

/// How packets come from TUN devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// With offload if the kernel can, else one packet a system call.
    Auto(Offloads),
    /// With offload.
    Offload(Offloads),
    /// One packet a system call.
    Simple,
}

impl SystemHost {
    /// Opens what is needed. Fails without CAP_NET_ADMIN or CAP_NET_RAW.
    pub fn open(backend: Backend) -> io::Result<Self> {
        let netlink = Netlink::open().map_err(io::Error::other)?;
        Ok(Self { netlink, icmp: IcmpSender::open()?, backend, created: 0 })
    }

    fn open_tun(&self, name: &str, options: Options, workers: usize) -> Result<Opened, CreateError> {
        let (offloads, may_fall_back) = match self.backend {
            Backend::Simple => return open_simple(name, options, workers),
            Backend::Offload(offloads) => (offloads, false),
            Backend::Auto(offloads) => (offloads, true),
        };
        match open_offload(name, options, offloads, workers) {
            Err(error @ CreateError::Kernel { .. }) if may_fall_back => {
                tracing::warn!(%error, "no offload on this device: one packet a system call instead");
                open_simple(name, options, workers)
            }
            opened => opened,
        }
    }
}

/// A single-queue device, shared by the workers: one reads, all write.
struct Queue(Arc<SimpleTun>);

impl TunQueue for Queue {
    fn recv_burst(
        &mut self,
        into: &mut Vec<crate::io::tun::FromHost>,
        pool: &mut Pool,
        max: usize,
    ) -> io::Result<Burst> {
        self.0.receive(into, pool, max)
    }

    fn send_burst(&mut self, packets: &mut [Buf], outcomes: &mut Vec<Outcome>) {
        self.0.send(packets, outcomes);
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.descriptor()
    }
}

/// A device, and each worker's way to it.
type Opened = (Arc<dyn Device>, Vec<Box<dyn TunQueue>>);

fn open_simple(name: &str, options: Options, workers: usize) -> Result<Opened, CreateError> {
    let tun = Arc::new(SimpleTun::create(name, options)?);
    let queue = |_| Box::new(Queue(tun.clone())) as Box<dyn TunQueue>;
    Ok((tun.clone(), (0..workers).map(queue).collect()))
}

fn open_offload(
    name: &str,
    options: Options,
    offloads: Offloads,
    workers: usize,
) -> Result<Opened, CreateError> {
    let tun = OffloadTun::create(name, options, offloads)?;
    let queue = |_| Box::new(OffloadQueue::new(tun.clone())) as Box<dyn TunQueue>;
    Ok((tun.clone(), (0..workers).map(queue).collect()))
}

struct Tun(Arc<dyn Device>);

impl HostDevice for Tun {
    /// At once, whatever handles the workers still have: the name must be free when the command returns. A device that
    /// was moved to another namespace is not found here and vanishes with the last handle.
    fn remove(self: Box<Self>) -> io::Result<()> {
        self.0.destroy()?;
        let mut netlink = Netlink::open().map_err(io::Error::other)?;
        match netlink.delete_link(self.0.ifindex()) {
            Err(error) if error.errno() != Some(rustix::io::Errno::NODEV) => Err(io::Error::other(error)),
            _ => Ok(()),
        }
    }
}

impl Host for SystemHost {
    fn create(&mut self, spec: &LinkSpec, mtu: u32, workers: usize) -> Result<Created, Refusal> {
        let link_type = if spec.kind == LinkKind::Xfrm { LINK_NONE } else { LINK_TUNNEL };
        let options = Options { mtu, link_type, ..Options::default() };
        let (tun, queues) = self.open_tun(&spec.name, options, workers).map_err(refusal)?;
        let reader = self.created % workers.max(1);
        self.created += 1;
        Ok(Created { ifindex: tun.ifindex(), queues, reader: Some(reader), device: Box::new(Tun(tun)) })
    }

    fn link(&mut self, ifindex: u32) -> Option<LinkState> {
        let link = self.netlink.link_by_index(ifindex).ok()?;
        Some(LinkState { name: link.name, up: link.up, mtu: link.mtu, txqlen: link.txqlen })
    }

    fn losses(&mut self, ifindex: u32) -> Option<DeviceLosses> {
        let link = self.netlink.link_by_index(ifindex).ok()?;
        // What the host sends the driver has yet to read, and the reverse.
        Some(DeviceLosses { from_host: link.tx_dropped, to_host: link.rx_dropped })
    }

    fn set_mtu(&mut self, ifindex: u32, mtu: u32) -> Result<(), Refusal> {
        self.netlink
            .set_mtu(ifindex, mtu)
            .map_err(|error| Refusal::message(Errno::Invalid, format!("uvti: {error}")))
    }

    fn route(&mut self, key: RouteKey) -> (Answer, bool) {
        let src = Some(key.src).filter(|a| !a.is_unspecified());
        match self.netlink.route(src, key.dst, key.mark, 0) {
            Ok(r) => (Some(Route { ifindex: r.ifindex, mtu: r.mtu }), r.scope == Scope::Local),
            Err(_) => (None, false),
        }
    }

    fn addresses(&mut self) -> HashSet<IpAddr> {
        self.netlink.addresses().unwrap_or_else(|error| {
            tracing::warn!(%error, "the host's addresses are not known");
            HashSet::new()
        })
    }

    fn pathfinder(&mut self) -> io::Result<Box<dyn Pathfinder>> {
        Ok(Box::new(Netlink::open().map_err(io::Error::other)?))
    }

    fn send_icmp(&mut self, message: &icmp::Message) -> io::Result<()> {
        match message.dst {
            IpAddr::V4(to) => self.icmp.send_v4(to, &message.bytes),
            IpAddr::V6(to) => self.icmp.send_v6(to, 0, &message.bytes),
        }
    }

    fn sysctl(&mut self, name: &str) -> Option<String> {
        Some(std::fs::read_to_string(sysctl_path(name)).ok()?.trim().to_owned())
    }

    fn set_sysctl(&mut self, name: &str, value: &str) -> Option<io::Result<()>> {
        let path = sysctl_path(name);
        path.exists().then(|| std::fs::write(path, value))
    }

    fn random(&mut self) -> u64 {
        let mut bytes = [0; 8];
        // Blocks only before the kernel's generator is seeded at boot; never short for 8 bytes.
        let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        u64::from_ne_bytes(bytes)
    }
}

/// In a sysctl's name a slash stands for a dot that is part of a device's name.
fn sysctl_path(name: &str) -> PathBuf {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    Path::new("/proc/sys").join(name.chars().map(swap).collect::<String>())
}

fn refusal(error: CreateError) -> Refusal {
    match error {
        CreateError::NotTun { .. } => Refusal::errno(Errno::Exists),
        CreateError::Busy(_) => Refusal::errno(Errno::Busy),
        CreateError::NoPrivilege(_) => Refusal::errno(Errno::NotPermitted),
        other => Refusal::message(Errno::Invalid, format!("uvti: {other}")),
    }
}
