//! Algorithm names and what they mean: the one table, and the refusals.

use crate::tables::{Errno, Refusal};
use crate::xfrm::{AlgAead, AlgAuth, AlgEnc, Algorithms};

/// A combined-mode algorithm that can be keyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AeadKind {
    /// AES-GCM, RFC 4106.
    Gcm,
    /// AES-GMAC, which does not encrypt, RFC 4543.
    Gmac,
    /// RFC 7634.
    ChaCha20Poly1305,
}

/// A cipher that can be keyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CipherKind {
    /// None, RFC 2410.
    Null,
    /// AES-CBC, RFC 3602.
    Cbc,
    /// AES-CTR, RFC 3686.
    Ctr,
}

/// An authentication algorithm that can be keyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MacKind {
    /// None.
    Null,
    /// RFC 2404.
    Sha1,
    /// RFC 4868, as are the others.
    Sha256,
    Sha384,
    Sha512,
}

/// An `aead` name the kernel knows. `kind` is `None` for those that only the kernel has.
struct Aead {
    name: &'static str,
    icv_bits: &'static [u32],
    kind: Option<AeadKind>,
}

/// kernel: net/xfrm/xfrm_algo.c aead_list
const AEADS: &[Aead] = &[
    Aead { name: "rfc4106(gcm(aes))", icv_bits: &[64, 96, 128], kind: Some(AeadKind::Gcm) },
    Aead { name: "rfc4309(ccm(aes))", icv_bits: &[64, 96, 128], kind: None },
    Aead { name: "rfc4543(gcm(aes))", icv_bits: &[128], kind: Some(AeadKind::Gmac) },
    Aead { name: "rfc7539esp(chacha20,poly1305)", icv_bits: &[128], kind: Some(AeadKind::ChaCha20Poly1305) },
];

/// An `enc` name, and the older one by which the kernel knows it as well.
struct Enc {
    name: &'static str,
    old: &'static str,
    kind: Option<CipherKind>,
}

const fn enc(name: &'static str, old: &'static str, kind: Option<CipherKind>) -> Enc {
    Enc { name, old, kind }
}

/// kernel: net/xfrm/xfrm_algo.c ealg_list
const ENCS: &[Enc] = &[
    enc("ecb(cipher_null)", "cipher_null", Some(CipherKind::Null)),
    enc("cbc(aes)", "aes", Some(CipherKind::Cbc)),
    enc("rfc3686(ctr(aes))", "", Some(CipherKind::Ctr)),
    enc("cbc(des)", "des", None),
    enc("cbc(des3_ede)", "des3_ede", None),
    enc("cbc(cast5)", "cast5", None),
    enc("cbc(blowfish)", "blowfish", None),
    enc("cbc(serpent)", "serpent", None),
    enc("cbc(camellia)", "camellia", None),
    enc("cbc(twofish)", "twofish", None),
];

/// An `auth` name, the older one, and lengths in bits: of the ICV by default, and before it is truncated.
struct Auth {
    name: &'static str,
    old: &'static str,
    default_bits: u32,
    full_bits: u32,
    kind: Option<MacKind>,
}

const fn auth(name: &'static str, old: &'static str, bits: [u32; 2], kind: Option<MacKind>) -> Auth {
    Auth { name, old, default_bits: bits[0], full_bits: bits[1], kind }
}

/// SHA-256 is cut to 96 bits by default, not to the 128 of RFC 4868: that takes `auth-trunc … 128`.
///
/// kernel: net/xfrm/xfrm_algo.c aalg_list
const AUTHS: &[Auth] = &[
    auth("digest_null", "", [0, 0], Some(MacKind::Null)),
    auth("hmac(sha1)", "sha1", [96, 160], Some(MacKind::Sha1)),
    auth("hmac(sha256)", "sha256", [96, 256], Some(MacKind::Sha256)),
    auth("hmac(sha384)", "", [192, 384], Some(MacKind::Sha384)),
    auth("hmac(sha512)", "", [256, 512], Some(MacKind::Sha512)),
    auth("hmac(md5)", "md5", [96, 128], None),
    auth("hmac(rmd160)", "rmd160", [96, 160], None),
    auth("xcbc(aes)", "", [96, 128], None),
    auth("cmac(aes)", "", [96, 128], None),
];

fn enc_row(name: &str) -> Option<&'static Enc> {
    ENCS.iter().find(|r| r.name == name || !name.is_empty() && r.old == name)
}

fn auth_row(name: &str) -> Option<&'static Auth> {
    AUTHS.iter().find(|r| r.name == name || !name.is_empty() && r.old == name)
}

/// The kernel's name of an `enc` algorithm, which it shows where an older one (`aes`) was given.
pub fn enc_name(alg: &AlgEnc) -> &str {
    enc_row(&alg.name).map_or(&alg.name, |r| r.name)
}

/// The kernel's name of an `auth` algorithm, which it shows where an older one (`sha1`) was given.
pub fn auth_name(alg: &AlgAuth) -> &str {
    auth_row(&alg.name).map_or(&alg.name, |r| r.name)
}

