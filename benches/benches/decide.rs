//! The VTI: the decision for a flow, and whole bursts of 64 through [`Transmitter`] and [`Receiver`], with bare `ring`
//! on the same padded length beside them.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use uvti_benches::{BURST, Bare, ICV, SIZES, buffers, per_packet, suites};
use uvti_core::esp::Header;
use uvti_core::packet::testing::udp4;
use uvti_core::packet::{Buf, Incoming, Inner};
use uvti_core::vti::testing::{IN, Lab, NOW, OUT, ip};
use uvti_core::vti::{Receiver, RxSlot, RxVerdict, Transmitter, TxSlot, TxVerdict, receive, transmit};
use uvti_core::xfrm::Family;

/// Names the results of AES-GCM, which the lab's SAs use.
const SUITE: usize = 0;
/// Header, IV, ICV: what ESP has besides the padded text.
const AROUND_TEXT: usize = 8 + 8 + ICV;

/// How many flows, taken at random; with many, three policies stand before the one that matches.
const FLOWS: [usize; 2] = [1, 1024];
/// Numbers of the replay window.
const WINDOW: u32 = 1024;

fn lab(flows: usize) -> Lab {
    let mut lab = Lab::vti();
    lab.states[IN].replay_window = WINDOW;
    if flows > 1 {
        for at in [OUT, IN] {
            for (priority, net) in ["10.7.0.0/16", "10.8.0.0/16", "10.9.9.0/24"].into_iter().enumerate() {
                let mut other = lab.policies[at].clone();
                other.priority = priority as u32;
                (other.sel.family, other.sel.src) = (Some(Family::V4), net.parse().unwrap());
                lab.policies.push(other);
            }
            lab.policies[at].priority = 10;
        }
    }
    lab
}

fn to_peer(size: usize) -> Vec<u8> {
    udp4("10.1.0.2", "10.2.0.5", 4000, 5000, size)
}

/// Inner packets of so many flows.
fn flows(n: usize, from: &str, to: &str, size: usize) -> Vec<Vec<u8>> {
    (0..n as u16).map(|i| udp4(from, to, 4000 + i, 5000, size)).collect()
}

/// A random walk through `packets`.
fn shuffled<'a>(packets: &'a [Vec<u8>]) -> impl FnMut() -> &'a [u8] {
    let mut dice = 0x5eed_u64;
    move || {
        dice = dice.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        &packets[(dice >> 33) as usize % packets.len()]
    }
}

/// A look-up each of policy, SA and outer route; of device, outer policy and SA.
fn decision(c: &mut Criterion) {
    let lab = lab(1);
    let tables = lab.tables();
    let flow = Inner::dissect(&to_peer(100)).unwrap().flow;
    assert_eq!(transmit::decide(&tables, &lab.devices[0], &flow).unwrap().mtu, 1446);
    c.bench_function("decide/transmit", |b| {
        b.iter(|| transmit::decide(&tables, &lab.devices[0], black_box(&flow)).is_ok());
    });
    let peer = lab.peer();
    let esp = peer.esp(1, &to_peer(100));
    assert_eq!(receive::admit(&tables, &peer.outer, esp.bytes()).unwrap().seq, 1);
    c.bench_function("decide/receive", |b| {
        b.iter(|| receive::admit(&tables, &peer.outer, black_box(esp.bytes())).is_ok());
    });
    assert!(tables.devices.tunnel(ip("198.51.100.1"), ip("198.51.100.2")).is_some());
}

