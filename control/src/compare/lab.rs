//! One scenario on one engine: a namespace between a client's LAN and a peer's WAN, both of which are TAP devices in
//! our hands, so that nothing but the scenario can touch a counter.

use super::engine::Engine;
use super::packet;
use super::scenario::{Counts, Inject, Inner, Scenario, Send, Step, Udp, Via};
use super::seen;
use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};
use uvti_dataplane::host::netlink::Netlink;
use uvti_dataplane::host::netns::Netns;
use uvti_dataplane::host::packet::{PacketSocket, report_errors};
use uvti_dataplane::host::tap::Tap;

/// The gateway's interfaces. Scenario files name their far ends' addresses in `ip neigh`.
const WAN: [u8; 6] = [2, 0, 0, 0, 1, 0];
const WAN_FAR: [u8; 6] = [2, 0, 0, 0, 1, 1];
const LAN: [u8; 6] = [2, 0, 0, 0, 2, 0];
const LAN_FAR: [u8; 6] = [2, 0, 0, 0, 2, 1];

/// How long what is expected may take to be seen.
const LIMIT: Duration = Duration::from_secs(2);
/// How long a recording waits for something to come after what has been seen: longer than the kernel's timers.
const QUIET: Duration = Duration::from_millis(600);
/// How long an ICMP error about a packet of our own may take.
const ERROR: Duration = Duration::from_millis(300);
/// Pause between two looks, for what is looked for to happen.
const PAUSE: Duration = Duration::from_millis(2);

/// Runs a scenario; what was counted and seen. Without expectations (`record`) it takes longer.
pub(crate) fn observe(scenario: &Scenario, uvti: bool, record: bool, scratch: &Path) -> Result<Counts> {
    let inside = || {
        let mut lab = Lab::new(Engine::new(uvti, scratch))?;
        for step in &scenario.steps {
            lab.take(step)?;
        }
        let expected = (!record).then_some(&scenario.expected);
        lab.finish(expected)
    };
    Netns::new().context("no new network namespace")?.run(inside)?
}

struct Lab {
    engine: Engine,
    wan: Tap,
    lan: Tap,
    netlink: Netlink,
    /// Sockets that take what is delivered to the gateway.
    listening: Vec<UdpSocket>,
    /// What came out at the far ends, and errors of local sockets.
    seen: Counts,
}

impl Lab {
    fn new(mut engine: Engine) -> Result<Self> {
        let mut tap = |name: &str, mac: [u8; 6]| -> Result<Tap> {
            let tap = Tap::create(name).with_context(|| format!("cannot create the TAP device {name}"))?;
            let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
            engine.ip_later(&["link", "set", name, "address", &mac].map(str::to_owned));
            Ok(tap)
        };
        let (wan, lan) = (tap("wan", WAN)?, tap("lan", LAN)?);
        let netlink = Netlink::open()?;
        Ok(Self { engine, wan, lan, netlink, listening: Vec::new(), seen: Counts::new() })
    }

    fn take(&mut self, step: &Step) -> Result<()> {
        if let Step::Ip(words) = step {
            self.engine.ip_later(words);
            return Ok(());
        }
        // What is set for all devices holds for those to come: it need not break a run of lines, each a process.
        let general = |path: &str| path.contains("/all/") || path.contains("/default/");
        if !matches!(step, Step::Sysctl { path, .. } if general(path)) {
            self.engine.apply()?;
        }
        match step {
            Step::Ip(_) => Ok(()),
            Step::Refused(words) => match self.engine.ip_now(words) {
                Ok(()) => bail!("`ip {}` was not refused", words.join(" ")),
                Err(_) => Ok(()),
            },
            Step::Tc(words) => {
                let output =
                    std::process::Command::new("tc").args(words).output().context("cannot run tc")?;
                let said = String::from_utf8_lossy(&output.stderr);
                ensure!(output.status.success(), "tc {}: {said}", words.join(" "));
                Ok(())
            }
            Step::Sysctl { path, value } => {
                std::fs::write(format!("/proc/sys/{path}"), value)
                    .with_context(|| format!("cannot set {path}"))?;
                self.engine.refresh()
            }
            Step::Listen { address, port } => {
                let socket = UdpSocket::bind((*address, *port))
                    .with_context(|| format!("cannot listen on {address} port {port}"))?;
                socket.set_nonblocking(true)?;
                self.listening.push(socket);
                Ok(())
            }
            Step::Gone { spi } => self.gone(*spi),
            Step::Send(send) => self.send(send),
            Step::Inject(inject) => self.inject(inject),
        }
    }

