//! Tables of Wireshark to states and back.

use super::*;
use std::os::unix::fs::PermissionsExt;
use uvti_core::xfrm::{Lifetime, ReplayCounters, StateSpec, StateStats};

const KEY: &str = "0x000102030405060708090a0b0c0d0e0f";

fn parsed(lines: &str) -> Vec<StateSpec> {
    let plan = batch::plan("sa", lines, &Running(&[])).unwrap();
    let ops = plan.into_iter().flat_map(|line| match line.kind {
        Kind::Owned(ops) => ops,
        Kind::System(words) => panic!("{words:?}"),
    });
    ops.map(|op| match op {
        Op::StateAdd(spec) => *spec,
        op => panic!("{op:?}"),
    })
    .collect()
}

fn infos(lines: &str) -> Vec<StateInfo> {
    let info = |spec| StateInfo {
        spec,
        replay: ReplayCounters::default(),
        current: Lifetime::default(),
        stats: StateStats::default(),
    };
    // Lists are newest first.
    parsed(lines).into_iter().rev().map(info).collect()
}

/// Algorithms that Wireshark can name, as `ip` takes them, and its two names.
const ALGORITHMS: [(&str, &str, &str); 8] = [
    ("aead rfc4106(gcm(aes)) KEY01020304 64", "AES-GCM with 8 octet ICV [RFC4106]", "NULL"),
    ("aead rfc4106(gcm(aes)) KEY01020304 96", "AES-GCM with 12 octet ICV [RFC4106]", "NULL"),
    ("aead rfc4106(gcm(aes)) KEY01020304 128", "AES-GCM with 16 octet ICV [RFC4106]", "NULL"),
    ("enc cbc(aes) KEY auth-trunc hmac(sha1) KEY 96", "AES-CBC [RFC3602]", "HMAC-SHA-1-96 [RFC2404]"),
    ("enc cbc(aes) KEY auth-trunc hmac(sha256) KEY 128", "AES-CBC [RFC3602]", "HMAC-SHA-256-128 [RFC4868]"),
    (
        "enc rfc3686(ctr(aes)) KEY01020304 auth-trunc hmac(sha384) KEY 192",
        "AES-CTR [RFC3686]",
        "HMAC-SHA-384-192 [RFC4868]",
    ),
    ("enc ecb(cipher_null) '' auth-trunc hmac(sha512) KEY 256", "NULL", "HMAC-SHA-512-256 [RFC4868]"),
    ("enc cbc(aes) KEY", "AES-CBC [RFC3602]", "NULL"),
];

#[test]
fn what_is_exported_can_be_imported() {
    for (words, encryption, authentication) in ALGORITHMS {
        let words = words.replace("KEY", KEY);
        for ends in ["src 198.51.100.1 dst 198.51.100.2", "src :: dst 2001:db8::2"] {
            let line = format!("xfrm state add {ends} proto esp spi 0x100 mode tunnel {words}\n");
            let states = infos(&line);
            let (text, complaints) = exported(&states);
            assert_eq!(complaints, "");
            assert!(
                text.contains(&format!("\"{encryption}\""))
                    && text.contains(&format!("\"{authentication}\"")),
                "{text}"
            );
            let again = parsed(&imported("sa", &text, &[]).unwrap());
            assert_eq!(again, [states[0].spec.clone()], "{text}");
        }
    }
}

#[test]
fn kernel_defaults_and_odd_icvs_have_a_row() {
    let add = "xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 1 mode tunnel enc aes";
    for (auth, name) in [
        ("auth sha256", "HMAC-SHA-256-96 [draft-ietf-ipsec-ciph-sha-256-00]"),
        ("auth sha1", "HMAC-SHA-1-96 [RFC2404]"),
    ] {
        let (text, _) = exported(&infos(&format!("{add} {KEY} {auth} {KEY}\n")));
        assert!(text.contains(name), "{text}");
    }
    let odd = format!("{add} {KEY} auth-trunc hmac(sha512) {KEY}");
    assert!(exported(&infos(&format!("{odd} 64\n"))).0.contains("ANY 64 bit authentication [no checking]"));
    let (text, complaints) = exported(&infos(&format!("{odd} 72\n")));
    assert!(
        !text.contains("AES") && complaints.contains("spi 0x00000001 left out: Wireshark cannot skip"),
        "{complaints}"
    );
}

