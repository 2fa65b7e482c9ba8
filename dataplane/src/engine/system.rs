//! The real host: TUN devices, netlink, raw sockets of the namespace the process runs in.

use super::host::{Created, DeviceLosses, Host, HostDevice, LinkState};
use crate::host::icmp::IcmpSender;
use crate::host::netlink::{Netlink, Scope};
use crate::io::tun::{CreateError, Options, SimpleTun};
use crate::io::{Burst, Outcome, Pool, TunQueue};
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use uvti_core::device::LinkSpec;
use uvti_core::packet::Buf;
use uvti_core::route::{Answer, Route, RouteKey};
use uvti_core::tables::{Errno, Refusal};
use uvti_core::vti::icmp;

/// The namespace of the thread that opened it.
pub struct SystemHost {
    netlink: Netlink,
    icmp: IcmpSender,
    created: usize,
}

impl SystemHost {
    /// Opens what is needed. Fails without CAP_NET_ADMIN or CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        let netlink = Netlink::open().map_err(io::Error::other)?;
        Ok(Self { netlink, icmp: IcmpSender::open()?, created: 0 })
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

struct Tun(Arc<SimpleTun>);

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
        let tun = SimpleTun::create(&spec.name, Options { mtu, ..Options::default() }).map_err(refusal)?;
        let tun = Arc::new(tun);
        let queues = (0..workers).map(|_| Box::new(Queue(tun.clone())) as Box<dyn TunQueue>).collect();
        let reader = self.created % workers.max(1);
        self.created += 1;
        Ok(Created { ifindex: tun.ifindex(), queues, reader: Some(reader), device: Box::new(Tun(tun)) })
    }

    fn link(&mut self, ifindex: u32) -> Option<LinkState> {
        let link = self.netlink.link_by_index(ifindex).ok()?;
        let path = format!("/proc/sys/net/ipv4/conf/{}/disable_xfrm", link.name);
        let disable_xfrm = std::fs::read_to_string(path).is_ok_and(|v| v.trim() == "1");
        Some(LinkState { name: link.name, up: link.up, mtu: link.mtu, txqlen: link.txqlen, disable_xfrm })
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

    fn send_icmp(&mut self, message: &icmp::Message) -> io::Result<()> {
        match message.dst {
            IpAddr::V4(to) => self.icmp.send_v4(to, &message.bytes),
            IpAddr::V6(to) => self.icmp.send_v6(to, 0, &message.bytes),
        }
    }

    fn random(&mut self) -> u64 {
        let mut bytes = [0; 8];
        // Blocks only before the kernel's generator is seeded at boot; never short for 8 bytes.
        let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        u64::from_ne_bytes(bytes)
    }
}

fn refusal(error: CreateError) -> Refusal {
    match error {
        CreateError::NotTun { .. } => Refusal::errno(Errno::Exists),
        CreateError::Busy(_) => Refusal::errno(Errno::Busy),
        CreateError::NoPrivilege(_) => Refusal::errno(Errno::NotPermitted),
        other => Refusal::message(Errno::Invalid, format!("uvti: {other}")),
    }
}
