//! Ping, UDP and TCP between two namespaces. Each has a deadline, and each paces itself by what has arrived.

use crate::frame::checksum;
use crate::netns::Namespace;
use crate::sys;
use anyhow::{Context, Result, bail, ensure};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One end of the traffic.
#[derive(Clone, Debug)]
pub struct End<'a> {
    /// Where its sockets live.
    pub namespace: &'a Namespace,
    /// Its address inside the tunnel.
    pub address: IpAddr,
}

/// How long any of them may take.
const LIMIT: Duration = Duration::from_secs(30);
/// UDP datagrams that may be under way: fewer than a TUN queues (500), and than a socket's buffer holds when
/// each is counted as a page or two.
const UNDER_WAY: u64 = 32;
/// Bytes a receiving socket asks for.
const BUFFER: usize = 4 << 20;

/// Sends `count` ICMP echo requests one after the other, and wants each answered.
pub fn ping(from: &End<'_>, to: &End<'_>, count: u16) -> Result<()> {
    let v4 = to.address.is_ipv4();
    let (domain, protocol) =
        if v4 { (Domain::IPV4, Protocol::ICMPV4) } else { (Domain::IPV6, Protocol::ICMPV6) };
    let socket = from.namespace.run(|| Ok(Socket::new(domain, Type::RAW, Some(protocol))?))?;
    socket.bind(&SocketAddr::new(from.address, 0).into())?;
    socket.connect(&SocketAddr::new(to.address, 0).into())?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let identity = std::process::id() as u16;
    let end = Instant::now() + LIMIT;
    for sequence in 1..=count {
        let request = echo(if v4 { 8 } else { 128 }, identity, sequence, v4);
        socket.send(&request).context("cannot send an echo request")?;
        let answer = echo(if v4 { 0 } else { 129 }, identity, sequence, v4);
        // The kernel has filled an ICMPv6 checksum in: all but the checksum is compared.
        let same = |got: &[u8]| got.get(..2) == Some(&answer[..2]) && got.get(4..) == Some(&answer[4..]);
        loop {
            let mut buffer = [0; 256];
            let length = match (&socket).read(&mut buffer) {
                Ok(length) => length,
                Err(error) if is_timeout(&error) => 0,
                Err(error) => return Err(error).context("ping"),
            };
            let header = if v4 { 20 } else { 0 };
            if buffer[..length].get(header..).is_some_and(same) {
                break;
            }
            ensure!(Instant::now() < end, "no answer to ping {sequence} of {count} to {}", to.address);
        }
    }
    Ok(())
}

fn echo(kind: u8, identity: u16, sequence: u16, v4: bool) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(identity.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend((0..56).map(|i: u8| i ^ sequence as u8));
    if v4 {
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
    }
    message
}

/// What a run of UDP datagrams looks like.
#[derive(Clone, Copy, Debug)]
pub struct Datagrams {
    /// How many.
    pub count: u64,
    /// Bytes of each, UDP header excluded; at least 8.
    pub size: usize,
    /// TOS (IPv4 only).
    pub tos: u8,
    /// Don't fragment (IPv4 only).
    pub df: bool,
    /// Destination port; each run that is under way at one time needs its own.
    pub port: u16,
}

/// Sends numbered datagrams; wants each to arrive once, whole. The order is whatever it is.
pub fn udp(from: &End<'_>, to: &End<'_>, run: &Datagrams) -> Result<()> {
    let receiver = to.namespace.run(|| Ok(UdpSocket::bind(SocketAddr::new(to.address, run.port))?))?;
    receiver.set_read_timeout(Some(Duration::from_millis(200)))?;
    // Only root gets it; without it the datagrams under way fit as well.
    let _ = set_socket_recv_buffer_size_force(&receiver, BUFFER);
    let sender = from.namespace.run(|| Ok(UdpSocket::bind(SocketAddr::new(from.address, 0))?))?;
    if from.address.is_ipv4() {
        let socket = Socket::from(sender.try_clone()?);
        socket.set_tos_v4(u32::from(run.tos))?;
        sys::set_dont_fragment(&socket, run.df)?;
    }
    sender.connect(SocketAddr::new(to.address, run.port))?;
    let arrived = AtomicU64::new(0);
    let end = Instant::now() + LIMIT;
    std::thread::scope(|scope| {
        let receiving = scope.spawn(|| receive(&receiver, run, &arrived, end));
        let sent = send(&sender, run, &arrived, end);
        receiving.join().expect("receiving does not panic").and(sent)
    })
    .with_context(|| format!("udp {} -> {}", from.address, to.address))
}

