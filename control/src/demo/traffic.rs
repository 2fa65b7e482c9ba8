//! Traffic through the tunnel, from A to B, by sockets of the host.

use super::packets::{echo, is_echo_reply};
use super::progress::Progress;
use super::stage::{A, B, Stage};
use super::stop::Stop;
use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a socket waits for the other side.
const PATIENCE: Duration = Duration::from_secs(3);
/// Payload of a datagram, bytes: fits the tunnel unfragmented.
const DATAGRAM: usize = 1400;
/// Datagrams on their way at most: fewer than the receiver's socket holds, so that none is lost there.
const WINDOW: u64 = 96;
/// Room asked for in the receiver's socket, bytes; the host may give less (net.core.rmem_max).
const ROOM: usize = 1 << 20;
/// After so long without news a datagram is taken for lost.
const STALLED: Duration = Duration::from_millis(50);

/// Round trips.
#[derive(Debug, Serialize)]
pub(super) struct Ping {
    pub(super) sent: usize,
    pub(super) median_us: f64,
}

/// A TCP stream.
#[derive(Debug, Serialize)]
pub(super) struct Tcp {
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    pub(super) gbit_per_second: f64,
}

/// A stream of UDP datagrams.
#[derive(Debug, Serialize)]
pub(super) struct Udp {
    pub(super) payload: usize,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) seconds: f64,
    pub(super) packets_per_second: f64,
}

/// ICMP echoes, one after the other; each must be answered.
pub(super) fn ping(stage: &Stage, count: usize, stop: &Stop) -> Result<Ping> {
    let open = || -> std::io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        socket.bind(&SocketAddr::from((A, 0)).into())?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(socket)
    };
    let socket = stage.a.netns.run(open)?.context("cannot open a raw socket")?;
    let id = std::process::id() as u16;
    let mut times = Vec::with_capacity(count);
    for seq in 0..count {
        let begun = Instant::now();
        socket.send_to(&echo(id, seq as u16), &SocketAddr::from((B, 0)).into()).context("cannot ping")?;
        answered(&socket, id, seq as u16, stop).with_context(|| format!("ping {} of {count}", seq + 1))?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let median = times.get(count / 2).copied().unwrap_or_default();
    Ok(Ping { sent: count, median_us: median.as_secs_f64() * 1e6 })
}

fn answered(mut socket: &Socket, id: u16, seq: u16, stop: &Stop) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut packet = [0; 256];
    while Instant::now() < deadline {
        stop.check()?;
        match socket.read(&mut packet) {
            Ok(n) if is_echo_reply(&packet[..n], id, seq) => return Ok(()),
            Ok(_) => {}
            Err(e) if waited(&e) => {}
            Err(e) => return Err(e.into()),
        }
    }
    bail!("no answer through the tunnel within {} s", PATIENCE.as_secs())
}

/// One TCP stream for `time`.
pub(super) fn tcp(stage: &Stage, time: Duration, stop: &Stop, progress: &Progress) -> Result<Tcp> {
    progress.begin("TCP through the tunnel");
    let listener = stage.b.netns.run(|| TcpListener::bind((B, 0)))?.context("cannot listen")?;
    let address = listener.local_addr()?;
    let connect = || TcpStream::connect_timeout(&address, PATIENCE);
    let client = stage.a.netns.run(connect)?.context("cannot connect through the tunnel")?;
    let (server, _) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
    }
    let begun = Instant::now();
    let bytes = thread::scope(|scope| {
        let received = scope.spawn(move || swallow(server));
        write_for(&client, time, stop, progress)?;
        // Ends it in order, so that nothing of it is under way afterwards.
        client.shutdown(Shutdown::Write)?;
        swallow(client).context("the TCP stream did not end")?;
        received.join().map_err(|_| anyhow!("the receiver panicked"))?.context("the TCP stream stalled")
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Tcp { bytes, seconds, gbit_per_second: bytes as f64 * 8.0 / seconds / 1e9 })
}

fn write_for(mut to: &TcpStream, time: Duration, stop: &Stop, progress: &Progress) -> Result<()> {
    let block = vec![0x55; 128 << 10];
    let begun = Instant::now();
    while begun.elapsed() < time {
        stop.check()?;
        to.write_all(&block).context("the TCP stream stalled")?;
        progress.at(begun.elapsed(), time);
    }
    Ok(())
}

/// Reads to the end.
fn swallow(mut from: TcpStream) -> std::io::Result<u64> {
    let mut block = vec![0; 256 << 10];
    let mut bytes = 0;
    loop {
        match from.read(&mut block) {
            Ok(0) => return Ok(bytes),
            Ok(n) => bytes += n as u64,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// UDP datagrams for `time`, as fast as they arrive.
pub(super) fn udp(stage: &Stage, time: Duration, stop: &Stop, progress: &Progress) -> Result<Udp> {
    progress.begin("UDP through the tunnel");
    let to = stage.b.netns.run(|| UdpSocket::bind((B, 0)))??;
    let from = stage.a.netns.run(|| UdpSocket::bind((A, 0)))??;
    from.connect(to.local_addr()?)?;
    from.set_write_timeout(Some(PATIENCE))?;
    to.set_read_timeout(Some(Duration::from_millis(20)))?;
    SockRef::from(&to).set_recv_buffer_size(ROOM)?;
    let (received, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    let sent = thread::scope(|scope| {
        scope.spawn(|| count(&to, &received, &over));
        let sent = send_for(&from, time, &received, stop, progress);
        over.store(true, Ordering::Release);
        sent
    })?;
    let seconds = time.as_secs_f64().min(begun.elapsed().as_secs_f64());
    let received = received.into_inner();
    let packets_per_second = received as f64 / seconds;
    Ok(Udp { payload: DATAGRAM, sent, received, seconds, packets_per_second })
}

/// Counts what arrives until it is over and nothing arrives any more.
fn count(socket: &UdpSocket, received: &AtomicU64, over: &AtomicBool) {
    let mut datagram = [0; DATAGRAM];
    loop {
        match socket.recv(&mut datagram) {
            Ok(_) => _ = received.fetch_add(1, Ordering::Relaxed),
            Err(_) if over.load(Ordering::Acquire) => return,
            Err(_) => {}
        }
    }
}

fn send_for(
    socket: &UdpSocket,
    time: Duration,
    received: &AtomicU64,
    stop: &Stop,
    progress: &Progress,
) -> Result<u64> {
    let begun = Instant::now();
    let (mut sent, mut lost, mut seen, mut news) = (0, 0, 0, begun);
    while begun.elapsed() < time {
        stop.check()?;
        let now = received.load(Ordering::Relaxed);
        if now != seen {
            (seen, news) = (now, Instant::now());
        } else if news.elapsed() > STALLED {
            lost = sent - seen;
        }
        if sent - seen - lost.min(sent - seen) >= WINDOW {
            thread::sleep(Duration::from_micros(20));
            continue;
        }
        for _ in 0..16 {
            socket.send(&[0x55; DATAGRAM]).context("cannot send a datagram")?;
            sent += 1;
        }
        progress.at(begun.elapsed(), time);
    }
    Ok(sent)
}

fn waited(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
