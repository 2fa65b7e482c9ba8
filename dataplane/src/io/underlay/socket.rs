//! The underlay over the host's IP stack: raw sockets for ESP, UDP sockets for NAT-T.

use super::esp::EspSocket;
use super::intake::Intake;
use super::segmented::{Segmented, SendPorts};
use super::send::{RawSender, addresses};
use super::shared::SharedPort;
use super::udp::UdpSocket;
use super::{Losses, Outgoing, Received, UdpPort, Underlay};
use crate::io::{Burst, Errno, Outcome, Pool};
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// Sockets in the namespace in which they were opened: a VTI moved elsewhere keeps its outer side where it was.
pub struct SocketUnderlay {
    v4: RawSender,
    /// Absent on a host without IPv6.
    v6: Option<RawSender>,
    /// ESP in UDP, many packets a message, if the user wants it.
    segmented: Option<(Segmented, SendPorts)>,
    receivers: Vec<Source>,
    /// Which receiver is asked first, so that a busy one does not starve the others.
    next: usize,
    /// How ports are received on.
    port_use: PortUse,
    /// Losses of ports that have been closed.
    closed: Losses,
}

enum Source {
    Esp(EspSocket),
    Udp(UdpSocket),
    Shared(SharedPort),
}

/// How ESP in UDP is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortUse {
    /// By a port of our own, unless another process holds it.
    Own,
    /// By copies of what arrives on a port that is not bound: for an IKE daemon that has it, or is to have it.
    Shared,
}

impl SocketUnderlay {
    /// Sends all, and receives ESP (protocol 50) if `esp`, and copies of plain IP-in-IP. Each raw socket gets a copy of every ESP packet, so one
    /// underlay of the namespace has it. `EPERM` without CAP_NET_RAW.
    pub fn open(esp: bool) -> io::Result<Self> {
        let mut receivers = Vec::new();
        if esp {
            receivers.push(Source::Esp(EspSocket::open_v4()?));
            receivers.extend(optional(EspSocket::open_v6())?.map(Source::Esp));
            receivers.push(Source::Esp(EspSocket::open_ipip()?));
        }
        let v6 = optional(RawSender::open_v6())?;
        let v4 = RawSender::open_v4()?;
        Ok(Self {
            v4,
            v6,
            segmented: None,
            receivers,
            next: 0,
            port_use: PortUse::Own,
            closed: Losses::default(),
        })
    }

    /// Sends ESP in UDP by `UDP_SEGMENT`, from the ports that any underlay with the same `ports` receives on.
    pub fn segmented(self, ports: SendPorts) -> Self {
        Self { segmented: Some((Segmented::new(ports.clone()), ports)), ..self }
    }

    /// Receives ESP in UDP as `port_use` says.
    pub fn port_use(self, port_use: PortUse) -> Self {
        Self { port_use, ..self }
    }

    /// Receives ESP in UDP on `port`, on every address. `AddrInUse` if another process (an IKE daemon) has it.
    pub fn bind_udp(&mut self, port: UdpPort) -> io::Result<()> {
        if self.udp_ports().any(|bound| bound == port) {
            return Ok(());
        }
        let udp = UdpSocket::bind(port)?;
        if let Some((_, ports)) = &self.segmented
            && !port.v6
            && let Err(error) = ports.open(port.number, udp.socket())
        {
            tracing::warn!(%port, %error, "cannot send by UDP_SEGMENT from this port: one packet a message");
        }
        self.receivers.push(Source::Udp(udp));
        Ok(())
    }

    /// Receives the ESP among what arrives on `port`, which is another process's.
    pub fn share_udp(&mut self, port: UdpPort) -> io::Result<()> {
        if !self.udp_ports().any(|open| open == port) {
            self.receivers.push(Source::Shared(SharedPort::open(port)?));
        }
        Ok(())
    }

    fn open_udp(&mut self, port: UdpPort) -> io::Result<()> {
        if self.port_use == PortUse::Shared {
            return self.share_udp(port);
        }
        match self.bind_udp(port) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                tracing::warn!(
                    %port,
                    "another process has this UDP port: sharing it, it gets all that arrives"
                );
                self.share_udp(port)
            }
            bound => bound,
        }
    }

    /// Closes `port`; what waits in it is lost. Whether it was open.
    pub fn unbind_udp(&mut self, port: UdpPort) -> bool {
        let position = self.receivers.iter().position(|r| r.port() == Some(port));
        let Some(position) = position else { return false };
        let source = self.receivers.remove(position);
        if let Some((_, ports)) = &self.segmented
            && !port.v6
        {
            ports.close(port.number);
        }
        self.closed.receive_overflow += source.intake().overflow();
        true
    }

    /// UDP ports received on.
    pub fn udp_ports(&self) -> impl Iterator<Item = UdpPort> {
        self.receivers.iter().filter_map(Source::port)
    }
}

