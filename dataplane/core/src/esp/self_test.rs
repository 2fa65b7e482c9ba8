//! A published vector for each suite, to be run before traffic is trusted to them.

use super::{Crypter, Header, NextHeader, OpenError, peek};
use crate::packet::Buf;
use crate::xfrm::{AlgAead, Algorithms, Key};

/// A suite that does not do what its RFC says: a broken build or machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} fails its self-test: do not use this build on this machine, and report it")]
pub struct SelfTestFailed(pub &'static str);

struct Vector {
    /// The kernel's name.
    name: &'static str,
    /// Key and salt.
    keymat: &'static [u8],
    seq: u64,
    iv: u64,
    next_header: u8,
    inner: &'static [u8],
    /// From the SPI on.
    esp: &'static [u8],
}

/// Seals and opens a published packet with each suite, and sees that a forged one is refused.
pub fn self_test() -> Result<(), SelfTestFailed> {
    VECTORS.iter().try_for_each(Vector::check)
}

impl Vector {
    fn check(&self) -> Result<(), SelfTestFailed> {
        self.passes().filter(|passed| *passed).map(|_| ()).ok_or(SelfTestFailed(self.name))
    }

    fn passes(&self) -> Option<bool> {
        let aead = AlgAead { name: self.name.into(), key: Key::new(self.keymat.to_vec()), icv_bits: 128 };
        let crypter = Crypter::new(&Algorithms { aead: Some(aead), ..Algorithms::default() }).ok()?;
        let (spi, _) = peek(self.esp)?;
        let mut buf = Buf::from_packet(self.inner);
        crypter
            .seal(&mut buf, Header { spi, seq: self.seq, esn: false }, self.iv, self.next_header, 0)
            .ok()?;
        let sealed = buf.bytes() == self.esp;
        let opened = crypter.open(&mut buf, None) == Ok(NextHeader(self.next_header));
        let mut forged = Buf::from_packet(self.esp);
        *forged.bytes_mut().last_mut()? ^= 1;
        let refused = crypter.open(&mut forged, None) == Err(OpenError::BadIcv);
        Some(sealed && opened && buf.bytes() == self.inner && refused)
    }
}

/// Bytes from lower-case hexadecimal digits.
const fn hex<const N: usize>(digits: &str) -> [u8; N] {
    const fn nibble(digit: u8) -> u8 {
        if digit <= b'9' { digit - b'0' } else { digit - b'a' + 10 }
    }
    assert!(digits.len() == 2 * N);
    let (digits, mut bytes, mut i) = (digits.as_bytes(), [0; N], 0);
    while i < N {
        bytes[i] = nibble(digits[2 * i]) << 4 | nibble(digits[2 * i + 1]);
        i += 1;
    }
    bytes
}

/// draft-mcgrew-gcm-test-01 case 2, RFC 7634 appendix A.
const VECTORS: &[Vector] = &[
    Vector {
        name: "rfc4106(gcm(aes))",
        keymat: &hex("feffe9928665731c6d6a8f9467308308cafebabe") as &[u8; 20],
        seq: 10,
        iv: 0xfacedbaddecaf888,
        next_header: 1,
        inner: &hex(
            "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d00100000100000000000003736970\
             0963796265726369747902646b0000010001",
        ) as &[u8; 62],
        esp: &hex("0000a5f80000000afacedbaddecaf888deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d\
             114d2a5c3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd183b70d3aa8bc6ee4\
             c309e9d85a41ad4a") as &[u8; 96],
    },
    Vector {
        name: "rfc7539esp(chacha20,poly1305)",
        keymat: &hex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3") as &[u8; 36],
        seq: 5,
        iv: 0x1011121314151617,
        next_header: 4,
        inner: &hex(
            "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f\
             101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637",
        ) as &[u8; 84],
        esp: &hex("0102030400000005101112131415161724039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef\
             407ae5c614ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b50\
             2773f6fb94e664da9165b82829f641e076aaa8266b7fb0f7b11b369907e1ad43") as &[u8; 120],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_passes() {
        assert_eq!(self_test(), Ok(()));
    }

    #[test]
    fn a_wrong_byte_is_noticed() {
        for v in VECTORS {
            let mut esp = v.esp.to_vec();
            esp[30] ^= 1;
            let wrong = Vector { esp: esp.leak(), ..*v };
            assert_eq!(wrong.check(), Err(SelfTestFailed(v.name)));
        }
    }
}
