//! A path through running dataplanes: UDP sockets of the host at both ends, and what is counted between them.

use super::arrivals::{Arrivals, Latency, mark};
use super::clock::{Clock, Wall};
use super::host;
use super::trial::{Losses, Path};
use crate::client::{Client, ClientError};
use crate::counters::totals;
use crate::demo::stage::{A, B, End, Stage};
use crate::demo::stop::Stop;
use crate::protocol::{Namespace, Request, Response};
use anyhow::{Context, Result, bail};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use uvti_core::xfrm::Family;
use uvti_dataplane::host::netns::Netns;
use uvti_dataplane::host::packet::report_errors;

/// Room asked for in the receiver's socket, bytes.
const ROOM: usize = 32 << 20;
/// How often the receiver looks whether it is over.
const LOOK: Duration = Duration::from_millis(20);
/// RFC 863: who has nobody to receive sends there.
const DISCARD: u16 = 9;

/// A dataplane, and its place.
struct Place {
    name: &'static str,
    netns: Netns,
    client: Client,
}

/// From a socket near the one dataplane to one near the other, or to the wire.
pub(super) struct Live {
    socket: UdpSocket,
    near: Place,
    far: Option<(Place, Receiver)>,
    packet: Vec<u8>,
    trial: u32,
    /// Without a receiver: what had left before the trial.
    left: u64,
    /// Packets that the host did not take from the sender.
    refused: u64,
}

impl Live {
    /// Through the tunnel of a stage, from A to B.
    pub(super) fn on(stage: Stage, clock: Wall) -> Result<(Self, Curtain)> {
        let Stage { a, b, .. } = &stage;
        let near = Place { name: "near", netns: a.netns.run(Netns::current)??, client: a.connect()? };
        let far = Place { name: "far", netns: b.netns.run(Netns::current)??, client: b.connect()? };
        Ok((Self::new(near, Some(far), B.into(), Some(A.into()), clock)?, Curtain(stage)))
    }

    /// Through a tunnel that runs already: from this namespace to an address behind it, in the named namespace if that
    /// is given.
    pub(super) fn through(
        control: Option<&FilePath>,
        to: IpAddr,
        far: Option<&str>,
        clock: Wall,
    ) -> Result<Self> {
        let client = Client::connect(control, &Namespace::Own)?;
        let near = Place { name: "near", netns: Netns::current()?, client };
        let far = far.map(|name| -> Result<Place> {
            let client = Client::connect(None, &Namespace::Named(name.into()))?;
            Ok(Place { name: "far", netns: Netns::named(name)?, client })
        });
        Self::new(near, far.transpose()?, to, None, clock)
    }

    fn new(near: Place, far: Option<Place>, to: IpAddr, from: Option<IpAddr>, clock: Wall) -> Result<Self> {
        let far = match far {
            Some(place) => {
                let receiver = place.netns.run(|| Receiver::start(to, clock))??;
                Some((place, receiver))
            }
            None => None,
        };
        let to = far.as_ref().map_or(SocketAddr::new(to, DISCARD), |(_, receiver)| receiver.address);
        let socket = near.netns.run(|| sender(from, to))?;
        let socket = socket.with_context(|| format!("cannot send to {to}"))?;
        Ok(Self { socket, near, far, packet: Vec::new(), trial: 0, left: 0, refused: 0 })
    }

    fn left(&mut self) -> Result<u64> {
        let totals = totals(&mut self.near.client)?;
        Ok(totals.devices.iter().map(|d| d.stats.tx_packets).sum())
    }
}

/// Keeps a stage while it is used.
pub(super) struct Curtain(Stage);

impl Curtain {
    /// Ends its dataplanes in order.
    pub(super) fn fall(self, stop: &Stop) -> Result<()> {
        self.0.end(stop)
    }
}

impl End {
    fn connect(&self) -> Result<Client, ClientError> {
        Client::connect(Some(&self.control), &Namespace::Own)
    }
}

/// With DF: a packet is one packet all the way.
fn sender(from: Option<IpAddr>, to: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((from.unwrap_or(any), 0))?;
    report_errors(&socket, to.is_ipv6(), Some(true), 0)?;
    socket.connect(to)?;
    Ok(socket)
}

