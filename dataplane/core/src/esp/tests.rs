//! Properties over all algorithms; what was published and recorded is in `known`.

use super::*;
use crate::packet::Buf;
use crate::xfrm::{AlgAead, AlgAuth, AlgEnc, Algorithms, Key, Spi};
use layout::{HEADER, Parts};
use proptest::prelude::*;

mod known;

fn hex(s: &str) -> Vec<u8> {
    (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap()).collect()
}

fn aead(name: &str, key: Vec<u8>, icv_bits: u32) -> Algorithms {
    let aead = AlgAead { name: name.into(), key: Key::new(key), icv_bits };
    Algorithms { aead: Some(aead), ..Default::default() }
}

fn split(enc: &str, enc_key: usize, auth: Option<(&str, usize, Option<u32>)>) -> Algorithms {
    let key = |len: usize| Key::new((0..len as u8).collect());
    let auth = auth.map(|(name, len, trunc_bits)| AlgAuth { name: name.into(), key: key(len), trunc_bits });
    Algorithms { aead: None, enc: Some(AlgEnc { name: enc.into(), key: key(enc_key) }), auth }
}

const SPI: Spi = Spi(0x100);

fn gcm() -> Crypter {
    Crypter::new(&aead("rfc4106(gcm(aes))", (0..20).collect(), 128)).unwrap()
}

fn chacha() -> Crypter {
    Crypter::new(&aead("rfc7539esp(chacha20,poly1305)", (0..36).collect(), 128)).unwrap()
}

/// Every algorithm with every length of its key and ICV, and ciphers with every kind of MAC.
fn everything() -> Vec<Algorithms> {
    let mut all = vec![aead("rfc7539esp(chacha20,poly1305)", (0..36).collect(), 128)];
    for key in [20, 28, 36] {
        all.extend([64, 96, 128].map(|icv| aead("rfc4106(gcm(aes))", (0..key).collect(), icv)));
        all.push(aead("rfc4543(gcm(aes))", (0..key).collect(), 128));
    }
    let ciphers = [16, 24, 32]
        .map(|key| ("cbc(aes)", key))
        .into_iter()
        .chain([20, 28, 36].map(|key| ("rfc3686(ctr(aes))", key)));
    for (enc, key) in ciphers.chain([("ecb(cipher_null)", 0)]) {
        for auth in [
            None,
            Some(("digest_null", 0, None)),
            Some(("sha1", 20, None)),
            Some(("hmac(sha256)", 32, None)),
            Some(("hmac(sha256)", 32, Some(128))),
            Some(("hmac(sha384)", 48, None)),
            Some(("hmac(sha512)", 64, Some(512))),
        ] {
            all.push(split(enc, key, auth));
        }
    }
    all
}

fn suites() -> impl Strategy<Value = Crypter> {
    prop::sample::select(everything()).prop_map(|algs| Crypter::new(&algs).unwrap())
}

/// Those that tell a forgery.
fn authenticating() -> impl Strategy<Value = Crypter> {
    suites().prop_filter("no ICV", |c| c.overhead().icv > 0)
}

/// The high half that is authenticated.
fn hi(seq: u64, esn: bool) -> Option<u32> {
    esn.then_some((seq >> 32) as u32)
}

