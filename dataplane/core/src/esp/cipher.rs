//! Ciphers that want a MAC beside them: AES-CBC (RFC 3602), AES-CTR (RFC 3686), and none at all (RFC 2410).

use super::aead::Salt;
use super::alg::CipherKind;
use super::suite::{Aes, by_key_size};
use aes::cipher::{Array, Block, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, StreamCipherCore};
use ctr::{CtrCore, flavors::Ctr32BE};

/// A keyed cipher.
pub(super) trait Cipher: Send + Sync {
    /// Makes the explicit IV of the packet with this number, which never repeats.
    fn write_iv(&self, number: u64, iv: &mut [u8]);

    /// Encrypts in place; `None` for an IV or a text whose length is not this cipher's.
    fn encrypt(&self, iv: &[u8], text: &mut [u8]) -> Option<()>;

    /// Decrypts in place; `None` as above, and the text is as it was.
    fn decrypt(&self, iv: &[u8], text: &mut [u8]) -> Option<()>;
}

/// `None` for a key of a wrong length.
pub(super) fn new(kind: CipherKind, key: &[u8]) -> Option<Box<dyn Cipher>> {
    match kind {
        CipherKind::Null => key.is_empty().then(|| Box::new(Null) as Box<_>),
        CipherKind::Cbc => by_key_size!(key, Cbc),
        CipherKind::Ctr => {
            let (key, nonce) = key.split_last_chunk()?;
            by_key_size!(key, Ctr, Salt(*nonce))
        }
    }
}

/// What is there is left as it is.
struct Null;

impl Cipher for Null {
    fn write_iv(&self, _number: u64, _iv: &mut [u8]) {}

    fn encrypt(&self, _iv: &[u8], _text: &mut [u8]) -> Option<()> {
        Some(())
    }

    fn decrypt(&self, _iv: &[u8], _text: &mut [u8]) -> Option<()> {
        Some(())
    }
}

struct Cbc<A>(A);

impl<A: Aes> Cbc<A> {
    fn new(aes: A) -> Self {
        Self(aes)
    }
}

impl<A: Aes> Cipher for Cbc<A> {
    /// The number, encrypted: nobody without the key can tell the next one (NIST SP 800-38A appendix C).
    // kernel: crypto/echainiv.c
    fn write_iv(&self, number: u64, iv: &mut [u8]) {
        let mut block = Block::<A>::default();
        block[8..].copy_from_slice(&number.to_be_bytes());
        self.0.encrypt_block(&mut block);
        iv.copy_from_slice(&block);
    }

    fn encrypt(&self, iv: &[u8], text: &mut [u8]) -> Option<()> {
        let (blocks, []) = Array::slice_as_chunks_mut(text) else { return None };
        cbc::Encryptor::inner_iv_init(&self.0, iv.try_into().ok()?).encrypt_blocks(blocks);
        Some(())
    }

    fn decrypt(&self, iv: &[u8], text: &mut [u8]) -> Option<()> {
        let (blocks, []) = Array::slice_as_chunks_mut(text) else { return None };
        cbc::Decryptor::inner_iv_init(&self.0, iv.try_into().ok()?).decrypt_blocks(blocks);
        Some(())
    }
}

struct Ctr<A> {
    aes: A,
    nonce: Salt,
}

impl<A: Aes> Ctr<A> {
    fn new(aes: A, nonce: Salt) -> Self {
        Self { aes, nonce }
    }
}

impl<A: Aes> Cipher for Ctr<A> {
    /// kernel: crypto/seqiv.c
    fn write_iv(&self, number: u64, iv: &mut [u8]) {
        iv.copy_from_slice(&number.to_be_bytes());
    }

    /// RFC 3686 §4: nonce, IV, and a counter that starts at 1.
    fn encrypt(&self, iv: &[u8], text: &mut [u8]) -> Option<()> {
        count(&self.aes, self.nonce.nonce(iv)?, 1, text);
        Some(())
    }

    fn decrypt(&self, iv: &[u8], text: &mut [u8]) -> Option<()> {
        self.encrypt(iv, text)
    }
}

/// AES in counter mode, from this counter on.
#[inline]
pub(super) fn count<A: Aes>(aes: &A, nonce: [u8; 12], counter: u32, text: &mut [u8]) {
    let mut first = [0; 16];
    first[..12].copy_from_slice(&nonce);
    first[12..].copy_from_slice(&counter.to_be_bytes());
    let stream: CtrCore<&A, Ctr32BE> = CtrCore::inner_iv_init(aes, &first.into());
    stream.apply_keystream_partial(text.into());
}
