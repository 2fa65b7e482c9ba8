//! ESP alone: [`Crypter::seal`] and [`Crypter::open`] beside bare `ring` on exactly the same padded length.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use uvti_benches::{BURST, ICV, SIZES, Suite, buffers, per_packet, suites};
use uvti_core::esp::{Crypter, Header, NextHeader};
use uvti_core::packet::Buf;
use uvti_core::vti::testing::{SPI_OUT, aes_cbc_hmac_sha1, aes_gcm};
use uvti_core::xfrm::Algorithms;

const IPV4: u8 = 4;
/// SPI and sequence number, explicit IV.
const FRONT: usize = 16;

fn header(seq: u64) -> Header {
    Header { spi: SPI_OUT, seq, esn: false }
}

/// AES-GCM whose ICV is cut to 8 bytes.
fn aes_gcm_8() -> Algorithms {
    let mut algorithms = aes_gcm();
    algorithms.aead.as_mut().expect("an AEAD").icv_bits = 64;
    algorithms
}

/// The first 8 bytes of a packet.
fn aad(seq: u64) -> [u8; 8] {
    (u64::from(SPI_OUT.0) << 32 | u64::from(seq as u32)).to_be_bytes()
}

/// An ESP packet of the suite, which `ring` alone makes to the byte as well.
fn sealed(suite: &Suite, crypter: &Crypter, inner: &[u8]) -> Vec<u8> {
    let mut buf = Buf::from_packet(inner);
    crypter.seal(&mut buf, header(7), 7, IPV4, 0).unwrap();
    let mut opened = Buf::from_packet(buf.bytes());
    assert_eq!(crypter.open(&mut opened, None), Ok(NextHeader::IPV4));
    assert_eq!(opened.bytes(), inner);

    let mut bare = buf.bytes()[FRONT..].to_vec();
    suite.bare().open(&mut bare, aad(7), 7);
    assert_eq!(&bare[..inner.len()], inner);
    suite.bare().seal(&mut bare, aad(7), 7);
    assert_eq!(bare, &buf.bytes()[FRONT..]);
    buf.bytes().to_vec()
}

fn encapsulate(c: &mut Criterion) {
    for suite in suites() {
        let mut group = c.benchmark_group(format!("esp/encapsulate/{}", suite.name));
        let (crypter, bare) = (Crypter::new(&suite.algorithms).unwrap(), suite.bare());
        for size in SIZES {
            let esp = sealed(&suite, &crypter, &vec![0x45; size]);
            group.throughput(Throughput::Bytes(size as u64));

            let (mut bufs, mut seq) = (buffers(), 0u64);
            group.bench_function(BenchmarkId::new("uvti", size), |b| {
                b.iter(|| {
                    seq += 1;
                    let buf = &mut bufs[seq as usize % BURST];
                    buf.clear();
                    buf.set_len(size);
                    black_box(crypter.seal(buf, header(seq), seq, IPV4, 0)).unwrap();
                });
            });
            assert_eq!(bufs[seq as usize % BURST].len(), esp.len());

            let (mut bufs, mut seq) = (buffers(), 0u64);
            let padded = esp.len() - FRONT - ICV;
            group.bench_function(BenchmarkId::new("ring", size), |b| {
                b.iter(|| {
                    seq += 1;
                    let buf = &mut bufs[seq as usize % BURST];
                    buf.clear();
                    buf.set_len(padded + ICV);
                    bare.seal(black_box(buf.bytes_mut()), aad(seq), seq);
                });
            });
        }
        group.finish();
    }
}

fn decapsulate(c: &mut Criterion) {
    for suite in suites() {
        let mut group = c.benchmark_group(format!("esp/decapsulate/{}", suite.name));
        let (crypter, bare) = (Crypter::new(&suite.algorithms).unwrap(), suite.bare());
        for size in SIZES {
            let esp = sealed(&suite, &crypter, &vec![0x45; size]);
            group.throughput(Throughput::Bytes(size as u64));
            let refill = |from: &'static [u8]| {
                move |burst: &mut [Buf]| burst.iter_mut().for_each(|b| assert_eq!(b.fill(from), from.len()))
            };
            let whole: &'static [u8] = esp.leak();
            group.bench_function(BenchmarkId::new("uvti", size), |b| {
                per_packet(b, &mut buffers(), refill(whole), |burst| {
                    for buf in burst {
                        assert_eq!(black_box(crypter.open(buf, None)), Ok(NextHeader::IPV4));
                    }
                });
            });
            group.bench_function(BenchmarkId::new("ring", size), |b| {
                per_packet(b, &mut buffers(), refill(&whole[FRONT..]), |burst| {
                    burst.iter_mut().for_each(|buf| bare.open(black_box(buf.bytes_mut()), aad(7), 7));
                });
            });
        }
        group.finish();
    }
}

/// Suites that `ring` has not: ours alone.
fn without_ring(c: &mut Criterion) {
    for (name, algorithms) in [("aes-128-gcm-8", aes_gcm_8()), ("aes-128-cbc-hmac-sha1", aes_cbc_hmac_sha1())]
    {
        let crypter = Crypter::new(&algorithms).unwrap();
        for size in SIZES {
            let inner = vec![0x45; size];
            let mut esp = Buf::from_packet(&inner);
            crypter.seal(&mut esp, header(7), 7, IPV4, 0).unwrap();
            let mut group = c.benchmark_group(format!("esp/encapsulate/{name}"));
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new("uvti", size), |b| {
                let refill =
                    |burst: &mut [Buf]| burst.iter_mut().for_each(|b| assert_eq!(b.fill(&inner), size));
                let mut seq = 0;
                per_packet(b, &mut buffers(), refill, |burst| {
                    for buf in burst {
                        seq += 1;
                        black_box(crypter.seal(buf, header(seq), seq, IPV4, 0)).unwrap();
                    }
                });
            });
            group.finish();
            let mut group = c.benchmark_group(format!("esp/decapsulate/{name}"));
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new("uvti", size), |b| {
                let whole = esp.bytes();
                let refill =
                    |burst: &mut [Buf]| burst.iter_mut().for_each(|b| assert_eq!(b.fill(whole), whole.len()));
                per_packet(b, &mut buffers(), refill, |burst| {
                    for buf in burst {
                        assert_eq!(black_box(crypter.open(buf, None)), Ok(NextHeader::IPV4));
                    }
                });
            });
            group.finish();
        }
    }
}

criterion_group!(benches, encapsulate, decapsulate, without_ring);
criterion_main!(benches);