/// The length of the ICV, bits: as given, or the kernel's default where none or 0 was.
pub fn auth_bits(alg: &AlgAuth) -> u32 {
    let default = || auth_row(&alg.name).map_or(0, |r| r.default_bits);
    alg.trunc_bits.filter(|bits| *bits != 0).unwrap_or_else(default)
}

/// Algorithms found in the table, with their keys. Lengths of ICVs are in bytes.
pub(super) enum Resolved<'a> {
    /// Combined mode: key without salt, salt, ICV.
    Aead { kind: AeadKind, key: &'a [u8], salt: [u8; 4], icv: usize },
    /// A cipher, then a MAC over what it made.
    Split { cipher: CipherKind, enc_key: &'a [u8], mac: MacKind, auth_key: &'a [u8], icv: usize },
}

/// Looks the names up, in the kernel's order.
///
/// kernel: net/xfrm/xfrm_user.c xfrm_state_construct()
pub(super) fn resolve(a: &Algorithms) -> Result<Resolved<'_>, Refusal> {
    match (&a.aead, &a.enc, &a.auth) {
        (Some(aead), None, None) => resolve_aead(aead),
        (None, Some(enc), auth) => resolve_split(enc, auth.as_ref()),
        _ => Err(Refusal::message(Errno::Invalid, "ESP: AEAD or CRYPT must be provided")),
    }
}

fn resolve_aead(a: &AlgAead) -> Result<Resolved<'_>, Refusal> {
    let row = AEADS
        .iter()
        .find(|r| r.name == a.name && r.icv_bits.contains(&a.icv_bits))
        .ok_or_else(|| not_found("AEAD"))?;
    let kind = row.kind.ok_or_else(|| unsupported("aead", row.name))?;
    let (key, salt) = a.key.bytes().split_last_chunk().ok_or_else(no_cipher)?;
    Ok(Resolved::Aead { kind, key, salt: *salt, icv: a.icv_bits as usize / 8 })
}

/// Without `auth` there is no ICV, as with `digest_null`.
fn resolve_split<'a>(enc: &'a AlgEnc, auth: Option<&'a AlgAuth>) -> Result<Resolved<'a>, Refusal> {
    let (mac, auth_key, icv) = match auth {
        Some(auth) => resolve_auth(auth)?,
        None => (MacKind::Null, &[][..], 0),
    };
    let row = enc_row(&enc.name).ok_or_else(|| not_found("CRYPT"))?;
    let cipher = row.kind.ok_or_else(|| unsupported("enc", row.name))?;
    Ok(Resolved::Split { cipher, enc_key: enc.key.bytes(), mac, auth_key, icv })
}

fn resolve_auth(a: &AlgAuth) -> Result<(MacKind, &[u8], usize), Refusal> {
    let what = if a.trunc_bits.is_some() { "AUTH_TRUNC" } else { "AUTH" };
    let row = auth_row(&a.name).ok_or_else(|| not_found(what))?;
    let bits = auth_bits(a);
    if bits > row.full_bits {
        return Err(Refusal::message(Errno::Invalid, "Invalid length requested for truncated ICV"));
    }
    let kind = row.kind.ok_or_else(|| unsupported("auth", row.name))?;
    // kernel: crypto/aead.c crypto_aead_setauthsize(): an ICV of no bytes, where there could be one
    if bits < 8 && row.full_bits > 0 {
        return Err(no_cipher());
    }
    Ok((kind, a.key.bytes(), bits as usize / 8))
}

/// kernel: net/xfrm/xfrm_user.c attach_aead(), attach_crypt(), attach_auth(), attach_auth_trunc()
fn not_found(what: &str) -> Refusal {
    Refusal::message(Errno::NotSupported, format!("Requested {what} algorithm not found"))
}

/// An AEAD's key of a wrong length, or a length that is none. kernel: net/ipv4/esp4.c esp_init_state()
pub(super) fn no_cipher() -> Refusal {
    Refusal::message(Errno::Invalid, "Kernel was unable to initialize cryptographic operations")
}

/// A cipher's key of a wrong length. kernel: net/ipv4/esp4.c esp_init_authenc(), which says no more
pub(super) fn bad_key() -> Refusal {
    Refusal::errno(Errno::Invalid)
}

/// An algorithm that the kernel has and uvti has not.
fn unsupported(what: &str, name: &str) -> Refusal {
    Refusal::message(Errno::NotSupported, format!("{what} {name}: not supported by uvti"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Names of all algorithms that can be keyed.
    pub(in crate::esp) fn supported() -> Vec<&'static str> {
        let aeads = AEADS.iter().filter(|r| r.kind.is_some()).map(|r| r.name);
        let encs = ENCS.iter().filter(|r| r.kind.is_some()).map(|r| r.name);
        aeads.chain(encs).chain(AUTHS.iter().filter(|r| r.kind.is_some()).map(|r| r.name)).collect()
    }
}
