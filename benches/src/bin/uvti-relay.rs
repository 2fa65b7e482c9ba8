//! A tunnel without cryptography: a TUN device and a UDP socket, one packet a system call each way; or, with
//! `--offload`, over uvti's own devices and sockets with offload.
//!
//! What it carries is what a machine allows to any userspace tunnel of this kind; `benches/end-to-end` holds uvti
//! against it. It is no product: whoever can send to its port can inject packets.

use anyhow::Context;
use clap::Parser;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use socket2::SockRef;
use std::io::ErrorKind;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::thread;
use uvti_core::packet::{Buf, OuterHeader, PerPacket, UdpPorts};
use uvti_dataplane::io::tun::{OffloadQueue, OffloadTun, Offloads, Options, SimpleTun};
use uvti_dataplane::io::underlay::{Outgoing, Received, SendPorts, SocketUnderlay, UdpPort};
use uvti_dataplane::io::{Pool, TunQueue, Underlay};

/// Bytes of receive buffer asked for, so that a burst of the sender is not lost while we write.
const SOCKET_BUFFER: usize = 4 << 20;
/// Packets a burst, and buffers of each direction.
const BURST: usize = 64;
const BUFFERS: usize = 512;

/// Relays between a TUN device and a UDP socket, without cryptography, until SIGTERM.
#[derive(Debug, Parser)]
struct Args {
    /// The TUN device to create.
    #[arg(long, value_name = "NAME")]
    tun: String,
    /// Our end.
    #[arg(long, value_name = "A:PORT")]
    local: SocketAddrV4,
    /// The other end; packets of others are not received.
    #[arg(long, value_name = "A:PORT")]
    remote: SocketAddrV4,
    /// Largest inner packet, bytes.
    #[arg(long, default_value_t = 1400, value_parser = clap::value_parser!(u32).range(68..=65_507))]
    mtu: u32,
    /// Super-packets on the device, many packets a message on the socket.
    #[arg(long)]
    offload: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    match args.offload {
        true => start_offload(&args)?,
        false => start(&args)?,
    }
    println!("ready");
    signals.forever().next();
    Ok(())
}

fn start(args: &Args) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(args.local).with_context(|| format!("cannot bind {}", args.local))?;
    socket.connect(args.remote).with_context(|| format!("no way to {}", args.remote))?;
    SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER)?;
    // Not persistent: however we end, the device goes with us.
    let options = Options { mtu: args.mtu, persistent: false, ..Options::default() };
    let tun = Arc::new(SimpleTun::create(&args.tun, options)?);
    let socket = Arc::new(socket);

    spawn("out", {
        let (tun, socket) = (tun.clone(), socket.clone());
        move || out(&tun, &socket)
    })?;
    spawn("in", move || into(&tun, &socket))
}

fn start_offload(args: &Args) -> anyhow::Result<()> {
    let options = Options { mtu: args.mtu, persistent: false, ..Options::default() };
    let tun = OffloadTun::create(&args.tun, options, Offloads::ALL)?;
    let ports = SendPorts::default();
    let mut receiver = SocketUnderlay::open(false)?.segmented(ports.clone());
    receiver
        .bind_udp(UdpPort::v4(args.local.port()))
        .with_context(|| format!("cannot bind {}", args.local))?;
    let sender = SocketUnderlay::open(false)?.segmented(ports);
    let ports = UdpPorts { src: args.local.port(), dst: args.remote.port() };
    let ends = ((*args.local.ip()).into(), (*args.remote.ip()).into());
    let outer = OuterHeader::new(ends.0, ends.1, Some(ports)).ok().context("no outer header")?;
    let queue = OffloadQueue::new(tun.clone());
    spawn("out", move || out_bursts(queue, sender, outer))?;
    spawn("in", move || into_bursts(receiver, OffloadQueue::new(tun)))
}

/// A thread whose end is the end of the relay: half a tunnel measures nothing.
fn spawn(name: &str, work: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> anyhow::Result<()> {
    let name = name.to_owned();
    thread::Builder::new().name(name.clone()).spawn(move || {
        if let Err(error) = work() {
            eprintln!("uvti-relay: {name}: {error:#}");
        }
        std::process::exit(1);
    })?;
    Ok(())
}

/// From the device to the socket: one read and one write a packet, and a poll when the device is empty.
fn out(tun: &SimpleTun, socket: &UdpSocket) -> anyhow::Result<()> {
    let mut pool = Pool::new(1);
    let mut read = Vec::with_capacity(1);
    loop {
        tun.receive(&mut read, &mut pool, 1).context("reading the device")?;
        let Some(packet) = read.pop() else {
            wait(tun.descriptor())?;
            continue;
        };
        // A full queue, or a peer that is not up yet, loses the packet as any network does.
        let _ = socket.send(packet.buf.bytes());
        pool.put(packet.buf);
    }
}

/// From the socket to the device: one blocking read and one write a packet.
fn into(tun: &SimpleTun, socket: &UdpSocket) -> anyhow::Result<()> {
    let mut packet = [Buf::with_capacity(uvti_dataplane::io::PACKET_MAX)];
    let mut outcomes = Vec::with_capacity(1);
    loop {
        packet[0].clear();
        match socket.recv(packet[0].space_mut()) {
            Ok(length) => packet[0].set_len(length),
            // ECONNREFUSED: the peer is not up yet.
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionRefused) => continue,
            Err(error) => return Err(error).context("reading the socket"),
        }
        outcomes.clear();
        tun.send(&packet, &mut outcomes);
    }
}

/// From the device to the socket, in bursts.
fn out_bursts(mut queue: OffloadQueue, mut socket: SocketUnderlay, outer: OuterHeader) -> anyhow::Result<()> {
    let mut pool = Pool::new(BUFFERS);
    let (mut read, mut packets, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        if queue.recv_burst(&mut read, &mut pool, BURST).context("reading the device")?.received == 0 {
            wait(queue.fd())?;
        }
        for mut item in read.drain(..) {
            if outer.push(&mut item.buf, PerPacket { df: true, ..PerPacket::default() }).is_ok() {
                packets.push(Outgoing { buf: item.buf, mark: 0, oif: 0 });
            }
        }
        outcomes.clear();
        socket.send_burst(&packets, &mut outcomes);
        packets.drain(..).for_each(|packet| pool.put(packet.buf));
    }
}

/// From the socket to the device, in bursts.
fn into_bursts(mut socket: SocketUnderlay, mut queue: OffloadQueue) -> anyhow::Result<()> {
    let mut pool = Pool::new(BUFFERS);
    let (mut read, mut packets, mut outcomes) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        if socket.recv_burst(&mut read, &mut pool, BURST).context("reading the socket")?.received == 0 {
            wait(socket.fds()[0])?;
        }
        packets.extend(read.drain(..).filter_map(|item| match item {
            Received::Packet(packet) => Some(packet.buf),
            Received::Damaged { .. } | Received::PlainIpip(_) => None,
        }));
        outcomes.clear();
        queue.send_burst(&mut packets, &mut outcomes);
        packets.drain(..).for_each(|packet| pool.put(packet));
    }
}

fn wait(fd: BorrowedFd<'_>) -> anyhow::Result<()> {
    match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("waiting for packets"),
    }
}