fn send(socket: &UdpSocket, run: &Datagrams, arrived: &AtomicU64, end: Instant) -> Result<()> {
    let mut datagram = vec![0x5a; run.size];
    for number in 0..run.count {
        while number >= arrived.load(Ordering::Acquire) + UNDER_WAY {
            ensure!(
                Instant::now() < end,
                "stuck: {} of {number} sent datagrams arrived",
                arrived.load(Ordering::Acquire)
            );
            std::thread::yield_now();
        }
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        socket.send(&datagram).with_context(|| format!("cannot send datagram {number}"))?;
    }
    Ok(())
}

fn receive(socket: &UdpSocket, run: &Datagrams, arrived: &AtomicU64, end: Instant) -> Result<()> {
    let mut seen = vec![false; run.count as usize];
    let mut buffer = vec![0; run.size + 1];
    while arrived.load(Ordering::Acquire) < run.count {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                ensure!(length == run.size, "a datagram of {length} bytes instead of {}", run.size);
                let (head, body) =
                    buffer[..length].split_first_chunk::<8>().context("a datagram without number")?;
                let number = u64::from_be_bytes(*head);
                ensure!(body.iter().all(|&byte| byte == 0x5a), "datagram {number} was changed on its way");
                let slot =
                    seen.get_mut(number as usize).with_context(|| format!("nobody sent number {number}"))?;
                ensure!(!*slot, "datagram {number} arrived twice");
                *slot = true;
                arrived.fetch_add(1, Ordering::Release);
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error.into()),
        }
        if Instant::now() > end {
            let missing = seen.iter().filter(|seen| !**seen).count();
            bail!("{missing} of {} datagrams did not arrive", run.count);
        }
    }
    Ok(())
}

/// Transfers `bytes` of a pattern over one TCP connection, and wants each byte to arrive as it was sent.
pub fn tcp(from: &End<'_>, to: &End<'_>, port: u16, bytes: usize) -> Result<()> {
    let listener = to.namespace.run(|| Ok(TcpListener::bind(SocketAddr::new(to.address, port))?))?;
    let source = Socket::from(std::os::fd::OwnedFd::from(from.namespace.run(|| {
        let socket = Socket::new(Domain::for_address(SocketAddr::new(from.address, 0)), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from.address, 0).into())?;
        Ok(socket)
    })?));
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || -> Result<()> {
            source.connect_timeout(&SocketAddr::new(to.address, port).into(), LIMIT)?;
            let mut stream = TcpStream::from(source);
            stream.set_write_timeout(Some(LIMIT))?;
            stream.write_all(&pattern(bytes))?;
            stream.shutdown(std::net::Shutdown::Write)?;
            // Only when the other side has closed as well are all its acknowledgements in.
            stream.set_read_timeout(Some(LIMIT))?;
            ensure!(stream.read(&mut [0])? == 0, "the receiver said something");
            Ok(())
        });
        let received = take(&listener, bytes);
        sending.join().expect("sending does not panic").and(received)
    })
    .with_context(|| format!("tcp {} -> {}", from.address, to.address))
}

fn take(listener: &TcpListener, bytes: usize) -> Result<()> {
    listener.set_nonblocking(true)?;
    let accept = || match listener.accept() {
        Ok((stream, _)) => Some(Ok(stream)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => Some(Err(error)),
    };
    let mut stream = crate::wait::until(LIMIT, accept).context("nobody connected")??;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received).with_context(|| format!("after {} bytes", received.len()))?;
    ensure!(received.len() == bytes, "{} of {bytes} bytes arrived", received.len());
    ensure!(received == pattern(bytes), "the bytes were changed on their way");
    Ok(())
}

/// Bytes whose every place is recognisable: a swapped or repeated segment shows.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