    fn gone(&mut self, spi: u32) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(8);
        while self.engine.sas()?.keys().any(|name| name.starts_with(&format!("sa {spi:#x} "))) {
            ensure!(Instant::now() < end, "the SA {spi:#x} is still there");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn send(&mut self, send: &Send) -> Result<()> {
        match (&send.via, &send.what) {
            (Via::Forward, what) => {
                let bytes = packet::inner(what);
                let frame = frame(LAN, LAN_FAR, &bytes);
                for _ in 0..send.count {
                    write(&self.lan, &frame)?;
                }
            }
            (Via::Local, Inner::Udp(udp)) => return self.send_locally(send.count, udp),
            (Via::Local, Inner::Bytes(_)) => bail!("a socket sends UDP only"),
            (Via::Device { name, ethertype }, what) => {
                let index = self.netlink.link_by_name(name)?.index;
                let socket = PacketSocket::open(index, *ethertype)?;
                for _ in 0..send.count {
                    if let Err(error) = socket.send(&packet::inner(what)) {
                        self.errno(&error);
                    }
                }
            }
        }
        self.settle()
    }

    /// One by one: the error about one packet must not meet the next.
    fn send_locally(&mut self, count: u32, udp: &Udp) -> Result<()> {
        let any: SocketAddr =
            if udp.src.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        report_errors(&socket, udp.src.is_ipv6(), udp.df, udp.tos)?;
        let headers = if udp.src.is_ipv4() { 28 } else { 48 };
        for _ in 0..count {
            let before = self.errors()?;
            if let Err(error) = socket.send_to(&vec![0; usize::from(udp.len) - headers], (udp.dst, udp.dport))
            {
                self.errno(&error);
            }
            self.settle()?;
            // A packet that was dropped may have an ICMP error on its way to us.
            let dropped = self.errors()? != before;
            let end = Instant::now() + if dropped { ERROR } else { Duration::ZERO };
            loop {
                if let Some(error) = socket.take_error()? {
                    self.errno(&error);
                    break;
                }
                if Instant::now() >= end {
                    break;
                }
                std::thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// Packets that devices did not send.
    fn errors(&mut self) -> Result<u64> {
        let counts = self.look()?;
        Ok(counts.iter().filter(|(name, _)| name.ends_with(" tx_errors")).map(|(_, n)| n).sum())
    }

    fn errno(&mut self, error: &std::io::Error) {
        const NAMES: &[(Errno, &str)] = &[
            (Errno::HOSTUNREACH, "EHOSTUNREACH"),
            (Errno::NETUNREACH, "ENETUNREACH"),
            (Errno::NETDOWN, "ENETDOWN"),
            (Errno::MSGSIZE, "EMSGSIZE"),
            (Errno::INVAL, "EINVAL"),
            (Errno::PERM, "EPERM"),
            (Errno::NOBUFS, "ENOBUFS"),
            (Errno::ACCESS, "EACCES"),
        ];
        let known = NAMES.iter().find(|(errno, _)| Errno::from_io_error(error) == Some(*errno));
        let name = known.map_or_else(|| error.to_string(), |(_, name)| (*name).to_owned());
        *self.seen.entry(format!("errno {name}")).or_default() += 1;
    }

    fn inject(&mut self, inject: &Inject) -> Result<()> {
        for packet in packet::injected(inject)? {
            write(&self.wan, &frame(WAN, WAN_FAR, &packet))?;
        }
        self.settle()?;
        // What ICMP reports is heard by a thread of its own.
        self.engine.refresh()
    }

    /// Waits until nothing changes any more: two looks alike, each of them after the engine has gone round once.
    fn settle(&mut self) -> Result<()> {
        let end = Instant::now() + LIMIT;
        let mut last = None;
        loop {
            self.engine.go_round()?;
            let now = self.look()?;
            if last.as_ref() == Some(&now) || Instant::now() > end {
                return Ok(());
            }
            last = Some(now);
        }
    }

    /// Waits until what is seen is what is expected; what is seen in the end, in any case.
    fn finish(mut self, expected: Option<&Counts>) -> Result<Counts> {
        self.engine.apply()?;
        self.settle()?;
        let mut changed = Instant::now();
        let (mut last, limit) = (self.look()?, if expected.is_some() { LIMIT } else { QUIET });
        let wanted = |counts: &Counts| {
            expected.is_some_and(|e| e.iter().filter(|(name, _)| !name.starts_with("sa ")).eq(counts.iter()))
        };
        while !wanted(&last) && changed.elapsed() < limit {
            std::thread::sleep(PAUSE);
            let now = self.look()?;
            if now != last {
                (changed, last) = (Instant::now(), now);
            }
        }
        // Nothing may come after it.
        self.settle()?;
        let mut counts = self.look()?;
        counts.extend(self.engine.sas()?.into_iter().filter(|(_, n)| *n != 0));
        counts.extend(self.engine.check()?);
        Ok(counts)
    }

    fn look(&mut self) -> Result<Counts> {
        drain(&self.wan, |frame| seen::wire(frame, &mut self.seen))?;
        drain(&self.lan, |frame| seen::client(frame, &mut self.seen))?;
        for socket in &self.listening {
            while socket.recv(&mut [0; 2048]).is_ok() {
                *self.seen.entry("received udp".to_owned()).or_default() += 1;
            }
        }
        let mut counts = self.seen.clone();
        counts.extend(self.engine.counters(&mut self.netlink)?);
        Ok(counts)
    }
}

fn frame(to: [u8; 6], from: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let v6 = packet.first().is_some_and(|b| b >> 4 == 6);
    let kind: u16 = if v6 { 0x86dd } else { 0x0800 };
    [&to[..], &from, &kind.to_be_bytes(), packet].concat()
}

fn write(tap: &Tap, frame: &[u8]) -> Result<()> {
    match tap.send(frame) {
        Ok(()) => Ok(()),
        // The interface is down.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot send by {}", tap.name())),
    }
}

/// Takes every frame that the gateway has sent by a TAP device.
fn drain(tap: &Tap, mut take: impl FnMut(&[u8])) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match tap.receive(&mut buffer) {
            Ok(length) => take(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("cannot read from {}", tap.name())),
        }
    }
}
