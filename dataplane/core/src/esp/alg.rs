//! Algorithm names and what they mean: the one table, and the refusals.

use crate::tables::{Errno, Refusal};
use crate::xfrm::{AlgAead, Algorithms};

/// A combined-mode algorithm that can be keyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AeadKind {
    /// RFC 4106.
    Gcm,
    /// RFC 7634.
    ChaCha20Poly1305,
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
    Aead { name: "rfc4543(gcm(aes))", icv_bits: &[128], kind: None },
    Aead { name: "rfc7539esp(chacha20,poly1305)", icv_bits: &[128], kind: Some(AeadKind::ChaCha20Poly1305) },
];

/// Algorithms found in the table, with their keys.
pub(super) enum Resolved<'a> {
    /// Combined mode: key without salt, salt, ICV in bytes.
    Aead { kind: AeadKind, key: &'a [u8], salt: [u8; 4], icv: usize },
}

/// Looks the names up.
pub(super) fn resolve(a: &Algorithms) -> Result<Resolved<'_>, Refusal> {
    match (&a.aead, &a.enc, &a.auth) {
        (Some(aead), None, None) => resolve_aead(aead),
        (_, Some(enc), _) => Err(unsupported("enc", &enc.name)),
        _ => Err(Refusal::message(Errno::Invalid, "ESP: AEAD or CRYPT must be provided")),
    }
}

fn resolve_aead(a: &AlgAead) -> Result<Resolved<'_>, Refusal> {
    let row = AEADS
        .iter()
        .find(|r| r.name == a.name && r.icv_bits.contains(&a.icv_bits))
        .ok_or_else(|| not_found("AEAD"))?;
    let kind = row.kind.ok_or_else(|| unsupported("aead", row.name))?;
    let (key, salt) = a.key.bytes().split_last_chunk().ok_or_else(bad_key)?;
    Ok(Resolved::Aead { kind, key, salt: *salt, icv: a.icv_bits as usize / 8 })
}

/// kernel: net/xfrm/xfrm_user.c attach_aead(), attach_crypt(), attach_auth(), attach_auth_trunc()
fn not_found(what: &str) -> Refusal {
    Refusal::message(Errno::NotSupported, format!("Requested {what} algorithm not found"))
}

/// A key of a wrong length. kernel: net/ipv4/esp4.c esp_init_aead(), esp_init_authenc()
pub(super) fn bad_key() -> Refusal {
    Refusal::message(Errno::Invalid, "Kernel was unable to initialize cryptographic operations")
}

/// An algorithm that the kernel has and uvti has not.
pub(super) fn unsupported(what: &str, name: &str) -> Refusal {
    Refusal::message(Errno::NotSupported, format!("{what} {name}: not supported by uvti"))
}
