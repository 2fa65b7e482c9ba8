//! The algorithms of ESP as scripts name them, with all lengths of keys and ICVs.

use uvti_core::xfrm::{AlgAead, AlgAuth, AlgEnc, Algorithms, Key};

/// A name as the kernel knows it, bytes of key, bits of ICV where they are given.
pub type Named = (&'static str, usize, Option<u32>);

const AEADS: [Named; 13] = [
    ("rfc4106(gcm(aes))", 20, Some(64)),
    ("rfc4106(gcm(aes))", 20, Some(96)),
    ("rfc4106(gcm(aes))", 20, Some(128)),
    ("rfc4106(gcm(aes))", 28, Some(64)),
    ("rfc4106(gcm(aes))", 28, Some(96)),
    ("rfc4106(gcm(aes))", 28, Some(128)),
    ("rfc4106(gcm(aes))", 36, Some(64)),
    ("rfc4106(gcm(aes))", 36, Some(96)),
    ("rfc4106(gcm(aes))", 36, Some(128)),
    ("rfc4543(gcm(aes))", 20, Some(128)),
    ("rfc4543(gcm(aes))", 28, Some(128)),
    ("rfc4543(gcm(aes))", 36, Some(128)),
    ("rfc7539esp(chacha20,poly1305)", 36, Some(128)),
];

const CIPHERS: [Named; 7] = [
    ("cbc(aes)", 16, None),
    ("cbc(aes)", 24, None),
    ("cbc(aes)", 32, None),
    ("rfc3686(ctr(aes))", 20, None),
    ("rfc3686(ctr(aes))", 28, None),
    ("rfc3686(ctr(aes))", 36, None),
    ("ecb(cipher_null)", 0, None),
];

const MACS: [Named; 6] = [
    ("hmac(sha1)", 20, None),
    ("hmac(sha256)", 32, None),
    ("hmac(sha256)", 32, Some(128)),
    ("hmac(sha384)", 48, None),
    ("hmac(sha512)", 64, None),
    ("digest_null", 0, None),
];

/// An AEAD, or a cipher and a MAC.
#[derive(Clone, Copy, Debug)]
pub enum Algorithm {
    /// Combined mode; the key with its salt.
    Aead(Named),
    /// Encryption, then authentication.
    Split(Named, Named),
}

/// All AEADs, and those pairs of a cipher and a MAC that are wanted.
pub fn algorithms(wanted: impl Fn((usize, usize)) -> bool) -> Vec<Algorithm> {
    let mut all = AEADS.map(Algorithm::Aead).to_vec();
    for (i, cipher) in CIPHERS.into_iter().enumerate() {
        let macs = MACS.into_iter().enumerate().filter(|(j, _)| wanted((i, *j)));
        all.extend(macs.map(|(_, mac)| Algorithm::Split(cipher, mac)));
    }
    all
}

impl Algorithm {
    /// A short name.
    pub fn name(&self) -> String {
        let one = |(name, key, bits): Named| match bits {
            Some(bits) => format!("{name}-{}-{bits}", key * 8),
            None => format!("{name}-{}", key * 8),
        };
        match *self {
            Algorithm::Aead(aead) => one(aead),
            Algorithm::Split(cipher, mac) => format!("{}-{}", one(cipher), one(mac)),
        }
    }

    /// With keys whose bytes count up from `first`.
    pub fn keyed(&self, first: u8) -> Algorithms {
        let key = |bytes: usize| Key::new((0..bytes).map(|i| first.wrapping_add(i as u8)).collect());
        match *self {
            Algorithm::Aead((name, bytes, bits)) => {
                let aead = AlgAead { name: name.into(), key: key(bytes), icv_bits: bits.unwrap_or(128) };
                Algorithms { aead: Some(aead), ..Algorithms::default() }
            }
            Algorithm::Split(cipher, mac) => {
                let enc = AlgEnc { name: cipher.0.into(), key: key(cipher.1) };
                let auth = AlgAuth { name: mac.0.into(), key: key(mac.1), trunc_bits: mac.2 };
                Algorithms { aead: None, enc: Some(enc), auth: Some(auth) }
            }
        }
    }
}

/// As `ip xfrm state add` takes them.
pub fn words(algs: &Algorithms) -> String {
    let key =
        |key: &Key| if key.bytes().is_empty() { "''".to_owned() } else { format!("0x{}", hex(key.bytes())) };
    let mut words = Vec::new();
    if let Some(a) = &algs.aead {
        words.push(format!("aead {} {} {}", a.name, key(&a.key), a.icv_bits));
    }
    if let Some(a) = &algs.enc {
        words.push(format!("enc {} {}", a.name, key(&a.key)));
    }
    if let Some(a) = &algs.auth {
        words.push(match a.trunc_bits {
            Some(bits) => format!("auth-trunc {} {} {bits}", a.name, key(&a.key)),
            None => format!("auth {} {}", a.name, key(&a.key)),
        });
    }
    words.join(" ")
}

/// Lower-case digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_read_as_iproute2_takes_them() {
        let split = Algorithm::Split(("ecb(cipher_null)", 0, None), ("hmac(sha256)", 2, Some(128)));
        assert_eq!(words(&split.keyed(1)), "enc ecb(cipher_null) '' auth-trunc hmac(sha256) 0x0102 128");
    }
}
