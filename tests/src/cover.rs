//! Every algorithm between a kernel VTI and uvti: bare and in UDP, over IPv4 and IPv6, with and without extended
//! sequence numbers.
//!
//! The kernel opens what uvti sealed and the other way round. Besides, each packet of either is opened by uvti's ESP
//! and sealed again with its own IV, which must give the same bytes. With `UVTI_RECORD` the first packet of the kernel
//! is told, as data for the core's tests.

use crate::algorithms::{Algorithm, algorithms, hex, words};
use crate::capture::{EspPacket, Frame};
use crate::gateway::{Counters, Engine};
use crate::guest::{Results, Setup};
use crate::outcome::Outcome;
use crate::sys::Way;
use crate::traffic::{self, Datagrams};
use crate::tunnel::{ESN_START, Plan, SPI_LEFT, SPI_RIGHT, Tunnel};
use anyhow::{Context, Result, anyhow, ensure};
use uvti_core::esp::{Crypter, Header};
use uvti_core::packet::Buf;
use uvti_core::xfrm::{Algorithms, Key, Spi};

/// How ESP travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carriage {
    Raw,
    Udp,
    Raw6,
    Udp6,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    algorithm: Algorithm,
    carriage: Carriage,
    esn: bool,
}

/// Each AEAD, cipher and MAC meets each carriage, both outer families, and both kinds of sequence numbers.
pub fn pairwise(setup: &Setup, results: &mut Results<'_>) -> Result<()> {
    let some = |(cipher, mac): (usize, usize)| (cipher + mac) % 3 == 0;
    let mut cases = Vec::new();
    for (at, algorithm) in algorithms(some).into_iter().enumerate() {
        let esn = at % 2 == 0;
        // In turn in UDP over IPv4 and bare over IPv6, and the other way round; with each kind of numbers.
        let [one, other] = match at / 2 % 2 {
            0 => [Carriage::Udp, Carriage::Raw6],
            _ => [Carriage::Raw, Carriage::Udp6],
        };
        cases.push(Case { algorithm, carriage: one, esn });
        cases.push(Case { algorithm, carriage: other, esn: !esn });
    }
    run(setup, results, cases)
}

/// All with all.
pub fn product(setup: &Setup, results: &mut Results<'_>) -> Result<()> {
    let mut cases = Vec::new();
    for algorithm in algorithms(|_| true) {
        for carriage in [Carriage::Raw, Carriage::Udp, Carriage::Raw6, Carriage::Udp6] {
            cases.extend([false, true].map(|esn| Case { algorithm, carriage, esn }));
        }
    }
    run(setup, results, cases)
}

/// One tunnel for each way of carriage and kind of numbers, whose SAs are replaced from case to case.
fn run(setup: &Setup, results: &mut Results<'_>, mut cases: Vec<Case>) -> Result<()> {
    let left = Engine::Uvti { program: setup.uvti.clone(), workers: 1 };
    cases.retain(|case| setup.wants(&case.name()));
    cases.sort_by_key(|case| (case.carriage as u8, case.esn));
    for group in cases.chunk_by(|a, b| (a.carriage, a.esn) == (b.carriage, b.esn)) {
        let name = format!("counters-{:?}{}", group[0].carriage, if group[0].esn { "-esn" } else { "" });
        let mut tunnel = None;
        for case in group {
            let one = |failures: &mut Vec<String>| case.run(&mut tunnel, &left, failures);
            results.push(&Outcome::of(&case.name(), one))?;
        }
        results.push(&Outcome::of(&name, |failures| {
            let tunnel = tunnel.context("there was no tunnel")?;
            let (left, right) = tunnel.compare_links(failures)?;
            tunnel.left.stop().context("left")?;
            tunnel.right.stop().context("right")?;
            Ok(format!("{} packets sent, {} received", sent(&left), sent(&right)))
        }))?;
    }
    Ok(())
}

fn sent(link: &Counters) -> u64 {
    link.get("tx_packets").copied().unwrap_or(0)
}

impl Case {
    fn name(&self) -> String {
        let numbers = if self.esn { "-esn" } else { "" };
        format!("{}-{:?}{numbers}", self.algorithm.name(), self.carriage)
    }

    fn run(&self, place: &mut Option<Tunnel>, left: &Engine, failures: &mut Vec<String>) -> Result<String> {
        let [left_algs, right_algs] = [0x01, 0x81].map(|first| self.algorithm.keyed(first));
        let plan = Plan {
            natt: matches!(self.carriage, Carriage::Udp | Carriage::Udp6),
            outer6: matches!(self.carriage, Carriage::Raw6 | Carriage::Udp6),
            esn: self.esn,
            ..Plan::bare([words(&left_algs), words(&right_algs)])
        };
        let tunnel = match place {
            Some(tunnel) => {
                tunnel.renew(&plan)?;
                tunnel
            }
            None => place.insert(Tunnel::build(&plan, left)?),
        };
        exchange(tunnel)?;
        let frames = tunnel.capture.drain()?;
        let (left, right) = (tunnel.left.sas()?, tunnel.right.sas()?);
        let mut record = String::new();
        let mut seen = Vec::new();
        for (side, way, spi, algs) in
            [("left", Way::In, SPI_LEFT, left_algs), ("right", Way::Out, SPI_RIGHT, right_algs)]
        {
            let (here, there) = (left.get(&spi), right.get(&spi));
            let packets = here.map_or(0, |count| count.packets);
            if here != there || packets == 0 {
                failures.push(format!("{side}: the SA counted {here:?} at the left, {there:?} at the right"));
            }
            let crypter = Crypter::new(&algs).map_err(|refusal| anyhow!("{refusal}"))?;
            match (Stream { case: self, spi, crypter }.check(&frames, way, packets)) {
                Ok(last) if side == "right" && std::env::var("UVTI_RECORD").is_ok() => {
                    record = last.record(self, spi, &algs);
                }
                Ok(_) => {}
                Err(wrong) => failures.push(format!("{side} on the wire: {wrong:#}")),
            }
            seen.push(packets);
        }
        Ok(format!("{seen:?} packets {record}"))
    }
}

