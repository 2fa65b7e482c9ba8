//! ESP by hand, on bare ring: packets to inject, and an independent reader of what uvti or the kernel sends.
//!
//! Written apart from uvti's own ESP so that both cannot share a mistake.

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};

/// An AEAD suite of ESP with an 8-byte IV, a 4-byte salt and a 16-byte ICV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// AES-GCM with a 128-bit key (RFC 4106).
    Gcm128,
    /// AES-GCM with a 256-bit key (RFC 4106).
    Gcm256,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha,
}

impl Suite {
    /// All of them.
    pub const ALL: [Suite; 3] = [Suite::Gcm128, Suite::Gcm256, Suite::ChaCha];

    /// A short name.
    pub fn name(self) -> &'static str {
        match self {
            Suite::Gcm128 => "gcm128",
            Suite::Gcm256 => "gcm256",
            Suite::ChaCha => "chacha",
        }
    }

    /// The keys of what the left and the right gateway of a tunnel send.
    pub fn keys(self) -> [Key; 2] {
        [Key::counting(self, 0x01), Key::counting(self, 0x81)]
    }

    fn kernel_name(self) -> &'static str {
        match self {
            Suite::Gcm128 | Suite::Gcm256 => "rfc4106(gcm(aes))",
            Suite::ChaCha => "rfc7539esp(chacha20,poly1305)",
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Suite::Gcm128 => &AES_128_GCM,
            Suite::Gcm256 => &AES_256_GCM,
            Suite::ChaCha => &CHACHA20_POLY1305,
        }
    }
}

/// The key of one SA.
#[derive(Debug)]
pub struct Key {
    suite: Suite,
    material: Vec<u8>,
    cipher: LessSafeKey,
    salt: [u8; 4],
}

/// What was in an ESP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// SPI.
    pub spi: u32,
    /// Sequence number.
    pub sequence: u32,
    /// Initialisation vector.
    pub iv: u64,
    /// The padding, without its length byte.
    pub padding: Vec<u8>,
    /// Next header.
    pub next_header: u8,
    /// The packet inside.
    pub inner: Vec<u8>,
}

impl Key {
    /// A key whose bytes count up from `first`, the salt last, as iproute2 writes it.
    pub fn counting(suite: Suite, first: u8) -> Key {
        let length = suite.algorithm().key_len() + 4;
        let material: Vec<u8> = (0..length).map(|i| first.wrapping_add(i as u8)).collect();
        let (key, salt) = material.split_last_chunk::<4>().expect("there are more than 4 bytes");
        let cipher = UnboundKey::new(suite.algorithm(), key).expect("the length is the algorithm's");
        Key { suite, cipher: LessSafeKey::new(cipher), salt: *salt, material }
    }

    /// The algorithm as `ip xfrm state add` takes it.
    pub fn ip_words(&self) -> String {
        let hex: String = self.material.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("aead {} 0x{hex} 128", self.suite.kernel_name())
    }

    /// Seals a packet with the padding of RFC 4303 §2.4; the IV is the sequence number.
    pub fn seal(&self, spi: u32, sequence: u32, inner: &[u8], next_header: u8) -> Vec<u8> {
        let padding: Vec<u8> =
            (1..=(inner.len() + 2).next_multiple_of(4) - inner.len() - 2).map(|i| i as u8).collect();
        let mut text = [inner, &padding, &[padding.len() as u8, next_header]].concat();
        let header = [spi.to_be_bytes(), sequence.to_be_bytes()].concat();
        let iv = u64::from(sequence).to_be_bytes();
        self.cipher
            .seal_in_place_append_tag(self.nonce(iv), Aad::from(&header), &mut text)
            .expect("a packet is shorter than the cipher's limit");
        [header, iv.to_vec(), text].concat()
    }

    /// Opens an ESP packet; `None` when it is not authentic or malformed.
    pub fn open(&self, packet: &[u8]) -> Option<Opened> {
        let (header, rest) = packet.split_first_chunk::<8>()?;
        let (iv, sealed) = rest.split_first_chunk::<8>()?;
        let mut text = sealed.to_vec();
        let text = self.cipher.open_in_place(self.nonce(*iv), Aad::from(header), &mut text).ok()?;
        let (rest, &[pad_length, next_header]) = text.split_last_chunk::<2>()?;
        let (inner, padding) = rest.split_at_checked(rest.len().checked_sub(usize::from(pad_length))?)?;
        Some(Opened {
            spi: u32::from_be_bytes(*header.first_chunk()?),
            sequence: u32::from_be_bytes(*header.last_chunk()?),
            iv: u64::from_be_bytes(*iv),
            padding: padding.to_vec(),
            next_header,
            inner: inner.to_vec(),
        })
    }

    fn nonce(&self, iv: [u8; 8]) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..].copy_from_slice(&iv);
        Nonce::assume_unique_for_key(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_and_a_changed_bit_does_not() {
        for suite in Suite::ALL {
            let key = Key::counting(suite, 1);
            let mut packet = key.seal(0x100, 7, &[0x45; 41], 4);
            let opened = key.open(&packet).unwrap();
            assert_eq!((opened.spi, opened.sequence, opened.next_header), (0x100, 7, 4));
            assert_eq!((opened.inner.len(), opened.padding.as_slice()), (41, &[1][..]));
            *packet.last_mut().unwrap() ^= 1;
            assert_eq!(key.open(&packet), None, "{}", suite.name());
        }
    }

    #[test]
    fn a_key_reads_as_iproute2_takes_it() {
        let words = Key::counting(Suite::Gcm128, 1).ip_words();
        assert_eq!(words, "aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128");
    }
}
