//! An SA as a row of Wireshark's table `esp_sa`, and as a line of `ip xfrm state`.

use std::fmt::Write;
use std::net::IpAddr;
use uvti_core::esp::{auth_bits, auth_name, enc_name};
use uvti_core::xfrm::{AlgAead, AlgAuth, Algorithms, StateFlags, StateSpec};

/// Wireshark's names of ciphers, and the kernel's. AES-GCM comes with its ICV, or takes the length of another's.
const ENCRYPTION: [(&str, &str); 3] = [
    ("NULL", "ecb(cipher_null)"),
    ("AES-CBC [RFC3602]", "cbc(aes)"),
    ("AES-CTR [RFC3686]", "rfc3686(ctr(aes))"),
];
const GCM: &str = "rfc4106(gcm(aes))";
const GCM_ALONE: &str = "AES-GCM [RFC4106]";
const GCM_WITH_ICV: [(&str, u32); 3] = [
    ("AES-GCM with 8 octet ICV [RFC4106]", 64),
    ("AES-GCM with 12 octet ICV [RFC4106]", 96),
    ("AES-GCM with 16 octet ICV [RFC4106]", 128),
];
/// Wireshark's names of MACs, the kernel's, and the length of the ICV in bits.
const AUTHENTICATION: [(&str, &str, u32); 5] = [
    ("HMAC-SHA-1-96 [RFC2404]", "hmac(sha1)", 96),
    ("HMAC-SHA-256-96 [draft-ietf-ipsec-ciph-sha-256-00]", "hmac(sha256)", 96),
    ("HMAC-SHA-256-128 [RFC4868]", "hmac(sha256)", 128),
    ("HMAC-SHA-384-192 [RFC4868]", "hmac(sha384)", 192),
    ("HMAC-SHA-512-256 [RFC4868]", "hmac(sha512)", 256),
];
/// ICVs that Wireshark can skip, without looking at them, in bits.
const UNCHECKED: [u32; 5] = [64, 96, 128, 192, 256];
const NONE: &str = "NULL";

/// The row of an SA, or why Wireshark has none for it.
pub(super) fn row(spec: &StateSpec) -> Result<Vec<String>, String> {
    let (encryption, authentication) = match &spec.algs {
        Algorithms { aead: Some(aead), .. } => (combined(aead)?, (NONE.to_owned(), String::new())),
        Algorithms { enc: Some(enc), auth, .. } => {
            let name = enc_name(enc);
            let known = ENCRYPTION.iter().find(|row| row.1 == name).ok_or(unknown(name))?;
            ((known.0.to_owned(), hex(enc.key.bytes())), mac(auth.as_ref())?)
        }
        _ => return Err("it has no cipher".to_owned()),
    };
    let address = |a: IpAddr| if a.is_unspecified() { "*".to_owned() } else { a.to_string() };
    let family = if spec.dst.is_ipv4() { "IPv4" } else { "IPv6" };
    let ends = [family.to_owned(), address(spec.src), address(spec.dst), spec.spi.to_string()];
    Ok([&ends[..], &[encryption.0, encryption.1, authentication.0, authentication.1]].concat())
}

fn combined(aead: &AlgAead) -> Result<(String, String), String> {
    let with_icv = GCM_WITH_ICV.iter().find(|row| aead.name == GCM && row.1 == aead.icv_bits);
    let known = with_icv.ok_or(unknown(&aead.name))?;
    Ok((known.0.to_owned(), hex(aead.key.bytes())))
}

fn mac(auth: Option<&AlgAuth>) -> Result<(String, String), String> {
    let Some(auth) = auth.filter(|auth| auth_bits(auth) > 0) else {
        return Ok((NONE.to_owned(), String::new()));
    };
    let (name, bits) = (auth_name(auth), auth_bits(auth));
    match AUTHENTICATION.iter().find(|row| (row.1, row.2) == (name, bits)) {
        Some(row) => Ok((row.0.to_owned(), hex(auth.key.bytes()))),
        None if UNCHECKED.contains(&bits) => {
            Ok((format!("ANY {bits} bit authentication [no checking]"), String::new()))
        }
        None => Err(format!("Wireshark cannot skip an ICV of {bits} bits")),
    }
}