/// Few packets: 3 echo requests, 20 small datagrams and 4 large ones each way. The numbers pass 2³² early on.
fn exchange(tunnel: &Tunnel) -> Result<()> {
    let (left, right) = (tunnel.left_end(), tunnel.right_end());
    for (from, to, port) in [(&left, &right, 5000), (&right, &left, 6000)] {
        traffic::ping(from, to, 3)?;
        traffic::udp(from, to, &Datagrams { count: 20, size: 101, tos: 0, df: true, port })?;
        traffic::udp(from, to, &Datagrams { count: 4, size: 1200, tos: 0, df: false, port: port + 1 })?;
    }
    Ok(())
}

/// What one side sends.
struct Stream<'a> {
    case: &'a Case,
    spi: u32,
    crypter: Crypter,
}

/// A packet that was captured, and opened.
struct Opened {
    seq: u64,
    next_header: u8,
    inner: Vec<u8>,
    esp: Vec<u8>,
}

impl Stream<'_> {
    /// Opens all packets and seals them again; answers the smallest one of the last few, which with ESN are beyond 2³².
    fn check(&self, frames: &[Frame], way: Way, count: u64) -> Result<Opened> {
        let mut seq = if self.case.esn { ESN_START } else { 0 };
        let mut opened: Vec<Opened> = Vec::new();
        for esp in frames.iter().filter(|frame| frame.way == way).filter_map(|frame| self.esp(frame)) {
            seq += 1;
            opened.push(self.open(esp, seq).with_context(|| format!("packet {seq}"))?);
        }
        ensure!(opened.len() as u64 == count, "{} ESP packets, but {count} counted", opened.len());
        let last = opened.into_iter().rev().take(20).min_by_key(|packet| packet.esp.len());
        last.context("no packets")
    }

    /// From the SPI on, if it is one of this stream's.
    fn esp(&self, frame: &Frame) -> Option<Vec<u8>> {
        let esp = match self.case.carriage {
            Carriage::Raw6 | Carriage::Udp6 if frame.kind != 0x86dd => return None,
            // An IPv6 header without extensions, in front of ESP or UDP.
            Carriage::Raw6 => (*frame.packet.get(6)? == 50).then(|| frame.packet.get(40..))??.to_vec(),
            Carriage::Udp6 => (*frame.packet.get(6)? == 17).then(|| frame.packet.get(48..))??.to_vec(),
            Carriage::Raw | Carriage::Udp => EspPacket::parse(frame)?.esp,
        };
        esp.starts_with(&self.spi.to_be_bytes()).then_some(esp)
    }

    fn open(&self, esp: Vec<u8>, seq: u64) -> Result<Opened> {
        let on_wire = esp.get(4..8).context("too short")?;
        ensure!(on_wire == (seq as u32).to_be_bytes(), "sequence number {on_wire:02x?}");
        let esn = self.case.esn;
        let mut buf = Buf::from_packet(&esp);
        let next = self.crypter.open(&mut buf, esn.then_some((seq >> 32) as u32))?;
        let inner = buf.bytes().to_vec();
        let iv = esp.get(8..8 + self.crypter.overhead().iv).context("no IV")?;
        self.crypter.seal_again(&mut buf, Header { spi: Spi(self.spi), seq, esn }, iv, next.0)?;
        ensure!(buf.bytes() == esp, "sealed again it is {:02x?}, not {esp:02x?}", buf.bytes());
        Ok(Opened { seq, next_header: next.0, inner, esp })
    }
}

impl Opened {
    /// One line of JSON, as in `dataplane/core/src/esp/vectors`.
    fn record(&self, case: &Case, spi: u32, algs: &Algorithms) -> String {
        let part = |name: &str, key: &Key, bits: Option<u32>| serde_json::json!({ "name": name, "key": hex(key.bytes()), "bits": bits });
        serde_json::json!({
            "id": case.name(),
            "aead": algs.aead.as_ref().map(|a| part(&a.name, &a.key, Some(a.icv_bits))),
            "enc": algs.enc.as_ref().map(|a| part(&a.name, &a.key, None)),
            "auth": algs.auth.as_ref().map(|a| part(&a.name, &a.key, a.trunc_bits)),
            "spi": spi,
            "seq": self.seq,
            "esn": case.esn,
            "next_header": self.next_header,
            "inner": hex(&self.inner),
            "esp": hex(&self.esp),
        })
        .to_string()
    }
}
