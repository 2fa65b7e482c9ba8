//! Published vectors, and properties over all algorithms.

use super::*;
use crate::packet::Buf;
use crate::xfrm::{AlgAead, Algorithms, Key, Spi};
use layout::{HEADER, Parts};
use proptest::prelude::*;
use serde_json::Value;

fn hex(s: &str) -> Vec<u8> {
    (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap()).collect()
}

fn aead(name: &str, key: Vec<u8>, icv_bits: u32) -> Algorithms {
    let aead = AlgAead { name: name.into(), key: Key::new(key), icv_bits };
    Algorithms { aead: Some(aead), ..Default::default() }
}

/// Seals the vector's inner packet and opens its ESP packet.
fn check_aead_vector(case: &Value) {
    let text = |field: &str| case[field].as_str().unwrap();
    let bytes = |field: &str| hex(text(field));
    let icv = case["icv_bits"].as_u64().unwrap() as u32;
    let c = Crypter::new(&aead(text("kernel_name"), bytes("keymat"), icv)).unwrap();
    let esn = case["esn"].as_bool().unwrap();
    let seq = u64::from_str_radix(text("seq"), 16).unwrap();
    let header = Header { spi: Spi(u32::from_str_radix(text("spi"), 16).unwrap()), seq, esn };
    let iv = u64::from_str_radix(text("iv"), 16).unwrap();
    let next_header = case["next_header"].as_u64().unwrap() as u8;
    let (inner, esp) = (bytes("inner"), bytes("esp_packet"));

    // Two of McGrew's cases pad with more than the fewest bytes: those can only be opened.
    let fewest = c.overhead().esp_len(inner.len()) == esp.len();
    let mut buf = Buf::from_packet(&inner);
    if fewest {
        c.seal(&mut buf, header, iv, next_header, 0).unwrap();
        assert_eq!(buf.bytes(), esp, "{}", case["id"]);
        assert_eq!(peek(buf.bytes()), Some((header.spi, seq as u32)));
    }
    let mut buf = Buf::from_packet(&esp);
    let opened = c.open(&mut buf, esn.then_some((seq >> 32) as u32));
    if inner.is_empty() {
        assert_eq!(opened, Err(OpenError::BadPadding), "the kernel takes no empty inner packet");
    } else {
        assert_eq!(opened, Ok(NextHeader(next_header)), "{}", case["id"]);
        assert_eq!(buf.bytes(), inner);
    }
}

fn cases(json: &str) -> Vec<Value> {
    let mut file: Value = serde_json::from_str(json).unwrap();
    match file["cases"].take() {
        Value::Array(cases) if !cases.is_empty() => cases,
        _ => panic!("no cases"),
    }
}

/// draft-mcgrew-gcm-test-01.
#[test]
fn aes_gcm_vectors() {
    for case in cases(include_str!("vectors/esp_aes_gcm_mcgrew.json")) {
        if case["keymat"].as_str().unwrap().len() == 56 {
            continue;
        }
        check_aead_vector(&case);
    }
}

/// RFC 7634 appendix A.
#[test]
fn chacha20_poly1305_vector() {
    for case in cases(include_str!("vectors/esp_chacha20poly1305_rfc7634.json")) {
        check_aead_vector(&case);
    }
}

const SPI: Spi = Spi(0x100);

fn gcm() -> Crypter {
    Crypter::new(&aead("rfc4106(gcm(aes))", (0..20).collect(), 128)).unwrap()
}

fn chacha() -> Crypter {
    Crypter::new(&aead("rfc7539esp(chacha20,poly1305)", (0..36).collect(), 128)).unwrap()
}

fn suites() -> impl Strategy<Value = Crypter> {
    prop_oneof![Just(()).prop_map(|()| gcm()), Just(()).prop_map(|()| chacha())]
}

/// The high half that is authenticated.
fn hi(seq: u64, esn: bool) -> Option<u32> {
    esn.then_some((seq >> 32) as u32)
}

/// ESP around any text whatever, authentic.
fn authentic(c: &Crypter, text: &[u8]) -> Buf {
    let Suite::Ring(aead) = &c.suite;
    let mut packet = [&[0; HEADER][..], &[0; 8], text, &[0; 16]].concat();
    assert!(aead.seal(Parts::split(&mut packet, &c.overhead).unwrap(), None));
    Buf::from_packet(&packet)
}

/// The largest packets that a kernel VTI let through, by path MTU and what stands in front of ESP.
#[test]
fn overhead_is_the_kernels() {
    for c in [gcm(), chacha()] {
        let largest = |path: usize, outer: usize| c.overhead().largest_inner(path - outer);
        assert_eq!((largest(1500, 20), largest(1500, 28), largest(1500, 40)), (1446, 1438, 1426));
        assert_eq!((largest(1300, 20), largest(40, 20), largest(20, 20)), (1246, 0, 0));
        assert_eq!((c.overhead().esp_len(100), c.overhead().esp_len(300)), (136, 336));
    }
}