impl Path for Live {
    fn begin(&mut self, trial: u32, size: usize) -> Result<()> {
        let headers = if self.socket.peer_addr()?.is_ipv4() { 20 + 8 } else { 40 + 8 };
        let Some(payload) = size.checked_sub(headers) else { bail!("{size} bytes: less than its headers") };
        self.packet = vec![0x55; payload];
        self.trial = trial;
        if let Some((_, receiver)) = &self.far {
            receiver.arrivals.begin(trial);
        }
        self.left = self.left()?;
        Ok(())
    }

    fn offer(&mut self, n: u64, clock: &dyn Clock) -> Result<()> {
        for _ in 0..n {
            mark(&mut self.packet, self.trial, clock.now());
            // An ICMP error about an earlier packet fails a send, once.
            let sent = self.socket.send(&self.packet).or_else(|_| self.socket.send(&self.packet));
            self.refused += u64::from(sent.is_err());
        }
        Ok(())
    }

    fn received(&mut self) -> Result<u64> {
        match &self.far {
            Some((_, receiver)) => Ok(receiver.arrivals.received()),
            None => Ok(self.left()? - self.left),
        }
    }

    fn losses(&mut self) -> Result<Losses> {
        let mut losses = Losses::from([("near: not taken by the host".to_owned(), self.refused)]);
        losses.extend(self.near.losses()?);
        if let Some((place, receiver)) = &mut self.far {
            losses.extend(place.losses()?);
            let full = place.netns.run(|| receiver.lost())??;
            losses.insert("far: the receiver's socket is full".to_owned(), full);
        }
        Ok(losses)
    }

    fn latency(&mut self) -> Option<Latency> {
        self.far.as_ref()?.1.arrivals.latency()
    }
}

impl Place {
    /// Drops by reason, what found queues full, what waits, and what the host dropped on other devices.
    fn losses(&mut self) -> Result<Losses> {
        let (client, name) = (&mut self.client, self.name);
        let totals = totals(client)?;
        let Response::Queues(queues) = client.ask(&Request::Queues)? else { bail!(ClientError::Unexpected) };
        let Response::Check(check) = client.ask(&Request::Check)? else { bail!(ClientError::Unexpected) };
        let mut losses = Losses::new();
        for (reason, n) in totals.devices.iter().flat_map(|d| &d.drops) {
            *losses.entry(format!("{name}: {reason}")).or_default() += n;
        }
        // What workers could not pass on is in packets among the reasons.
        for queue in queues.iter().filter(|q| q.unit == "packets") {
            losses.insert(format!("{name}: queue full: {}", queue.name), queue.drops);
        }
        let held = check.rows.iter().map(|r| r.held.max(0).unsigned_abs()).sum();
        losses.insert(format!("{name}: waits"), held);
        let ours: Vec<&str> = totals.devices.iter().map(|d| d.name.as_str()).collect();
        let below = self.netns.run(|| host::link_drops(&ours))??;
        losses.insert(format!("{name}: other devices of the host"), below);
        Ok(losses)
    }
}

/// Notes what arrives at a socket, on a thread of its own.
struct Receiver {
    address: SocketAddr,
    arrivals: Arrivals,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    fn start(address: IpAddr, clock: Wall) -> Result<Self> {
        let socket = UdpSocket::bind((address, 0)).with_context(|| format!("cannot receive at {address}"))?;
        // Without the privilege, as much as the host allows.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, ROOM).is_err() {
            rustix::net::sockopt::set_socket_recv_buffer_size(&socket, ROOM)?;
        }
        socket.set_read_timeout(Some(LOOK))?;
        let (address, arrivals, over) = (socket.local_addr()?, Arrivals::new()?, Arc::default());
        let (noted, end) = (arrivals.clone(), Arc::clone(&over));
        let thread = std::thread::Builder::new().name("receiver".into());
        let thread = thread.spawn(move || receive(&socket, &noted, &end, clock))?;
        Ok(Self { address, arrivals, over, thread: Some(thread) })
    }

    /// Packets that found a UDP socket of this namespace full.
    fn lost(&self) -> Result<u64> {
        host::udp_overflows(if self.address.is_ipv4() { Family::V4 } else { Family::V6 })
    }
}

fn receive(socket: &UdpSocket, arrivals: &Arrivals, over: &AtomicBool, clock: Wall) {
    let mut packet = [0; 64 << 10];
    while !over.load(Ordering::Acquire) {
        if let Ok(n) = socket.recv(&mut packet) {
            arrivals.note([&packet[..n]], clock.now());
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