/// From the inner packet to the outer one.
fn transmit_bursts(c: &mut Criterion) {
    let mut group = c.benchmark_group("transmit/burst64/aes-128-gcm");
    let bare = suites()[SUITE].bare();
    for (size, flows) in SIZES.into_iter().flat_map(|size| FLOWS.map(|flows| (size, flows))) {
        group.throughput(Throughput::Bytes(size as u64));
        let (lab, packets) = (lab(flows), self::flows(flows, "10.1.0.2", "10.2.0.5", size));
        let (tables, mut next) = (lab.tables(), shuffled(&packets));
        let mut slots: Vec<_> = buffers().into_iter().map(TxSlot::new).collect();
        let mut transmitter = Transmitter::default();
        let mut sent = 0;
        group.bench_function(BenchmarkId::new(format!("uvti/{flows} flows"), size), |b| {
            let refill = |burst: &mut [TxSlot]| {
                for slot in burst {
                    let mut buf = std::mem::take(&mut slot.buf);
                    assert_eq!(buf.fill(next()), size);
                    *slot = TxSlot::new(buf);
                }
            };
            per_packet(b, &mut slots, refill, |burst| {
                transmitter.run(&tables, &lab.devices[0], burst, 0, NOW);
                sent += burst.len() as u64;
                assert!(burst.iter().all(|s| matches!(s.verdict, TxVerdict::Send { .. })));
            });
        });
        let sa = tables.states.named(&lab.states[OUT].id()).unwrap();
        assert_eq!(sa.run.current().packets, sent);
        if flows > 1 {
            continue;
        }
        let esp = sa.crypter.overhead().esp_len(size);
        group.bench_function(BenchmarkId::new("ring", size), |b| {
            bare_bursts(b, &bare, esp - AROUND_TEXT, |bare, buf| bare.seal(buf, [0; 8], 1), |_, _| ());
        });
    }
    group.finish();
}

/// From ESP to the inner packet.
fn receive_bursts(c: &mut Criterion) {
    let mut group = c.benchmark_group("receive/burst64/aes-128-gcm");
    let bare = suites()[SUITE].bare();
    for (size, flows) in SIZES.into_iter().flat_map(|size| FLOWS.map(|flows| (size, flows))) {
        group.throughput(Throughput::Bytes(size as u64));
        let (lab, packets) = (lab(flows), self::flows(flows, "10.2.0.5", "10.1.0.2", size));
        let (tables, peer, mut next) = (lab.tables(), lab.peer(), shuffled(&packets));
        let outer = peer.outer;
        let mut slots: Vec<_> =
            buffers().into_iter().map(|buf| RxSlot::new(Incoming { buf, outer })).collect();
        let mut receiver = Receiver::default();
        let (mut seq, mut delivered) = (0, 0);
        group.bench_function(BenchmarkId::new(format!("uvti/{flows} flows"), size), |b| {
            // A window wants new numbers: each packet is sealed again.
            let reseal = |burst: &mut [RxSlot]| {
                for slot in burst {
                    let mut buf = std::mem::take(&mut slot.buf);
                    assert_eq!(buf.fill(next()), size);
                    seq += 1;
                    let header = Header { spi: peer.sa.spec.spi, seq, esn: false };
                    peer.sa.crypter.seal(&mut buf, header, seq, 4, 0).unwrap();
                    *slot = RxSlot::new(Incoming { buf, outer });
                }
            };
            per_packet(b, &mut slots, reseal, |burst| {
                receiver.run(&tables, burst, 0, NOW);
                delivered += burst.len() as u64;
                assert!(burst.iter().all(|s| matches!(s.verdict, RxVerdict::Deliver { .. })));
            });
        });
        let sa = tables.states.named(&lab.states[IN].id()).unwrap();
        assert_eq!((sa.run.current().packets, sa.run.lost()), (delivered, 0));
        if flows > 1 {
            continue;
        }
        let esp = sa.crypter.overhead().esp_len(size);
        group.bench_function(BenchmarkId::new("ring", size), |b| {
            let seal = |bare: &Bare, buf: &mut [u8]| bare.seal(buf, [0; 8], 1);
            bare_bursts(b, &bare, esp - AROUND_TEXT, |bare, buf| bare.open(buf, [0; 8], 1), seal);
        });
    }
    group.finish();
}

/// `ring` alone over the same buffers.
fn bare_bursts(
    b: &mut criterion::Bencher<'_>,
    bare: &Bare,
    text: usize,
    act: impl Fn(&Bare, &mut [u8]),
    prepare: impl Fn(&Bare, &mut [u8]),
) {
    let mut bufs = buffers();
    let ready = |burst: &mut [Buf]| {
        for buf in burst {
            buf.clear();
            buf.set_len(text + ICV);
            prepare(bare, buf.bytes_mut());
        }
    };
    per_packet(b, &mut bufs, ready, |burst| {
        burst.iter_mut().for_each(|buf| act(bare, black_box(buf.bytes_mut())));
    });
    assert_eq!(bufs.len(), BURST);
}

criterion_group!(benches, decision, transmit_bursts, receive_bursts);
criterion_main!(benches);