/// Scenarios rx_bad_padlen, rx_bad_padbytes, rx_long_pad, rx_unaligned, rx_nh59_dummy.
#[test]
fn trailers_are_read_like_the_kernel() {
    let open = |text: &[u8]| {
        let mut buf = authentic(&gcm(), text);
        gcm().open(&mut buf, None).map(|next| (next.0, buf.len()))
    };
    let mut long = vec![7; 100 + 254];
    long.extend([254, 4]);
    assert_eq!(open(&long), Ok((4, 100)));
    assert_eq!(open(&[7, 7, 9, 9, 2, 4]), Ok((4, 2)), "pad bytes are not compared");
    assert_eq!(open(&[7, 7, 7, 0, 41]), Ok((41, 3)), "nor is the alignment");
    assert_eq!(open(&[7, 7, 255, 4]), Err(OpenError::BadPadding));
    assert_eq!(open(&[7, 7, 2, 4]), Err(OpenError::BadPadding), "no inner packet is left");
    assert_eq!(open(&[7, 7, 3, 59]), Err(OpenError::BadPadding), "before the next header is looked at");
    assert_eq!(open(&[7, 7, 0, 59]), Err(OpenError::Dummy));
    for short in [&[][..], &[4], &[0, 4]] {
        assert_eq!(open(short), Err(OpenError::BadPadding));
    }
}

/// Scenarios rx_trunc_8, rx_trunc_24: header, IV and ICV are there or the packet is not looked at.
#[test]
fn truncated_packets_are_told_from_forged_ones() {
    for len in 0..40 {
        let wrong = if len < 32 { OpenError::Truncated } else { OpenError::BadIcv };
        assert_eq!(gcm().open(&mut Buf::from_packet(&vec![0; len]), None), Err(wrong), "{len} bytes");
    }
}

#[test]
fn without_room_the_packet_stays() {
    let mut buf = Buf::from_packet(&[5; 100]);
    buf.push_front(crate::packet::HEADROOM - 15).unwrap();
    let header = Header { spi: SPI, seq: 1, esn: false };
    let before = buf.bytes().to_vec();
    assert_eq!(gcm().seal(&mut buf, header, 1, 4, 0), Err(SealError::NoRoom));
    assert_eq!(buf.bytes(), before);
    let mut buf = Buf::from_packet(&[5; 100]);
    let more_than_fits = 100 + crate::packet::TAILROOM;
    assert_eq!(gcm().seal(&mut buf, header, 1, 4, more_than_fits), Err(SealError::NoRoom));
    assert_eq!(buf.bytes(), [5; 100]);
}

proptest! {
    #[test]
    fn what_is_sealed_opens(
        c in suites(), inner in prop::collection::vec(any::<u8>(), 1..2000), seq: u64, iv: u64, esn: bool,
        next in prop::sample::select(vec![4u8, 41]), tfc in prop_oneof![Just(0), 1usize..2100],
    ) {
        let mut buf = Buf::with_capacity(2100);
        buf.fill(&inner);
        c.seal(&mut buf, Header { spi: SPI, seq, esn }, iv, next, tfc).unwrap();
        let padded = inner.len().max(tfc);
        prop_assert_eq!(buf.len(), c.overhead().esp_len(padded));
        prop_assert_eq!(peek(buf.bytes()), Some((SPI, seq as u32)));
        prop_assert_eq!(&buf.bytes()[8..16], &iv.to_be_bytes());
        prop_assert_eq!(c.open(&mut buf, hi(seq, esn)), Ok(NextHeader(next)));
        prop_assert_eq!(buf.len(), padded);
        prop_assert_eq!(&buf.bytes()[..inner.len()], &inner[..]);
        prop_assert!(buf.bytes()[inner.len()..].iter().all(|b| *b == 0), "TFC padding is zeros");
    }

    #[test]
    fn one_flipped_bit_is_a_forgery(
        c in suites(), inner in prop::collection::vec(any::<u8>(), 1..300), seq: u64, esn: bool, at: prop::sample::Index,
    ) {
        let mut buf = Buf::from_packet(&inner);
        c.seal(&mut buf, Header { spi: SPI, seq, esn }, seq, 4, 0).unwrap();
        let bit = at.index(buf.len() * 8);
        buf.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(c.open(&mut buf, hi(seq, esn)), Err(OpenError::BadIcv));
    }

    #[test]
    fn another_high_half_is_a_forgery(c in suites(), seq: u64, other: u32) {
        let seal = |esn| {
            let mut buf = Buf::from_packet(&[7; 50]);
            c.seal(&mut buf, Header { spi: SPI, seq, esn }, seq, 4, 0).unwrap();
            buf
        };
        prop_assume!(other != (seq >> 32) as u32);
        prop_assert_eq!(c.open(&mut seal(true), Some(other)), Err(OpenError::BadIcv));
        prop_assert_eq!(c.open(&mut seal(true), None), Err(OpenError::BadIcv));
        prop_assert_eq!(c.open(&mut seal(false), hi(seq, true)), Err(OpenError::BadIcv));
    }

    #[test]
    fn arbitrary_bytes_never_open(
        c in suites(), bytes in prop::collection::vec(any::<u8>(), 0..300), seq_hi: Option<u32>,
    ) {
        prop_assert!(c.open(&mut Buf::from_packet(&bytes), seq_hi).is_err());
    }

    /// Authentic, but what a peer wrote there is its own affair.
    #[test]
    fn arbitrary_authentic_text_does_no_harm(c in suites(), text in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut buf = authentic(&c, &text);
        if c.open(&mut buf, None).is_ok() {
            prop_assert!(!buf.is_empty() && buf.len() <= text.len() - 2);
            prop_assert_eq!(buf.bytes(), &text[..buf.len()]);
        }
    }

    #[test]
    fn the_largest_inner_packet_is_the_largest(c in suites(), room in 0usize..9000) {
        let o = c.overhead();
        let largest = o.largest_inner(room);
        prop_assert!(o.esp_len(largest + 1) > room);
        prop_assert!(largest == 0 || o.esp_len(largest) <= room);
    }
}