fn unknown(name: &str) -> String {
    format!("Wireshark does not know {name}, or not with this ICV")
}

/// The line of `ip` that adds the SA of a row, or why it cannot be added.
pub(super) fn line(fields: &[String]) -> Result<String, String> {
    // Newer ones say how long sequence numbers are, and guess their high half.
    let ([family, src, dst, spi, enc, enc_key, auth, auth_key], more) = fields
        .split_first_chunk()
        .ok_or_else(|| format!("an SA has eight fields, this has {}", fields.len()))?;
    let any = match family.as_str() {
        "IPv4" => "0.0.0.0",
        "IPv6" => "::",
        _ => return Err(format!("\"{family}\" is neither IPv4 nor IPv6")),
    };
    let src = if src == "*" { any } else { src };
    for (what, value) in [("source", src), ("destination", dst.as_str())] {
        let address: IpAddr =
            value.parse().map_err(|_| format!("the {what} \"{value}\" is not one address"))?;
        if address.is_ipv4() != (family == "IPv4") {
            return Err(format!("the {what} {value} is not {family}"));
        }
    }
    let mut line = format!("xfrm state add src {src} dst {dst} proto esp spi {} mode tunnel", number(spi)?);
    algorithms(&mut line, (enc, &key(enc_key)?), (auth, &key(auth_key)?))?;
    match more.first().map(String::as_str) {
        None | Some("") => {}
        Some(length) if length.starts_with("32-bit") => {}
        Some(length) if length.starts_with("64-bit") => line.push_str(" flag esn"),
        Some(length) => return Err(format!("\"{length}\" is no length of sequence numbers")),
    }
    Ok(line)
}

fn algorithms(
    line: &mut String,
    (enc, enc_key): (&str, &str),
    (auth, auth_key): (&str, &str),
) -> Result<(), String> {
    let skipped =
        UNCHECKED.iter().find(|bits| auth == format!("ANY {bits} bit authentication [no checking]"));
    let icv = GCM_WITH_ICV.iter().find(|row| row.0 == enc).map(|row| row.1);
    if let Some(bits) = icv.or(skipped.copied().filter(|_| enc == GCM_ALONE)) {
        let _ = write!(line, " aead {GCM} {enc_key} {bits}");
        return Ok(());
    }
    if enc == GCM_ALONE {
        return Err(format!("{enc} with {auth}: the length of its ICV is not said"));
    }
    let cipher = ENCRYPTION.iter().find(|row| row.0 == enc).ok_or(format!("{enc}: not supported by uvti"))?;
    let _ = write!(line, " enc {} {enc_key}", cipher.1);
    if auth != NONE {
        let unknown = || format!("{auth}: not supported by uvti, or says too little");
        let (_, name, bits) = AUTHENTICATION.iter().find(|row| row.0 == auth).ok_or_else(unknown)?;
        let _ = write!(line, " auth-trunc {name} {auth_key} {bits}");
    }
    Ok(())
}

/// An SPI: one, not `*`.
fn number(spi: &str) -> Result<u32, String> {
    let value = match spi.strip_prefix("0x").or(spi.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => spi.parse(),
    };
    value.map_err(|_| format!("\"{spi}\" is not one SPI"))
}

/// A key as `ip` takes it: hexadecimal; what has no `0x` in front is a key of characters.
fn key(field: &str) -> Result<String, String> {
    let digits = match field.strip_prefix("0x").or(field.strip_prefix("0X")) {
        Some(digits) => digits.to_owned(),
        None => field.bytes().fold(String::new(), |text, byte| text + &format!("{byte:02x}")),
    };
    if digits.is_empty() {
        return Ok("''".to_owned());
    }
    if digits.len() % 2 != 0 || !digits.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err("a key is not hexadecimal, two digits a byte".to_owned());
    }
    Ok(format!("0x{digits}"))
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return String::new();
    }
    bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// Whether Wireshark, which knows no high halves, can only decrypt an SA and not check it.
pub(super) fn is_unchecked(spec: &StateSpec) -> bool {
    spec.flags.has(StateFlags::ESN)
}
