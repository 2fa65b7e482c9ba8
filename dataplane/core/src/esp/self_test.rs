//! Published answers for each algorithm, to be given before traffic is trusted to it.

use super::alg::{CipherKind, MacKind};
use super::{Crypter, Header, NextHeader, OpenError, cipher, mac, peek};
use crate::packet::Buf;
use crate::xfrm::{AlgAead, Algorithms, Key};

mod vectors;

/// An algorithm that does not do what its RFC says: a broken build or machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} fails its self-test: do not use this build on this machine, and report it")]
pub struct SelfTestFailed(pub &'static str);

/// A question with its published answer.
#[derive(Clone, Copy)]
struct Vector {
    /// The kernel's name.
    name: &'static str,
    /// Key, and salt or nonce.
    key: &'static [u8],
    known: Known,
}

#[derive(Clone, Copy)]
enum Known {
    /// Whole ESP packets of an AEAD. The ICV is cut to each of these lengths, bits.
    Packet {
        icv_bits: &'static [u32],
        seq: u64,
        esn: bool,
        next_header: u8,
        inner: &'static [u8],
        /// From the SPI on, with an ICV of 16 bytes.
        esp: &'static [u8],
    },
    /// A text and what a cipher makes of it.
    Cipher { kind: CipherKind, iv: &'static [u8], text: &'static [u8], sealed: &'static [u8] },
    /// A text and its MAC, whole.
    Mac { kind: MacKind, text: &'static [u8], mac: &'static [u8] },
}

/// Seals and opens what was published for each algorithm, and sees that a forgery is refused.
pub fn self_test() -> Result<(), SelfTestFailed> {
    run(vectors::VECTORS)
}

fn run(vectors: &[Vector]) -> Result<(), SelfTestFailed> {
    vectors.iter().try_for_each(|v| match v.passes() {
        Some(true) => Ok(()),
        _ => Err(SelfTestFailed(v.name)),
    })
}

impl Vector {
    fn passes(&self) -> Option<bool> {
        match self.known {
            Known::Packet { icv_bits, .. } => icv_bits
                .iter()
                .map(|bits| self.packet_passes(*bits))
                .try_fold(true, |all, one| Some(all && one?)),
            Known::Cipher { kind, iv, text, sealed } => {
                let cipher = cipher::new(kind, self.key)?;
                let mut bytes = text.to_vec();
                cipher.encrypt(iv, &mut bytes)?;
                let encrypted = bytes == sealed;
                cipher.decrypt(iv, &mut bytes)?;
                Some(encrypted && bytes == text)
            }
            Known::Mac { kind, text, mac } => {
                let keyed = mac::new(kind, self.key)?;
                // In two pieces, as a packet has several.
                let (head, tail) = text.split_at(text.len() / 2);
                let mut forged = mac.to_vec();
                *forged.last_mut()? ^= 1;
                let signed = keyed.sign(&[head, tail]).starts_with(mac);
                let cut = keyed.verify(&[head, tail], mac.get(..12)?);
                Some(signed && cut && keyed.verify(&[text], mac) && !keyed.verify(&[text], &forged))
            }
        }
    }

    fn packet_passes(&self, icv_bits: u32) -> Option<bool> {
        let Known::Packet { seq, esn, next_header, inner, esp, .. } = self.known else { return None };
        let aead = AlgAead { name: self.name.into(), key: Key::new(self.key.to_vec()), icv_bits };
        let crypter = Crypter::new(&Algorithms { aead: Some(aead), ..Algorithms::default() }).ok()?;
        let esp = esp.get(..esp.len() - 16 + icv_bits as usize / 8)?;
        let (spi, _) = peek(esp)?;
        let seq_hi = esn.then_some((seq >> 32) as u32);
        let mut buf = Buf::from_packet(inner);
        crypter.seal_again(&mut buf, Header { spi, seq, esn }, esp.get(8..16)?, next_header).ok()?;
        let sealed = buf.bytes() == esp;
        let opened = crypter.open(&mut buf, seq_hi) == Ok(NextHeader(next_header));
        let mut forged = Buf::from_packet(esp);
        *forged.bytes_mut().last_mut()? ^= 1;
        let refused = crypter.open(&mut forged, seq_hi) == Err(OpenError::BadIcv);
        Some(sealed && opened && buf.bytes() == inner && refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_passes() {
        assert_eq!(self_test(), Ok(()));
    }

    /// Each answer is really asked for: with a wrong byte planted in any of them, the algorithm is named.
    #[test]
    fn a_wrong_byte_is_noticed() {
        let spoilt = |bytes: &[u8], at: usize| -> &'static [u8] {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 1;
            bytes.leak()
        };
        for at in 0..vectors::VECTORS.len() {
            let mut all = vectors::VECTORS.to_vec();
            match &mut all[at].known {
                Known::Packet { esp, .. } => *esp = spoilt(esp, 30),
                Known::Cipher { sealed, .. } => *sealed = spoilt(sealed, 15),
                Known::Mac { mac, .. } => *mac = spoilt(mac, 19),
            }
            assert_eq!(run(&all), Err(SelfTestFailed(all[at].name)), "vector {at}");
        }
    }

    /// No algorithm that a state may name goes untested.
    #[test]
    fn every_name_has_a_vector() {
        for name in super::super::alg::tests::supported() {
            // Both are nothing at all.
            if ["ecb(cipher_null)", "digest_null"].contains(&name) {
                continue;
            }
            assert!(vectors::VECTORS.iter().any(|v| v.name == name), "{name}");
        }
    }
}