#[test]
fn what_wireshark_lacks_is_named() {
    let add = "xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp";
    let lines = format!(
        "{add} spi 1 mode tunnel aead rfc4543(gcm(aes)) {KEY}01020304 128\n{add} spi 2 mode tunnel aead 'rfc7539esp(chacha20,poly1305)' {KEY}{} 128\n",
        "00".repeat(20)
    );
    let (text, complaints) = exported(&infos(&lines));
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(complaints.contains("rfc4543(gcm(aes))") && complaints.contains("rfc7539esp"), "{complaints}");
}

#[test]
fn a_file_of_another_program_is_read() {
    let text = format!(
        "# save-keys\n\"IPv4\",\"*\",\"192.0.2.2\",\"0xC0FFEE\",\"AES-GCM [RFC4106]\",\"{KEY}01020304\",\"ANY 96 bit authentication [no checking]\",\"\"\n\
         \"IPv6\",\"2001:db8::1\",\"2001:db8::2\",\"16\",\"AES-CBC [RFC3602]\",\"0123456789abcdef\",\"NULL\",\"\",\"64-bit\",\"\"\n"
    );
    let words = ["reqid", "7", "replay-window", "32"].map(str::to_owned);
    let states = parsed(&imported("sa", &text, &words).unwrap());
    assert_eq!(states.len(), 2);
    assert_eq!(
        (states[0].spi.0, states[0].reqid, states[0].algs.aead.as_ref().unwrap().icv_bits),
        (0xc0ffee, 7, 96)
    );
    assert!(states[0].src.is_unspecified());
    // Without 0x a key is of characters, as in `ip`.
    assert_eq!(states[1].algs.enc.as_ref().unwrap().key.bytes(), b"0123456789abcdef");
    assert_eq!((states[1].spi.0, sa::is_unchecked(&states[1])), (16, true));
}

#[test]
fn what_cannot_be_added_is_refused_with_its_line() {
    let row = |replace: (&str, &str)| {
        format!(
            "\n\"IPv4\",\"192.0.2.1\",\"192.0.2.2\",\"0x1\",\"AES-CBC [RFC3602]\",\"{KEY}\",\"NULL\",\"\"\n"
        )
        .replace(replace.0, replace.1)
    };
    for (replace, why) in [
        (("IPv4", "IPv5"), "\"IPv5\" is neither"),
        (("192.0.2.2", "*"), "the destination \"*\" is not one address"),
        (("192.0.2.1", "2001:db8::1"), "the source 2001:db8::1 is not IPv4"),
        (("0x1\"", "*\""), "\"*\" is not one SPI"),
        (("AES-CBC [RFC3602]", "TripleDES-CBC [RFC2451]"), "TripleDES-CBC [RFC2451]: not supported by uvti"),
        (("AES-CBC [RFC3602]", "AES-GCM [RFC4106]"), "AES-GCM [RFC4106] with NULL: the length"),
        (("\"NULL\"", "\"HMAC-MD5-96 [RFC2403]\""), "HMAC-MD5-96 [RFC2403]: not supported"),
        (("0e0f", "0e0"), "a key is not hexadecimal"),
        ((",\"NULL\",\"\"", ""), "an SA has eight fields, this has 6"),
        (("\"NULL\",\"\"", "\"NULL\",\"\",\"8-bit\""), "\"8-bit\" is no length"),
    ] {
        let said = imported("keys", &row(replace), &[]).unwrap_err().to_string();
        assert!(said.starts_with(&format!("keys:2: {why}")), "{said}");
        assert!(!said.contains("0203040506"), "keys are not for logs: {said}");
    }
}

#[test]
fn the_file_is_for_its_owner_alone_whoever_could_read_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("esp_sa");
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    write(&file, "new").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