/// A socket of a family that the host may lack.
fn optional<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    match opened {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Source {
    fn port(&self) -> Option<UdpPort> {
        match self {
            Source::Esp(_) => None,
            Source::Udp(udp) => Some(udp.port()),
            Source::Shared(shared) => Some(shared.port()),
        }
    }

    fn recv(&mut self, into: &mut Vec<Received>, pool: &mut Pool, max: usize) -> io::Result<Burst> {
        match self {
            Source::Esp(socket) => socket.recv(into, pool, max),
            Source::Udp(socket) => socket.recv(into, pool, max),
            Source::Shared(socket) => socket.recv(into, pool, max),
        }
    }

    fn intake(&self) -> &Intake {
        match self {
            Source::Esp(socket) => socket.intake(),
            Source::Udp(socket) => socket.intake(),
            Source::Shared(socket) => socket.intake(),
        }
    }
}

impl Underlay for SocketUnderlay {
    fn recv_burst(&mut self, into: &mut Vec<Received>, pool: &mut Pool, max: usize) -> io::Result<Burst> {
        let mut burst = Burst::default();
        let n = self.receivers.len();
        for i in 0..n {
            let source = &mut self.receivers[(self.next + i) % n];
            let one = source.recv(into, pool, max - burst.received)?;
            burst.received += one.received;
            burst.starved |= one.starved;
            if burst.received >= max || burst.starved {
                break;
            }
        }
        self.next = (self.next + 1) % n.max(1);
        Ok(burst)
    }

    fn send_burst(&mut self, packets: &[Outgoing], outcomes: &mut Vec<Outcome>) {
        if let Some((segmented, _)) = &mut self.segmented {
            segmented.begin();
        }
        let mut rest = packets;
        while let Some(first) = rest.first() {
            let way = self.way(first);
            let n = rest.iter().take_while(|packet| self.way(packet) == way).count();
            let (run, later) = rest.split_at(n.max(1));
            rest = later;
            match (way, &mut self.v6, &mut self.segmented) {
                (Some(Way::V4), ..) => self.v4.send(run, outcomes),
                (Some(Way::V6), Some(v6), _) => v6.send(run, outcomes),
                (Some(Way::Port(port)), _, Some((segmented, _))) => segmented.send(port, run, outcomes),
                _ => outcomes.extend(run.iter().map(|_| Outcome::Failed(Errno::AFNOSUPPORT))),
            }
        }
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        self.receivers.iter().map(|source| source.intake().fd()).collect()
    }

    fn set_udp_ports(&mut self, ports: &[UdpPort]) -> Vec<(UdpPort, io::Error)> {
        let closed: Vec<UdpPort> = self.udp_ports().filter(|port| !ports.contains(port)).collect();
        for port in closed {
            self.unbind_udp(port);
        }
        ports.iter().filter_map(|port| Some((*port, self.open_udp(*port).err()?))).collect()
    }

    fn losses(&self) -> Losses {
        let v6 = self.v6.as_ref().map_or(0, RawSender::async_errors);
        let udp = self.segmented.as_ref().map_or(0, |(segmented, _)| segmented.async_errors());
        let open: u64 = self.receivers.iter().map(|source| source.intake().overflow()).sum();
        Losses {
            receive_overflow: self.closed.receive_overflow + open,
            async_errors: self.v4.async_errors() + v6 + udp,
        }
    }
}

/// How a packet is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    V4,
    V6,
    /// From this UDP port.
    Port(u16),
}

impl SocketUnderlay {
    /// `None` if the packet has no complete IP header.
    fn way(&self, packet: &Outgoing) -> Option<Way> {
        if let Some(port) = self.segmented.as_ref().and_then(|(s, _)| s.port(packet)) {
            return Some(Way::Port(port));
        }
        match addresses(packet.buf.bytes())?.1 {
            IpAddr::V4(_) => Some(Way::V4),
            IpAddr::V6(_) => Some(Way::V6),
        }
    }
}
