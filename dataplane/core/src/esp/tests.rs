//! Published vectors, and properties over all algorithms.

use super::*;
use crate::packet::Buf;
use crate::xfrm::{AlgAead, Algorithms, Key, Spi};
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
