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

/// Names the results of AES-GCM, which the lab's SAs use.
const SUITE: usize = 0;
/// Header, IV, ICV: what ESP has besides the padded text.
const AROUND_TEXT: usize = 8 + 8 + ICV;

fn lab() -> Lab {
    let mut lab = Lab::vti();
    lab.states[IN].replay_window = 64;
    lab
}

fn to_peer(size: usize) -> Vec<u8> {
    udp4("10.1.0.2", "10.2.0.5", 4000, 5000, size)
}

/// A look-up each of policy, SA and outer route; of device, outer policy and SA.
fn decision(c: &mut Criterion) {
    let lab = lab();
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
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let (lab, inner) = (lab(), to_peer(size));
        let tables = lab.tables();
        let mut slots: Vec<_> = buffers().into_iter().map(TxSlot::new).collect();
        let mut transmitter = Transmitter::default();
        let mut sent = 0;
        group.bench_function(BenchmarkId::new("uvti", size), |b| {
            let refill = |burst: &mut [TxSlot]| {
                for slot in burst {
                    let mut buf = std::mem::take(&mut slot.buf);
                    assert_eq!(buf.fill(&inner), size);
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
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let (lab, inner) = (lab(), udp4("10.2.0.5", "10.1.0.2", 5000, 4000, size));
        let (tables, peer) = (lab.tables(), lab.peer());
        let outer = peer.outer;
        let mut slots: Vec<_> =
            buffers().into_iter().map(|buf| RxSlot::new(Incoming { buf, outer })).collect();
        let mut receiver = Receiver::default();
        let (mut seq, mut delivered) = (0, 0);
        group.bench_function(BenchmarkId::new("uvti", size), |b| {
            // A window wants new numbers: each packet is sealed again.
            let reseal = |burst: &mut [RxSlot]| {
                for slot in burst {
                    let mut buf = std::mem::take(&mut slot.buf);
                    assert_eq!(buf.fill(&inner), size);
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
