//! Published packets, packets that a kernel sent, and how a kernel refuses.

use super::*;
use serde_json::Value;

/// Seals the vector's inner packet and opens its ESP packet.
fn check_aead_vector(case: &Value) {
    let text = |field: &str| case[field].as_str().unwrap();
    let bytes = |field: &str| hex(text(field));
    let icv = case["icv_bits"].as_u64().unwrap() as u32;
    let c = Crypter::new(&aead(text("kernel_name"), bytes("keymat"), icv)).unwrap();
    let esn = case["esn"].as_bool().unwrap();
    let seq = u64::from_str_radix(text("seq"), 16).unwrap();
    let header = Header { spi: Spi(u32::from_str_radix(text("spi"), 16).unwrap()), seq, esn };
    let iv = bytes("iv");
    let next_header = case["next_header"].as_u64().unwrap() as u8;
    let (inner, esp) = (bytes("inner"), bytes("esp_packet"));

    // Two of McGrew's cases pad with more than the fewest bytes: those can only be opened.
    let fewest = c.overhead().esp_len(inner.len()) == esp.len();
    let mut buf = Buf::from_packet(&inner);
    if fewest {
        c.seal_again(&mut buf, header, &iv, next_header).unwrap();
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
    for case in cases(include_str!("../vectors/esp_aes_gcm_mcgrew.json")) {
        check_aead_vector(&case);
    }
}

/// RFC 7634 appendix A.
#[test]
fn chacha20_poly1305_vector() {
    for case in cases(include_str!("../vectors/esp_chacha20poly1305_rfc7634.json")) {
        check_aead_vector(&case);
    }
}

/// RFC 3602 §4, cases 5 to 8: AES-CBC without an ICV, as `enc` without `auth`.
#[test]
fn aes_cbc_vectors() {
    for case in cases(include_str!("../vectors/esp_aes_cbc_rfc3602.json")) {
        let bytes = |field: &str| hex(case[field].as_str().unwrap());
        let number = |field: &str| u32::from_str_radix(case[field].as_str().unwrap(), 16).unwrap();
        let enc = AlgEnc { name: "cbc(aes)".into(), key: Key::new(bytes("keymat")) };
        let c = Crypter::new(&Algorithms { enc: Some(enc), ..Default::default() }).unwrap();
        let header = Header { spi: Spi(number("spi")), seq: number("seq").into(), esn: false };
        let next = case["next_header"].as_u64().unwrap() as u8;
        let mut buf = Buf::from_packet(&bytes("inner"));
        c.seal_again(&mut buf, header, &bytes("iv"), next).unwrap();
        assert_eq!(buf.bytes(), bytes("esp_packet"), "{}", case["id"]);
        assert_eq!(c.open(&mut buf, None), Ok(NextHeader(next)), "{}", case["id"]);
        assert_eq!(buf.bytes(), bytes("inner"), "{}", case["id"]);
    }
}

/// What a kernel sent, with every algorithm, with and without ESN (the number is beyond 2³² with it).
#[test]
fn packets_of_a_kernel() {
    let all = cases(include_str!("../vectors/esp_kernel_6.1.json"));
    assert_eq!(all.len(), 54);
    for case in all {
        let part = |kind: &str| {
            let part = &case[kind];
            let text = |field: &str| part[field].as_str().unwrap();
            let bits = part["bits"].as_u64().map(|bits| bits as u32);
            (!part.is_null()).then(|| (text("name").to_owned(), Key::new(hex(text("key"))), bits))
        };
        let algs = Algorithms {
            aead: part("aead").map(|(name, key, bits)| AlgAead { name, key, icv_bits: bits.unwrap() }),
            enc: part("enc").map(|(name, key, _)| AlgEnc { name, key }),
            auth: part("auth").map(|(name, key, trunc_bits)| AlgAuth { name, key, trunc_bits }),
        };
        let c = Crypter::new(&algs).unwrap();
        let (seq, esn) = (case["seq"].as_u64().unwrap(), case["esn"].as_bool().unwrap());
        let header = Header { spi: Spi(case["spi"].as_u64().unwrap() as u32), seq, esn };
        let next = NextHeader(case["next_header"].as_u64().unwrap() as u8);
        let (inner, esp) = (hex(case["inner"].as_str().unwrap()), hex(case["esp"].as_str().unwrap()));
        assert_eq!(seq > u64::from(u32::MAX), esn);

        let mut buf = Buf::from_packet(&esp);
        assert_eq!(c.open(&mut buf, hi(seq, esn)), Ok(next), "{}", case["id"]);
        assert_eq!(buf.bytes(), inner, "{}", case["id"]);
        c.seal_again(&mut buf, header, &esp[HEADER..HEADER + c.overhead.iv], next.0).unwrap();
        assert_eq!(buf.bytes(), esp, "{}", case["id"]);
    }
}

/// As a kernel 6.1 answered: what it takes, and the words with which it refuses.
#[test]
fn refusals_are_the_kernels() {
    let says = |algs: &Algorithms| Crypter::new(algs).map(|c| c.overhead().icv).map_err(|r| r.to_string());
    let cbc = |auth: &str, key, bits| says(&split("aes", 16, Some((auth, key, bits))));
    assert_eq!(says(&split("cbc(aes)", 16, None)), Ok(0));
    assert_eq!(cbc("hmac(sha1)", 0, None), Ok(12), "a MAC's key may have any length");
    assert_eq!(cbc("sha256", 144, None), Ok(12));
    assert_eq!(cbc("sha1", 20, Some(0)), Ok(12));
    assert_eq!(cbc("sha1", 20, Some(8)), Ok(1));
    assert_eq!(cbc("sha1", 20, Some(100)), Ok(12));
    assert_eq!(cbc("sha1", 20, Some(160)), Ok(20));
    assert_eq!(cbc("hmac(sha384)", 48, None), Ok(24));
    assert_eq!(cbc("hmac(sha512)", 64, None), Ok(32));
    assert_eq!(cbc("digest_null", 16, None), Ok(0));

    let bad_icv = Err("Error: Invalid length requested for truncated ICV.".to_owned());
    let no_cipher = Err("Error: Kernel was unable to initialize cryptographic operations.".to_owned());
    let invalid = Err("RTNETLINK answers: Invalid argument".to_owned());
    let not_found = |what: &str| Err(format!("Error: Requested {what} algorithm not found."));
    assert_eq!(cbc("sha1", 20, Some(161)), bad_icv);
    assert_eq!(cbc("digest_null", 0, Some(96)), bad_icv);
    assert_eq!(cbc("sha1", 20, Some(4)), no_cipher);
    assert_eq!(cbc("sha384", 48, None), not_found("AUTH"), "it has no older name");
    assert_eq!(cbc("nosuch", 20, Some(96)), not_found("AUTH_TRUNC"));
    assert_eq!(says(&split("nosuch", 16, Some(("nosuch", 20, None)))), not_found("AUTH"));
    assert_eq!(says(&split("nosuch", 16, Some(("sha1", 20, None)))), not_found("CRYPT"));
    assert_eq!(says(&split("", 16, None)), not_found("CRYPT"));
    for (enc, key) in
        [("cbc(aes)", 20), ("ecb(cipher_null)", 16), ("rfc3686(ctr(aes))", 16), ("rfc3686(ctr(aes))", 3)]
    {
        assert_eq!(says(&split(enc, key, Some(("sha256", 32, None)))), invalid, "{enc} {key}");
    }
    assert_eq!(says(&aead("rfc4106(gcm(aes))", vec![], 128)), no_cipher);
    assert_eq!(says(&aead("rfc4106(gcm(aes))", vec![0; 19], 96)), no_cipher);
    assert_eq!(says(&aead("rfc4543(gcm(aes))", vec![0; 20], 96)), not_found("AEAD"));
}

/// What the kernel has and uvti has not is refused by its name.
#[test]
fn what_is_not_supported_is_named() {
    let says = |algs: &Algorithms| Crypter::new(algs).err().map(|r| r.to_string()).unwrap();
    let not = |what: &str| format!("Error: {what}: not supported by uvti.");
    let sha1 = Some(("sha1", 20, None));
    assert_eq!(says(&split("des3_ede", 24, sha1)), not("enc cbc(des3_ede)"));
    assert_eq!(says(&split("cbc(camellia)", 16, sha1)), not("enc cbc(camellia)"));
    assert_eq!(says(&split("aes", 16, Some(("md5", 16, None)))), not("auth hmac(md5)"));
    assert_eq!(says(&aead("rfc4309(ccm(aes))", vec![0; 19], 128)), not("aead rfc4309(ccm(aes))"));
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
