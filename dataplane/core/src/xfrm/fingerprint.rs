//! What two runs of the program know an SA by, without its key.

use super::{Key, StateSpec};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use std::net::IpAddr;
use zeroize::Zeroizing;

/// Tells SAs with different keys, destinations or SPIs apart. Of the key it says no more than a packet of the SA does,
/// on which a guess can be tried as well.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl StateSpec {
    /// Of destination, SPI and all keys. The names of algorithms do not count, for one has several; nor do marks, for
    /// with the same key they would be a way to the same numbers again.
    pub fn fingerprint(&self) -> Fingerprint {
        let algs = &self.algs;
        let keys: [Option<&Key>; 3] = [
            algs.aead.as_ref().map(|a| &a.key),
            algs.enc.as_ref().map(|a| &a.key),
            algs.auth.as_ref().map(|a| &a.key),
        ];
        let mut secret = Zeroizing::new(Vec::with_capacity(3 * (8 + Key::MAX)));
        for key in keys {
            let bytes = key.map_or(&[][..], Key::bytes);
            secret.extend((bytes.len() as u64).to_be_bytes());
            secret.extend(bytes);
        }
        let mut mac = match Hmac::<Sha256>::new_from_slice(&secret) {
            Ok(mac) => mac,
            Err(_) => unreachable!("HMAC takes keys of any length"),
        };
        mac.update(b"uvti sequence numbers");
        match self.dst {
            IpAddr::V4(a) => mac.update(&a.octets()),
            IpAddr::V6(a) => mac.update(&a.octets()),
        }
        mac.update(&self.spi.0.to_be_bytes());
        mac.update(&[self.proto.number()]);
        Fingerprint(mac.finalize().into_bytes().into())
    }
}

#[cfg(test)]
mod tests {
    use crate::vti::testing::{Lab, OUT};
    use crate::xfrm::{AlgAead, Algorithms, Key, Mark, Spi};

    #[test]
    fn tells_keys_destinations_and_spis_apart_and_nothing_else() {
        let spec = Lab::vti().states[OUT].clone();
        let print = spec.fingerprint();
        let with_key = |name: &str, key: Vec<u8>| {
            let aead = AlgAead { name: name.into(), key: Key::new(key), icv_bits: 128 };
            let algs = Algorithms { aead: Some(aead), ..Algorithms::default() };
            crate::xfrm::StateSpec { algs, ..spec.clone() }.fingerprint()
        };
        let mut other = spec.clone();
        other.spi = Spi(spec.spi.0 + 1);
        assert_ne!(other.fingerprint(), print);
        let mut other = spec.clone();
        other.dst = "192.0.2.77".parse().expect("an address");
        assert_ne!(other.fingerprint(), print);
        assert_ne!(with_key("a", vec![1; 20]), with_key("a", vec![2; 20]));
        assert_ne!(with_key("a", vec![0; 20]), with_key("a", vec![0; 36]));
        assert_eq!(with_key("a", vec![1; 20]), with_key("b", vec![1; 20]));
        let mut same = spec.clone();
        (same.mark, same.reqid, same.replay.oseq) = (Mark::exact(7), 77, 5);
        assert_eq!(same.fingerprint(), print);
    }
}