/// ESP around any text whatever that is whole blocks, authentic.
fn authentic(c: &Crypter, text: &[u8]) -> Buf {
    let o = c.overhead;
    let mut packet = [&[0; HEADER][..], &vec![0; o.iv], text, &vec![0; o.icv]].concat();
    assert!(c.suite.seal(Parts::split(&mut packet, &o).unwrap(), None).is_some());
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
    let largest = |algs: &Algorithms| Crypter::new(algs).unwrap().overhead().largest_inner(1480);
    let (sha1, sha256_128) = (Some(("sha1", 20, None)), Some(("hmac(sha256)", 32, Some(128))));
    assert_eq!(largest(&split("cbc(aes)", 16, sha1)), 1438);
    assert_eq!(largest(&split("cbc(aes)", 16, sha256_128)), 1438);
    assert_eq!(largest(&split("ecb(cipher_null)", 0, sha256_128)), 1454);
    assert_eq!(largest(&aead("rfc4106(gcm(aes))", (0..20).collect(), 64)), 1454);
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

/// kernel: crypto/authenc.c: the ICV first, then whether the text is whole blocks
#[test]
fn a_broken_block_is_no_forgery() {
    let algs = |auth| split("cbc(aes)", 16, auth);
    let c = Crypter::new(&algs(Some(("sha1", 20, None)))).unwrap();
    let with_icv = |text: &[u8]| {
        let null = Crypter::new(&split("ecb(cipher_null)", 0, Some(("sha1", 20, None)))).unwrap();
        let mut buf = authentic(&null, &[&[0; 16][..], text].concat());
        c.open(&mut buf, None)
    };
    assert_eq!(with_icv(&[0; 17]), Err(OpenError::Truncated));
    assert_eq!(c.open(&mut Buf::from_packet(&[0; 8 + 16 + 17 + 12]), None), Err(OpenError::BadIcv));
    let bare = Crypter::new(&algs(None)).unwrap();
    assert_eq!(bare.open(&mut Buf::from_packet(&[0; 8 + 16 + 15]), None), Err(OpenError::Truncated));
}

/// Numbers of one SA make IVs that differ, also where they cannot be foretold.
#[test]
fn an_iv_never_repeats() {
    for algs in everything() {
        let c = Crypter::new(&algs).unwrap();
        let mut seen = std::collections::HashSet::new();
        for number in 0..if c.overhead.iv == 0 { 0 } else { 100 } {
            let mut iv = vec![0; c.overhead.iv];
            c.suite.write_iv(number, &mut iv);
            assert!(seen.insert(iv), "{algs:?}");
        }
    }
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
        match c.overhead().iv {
            8 => prop_assert_eq!(&buf.bytes()[8..16], &iv.to_be_bytes()),
            16 => prop_assert_ne!(&buf.bytes()[16..24], &iv.to_be_bytes(), "an IV that can be foretold"),
            _ => (),
        }
        prop_assert_eq!(c.open(&mut buf, hi(seq, esn)), Ok(NextHeader(next)));
        prop_assert_eq!(buf.len(), padded);
        prop_assert_eq!(&buf.bytes()[..inner.len()], &inner[..]);
        prop_assert!(buf.bytes()[inner.len()..].iter().all(|b| *b == 0), "TFC padding is zeros");
    }

    #[test]
    fn one_flipped_bit_is_a_forgery(
        c in authenticating(), inner in prop::collection::vec(any::<u8>(), 1..300), seq: u64, esn: bool, at: prop::sample::Index,
    ) {
        let mut buf = Buf::from_packet(&inner);
        c.seal(&mut buf, Header { spi: SPI, seq, esn }, seq, 4, 0).unwrap();
        let bit = at.index(buf.len() * 8);
        buf.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(c.open(&mut buf, hi(seq, esn)), Err(OpenError::BadIcv));
    }

    #[test]
    fn another_high_half_is_a_forgery(c in authenticating(), seq: u64, other: u32) {
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
        c in authenticating(), bytes in prop::collection::vec(any::<u8>(), 0..300), seq_hi: Option<u32>,
    ) {
        prop_assert!(c.open(&mut Buf::from_packet(&bytes), seq_hi).is_err());
    }

    /// Authentic, but what a peer wrote there is its own affair.
    #[test]
    fn arbitrary_authentic_text_does_no_harm(c in suites(), text in prop::collection::vec(any::<u8>(), 0..300)) {
        let whole = text.len() - text.len() % if c.overhead.iv == 16 { 16 } else { 1 };
        let text = &text[..whole];
        let mut buf = authentic(&c, text);
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
