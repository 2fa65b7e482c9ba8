//! What was published: draft-mcgrew-gcm-test-01 (GCM cases 2, 7 and 9, GMAC), RFC 7634 appendix A, RFC 3602 §4 and NIST SP
//! 800-38A appendix F.2 (CBC), RFC 3686 §6 (CTR), RFC 2202 and RFC 4231 (HMAC).
//!
//! GCM's shorter ICVs are the first bytes of the whole one (NIST SP 800-38D §7.1).

use super::{Known, Vector};
use crate::esp::alg::{CipherKind, MacKind};

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

/// All questions that are asked at start.
pub(super) const VECTORS: &[Vector] = &[
    Vector {
        name: "rfc4106(gcm(aes))",
        key: &hex("feffe9928665731c6d6a8f9467308308cafebabe") as &[u8; 20],
        known: Known::Packet {
            icv_bits: &[64, 96, 128],
            seq: 10,
            esn: false,
            next_header: 1,
            inner: &hex(
                "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d00100000100000000000003736970\
             0963796265726369747902646b0000010001",
            ) as &[u8; 62],
            esp: &hex(
                "0000a5f80000000afacedbaddecaf888deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d\
             114d2a5c3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd183b70d3aa8bc6ee4\
             c309e9d85a41ad4a",
            ) as &[u8; 96],
        },
    },
    Vector {
        name: "rfc4106(gcm(aes))",
        key: &hex("feffe9928665731c6d6a8f9467308308feffe9928665731ccafebabe") as &[u8; 28],
        known: Known::Packet {
            icv_bits: &[64, 96, 128],
            seq: 10,
            esn: false,
            next_header: 1,
            inner: &hex("45000028a4ad4000400678800a01038f0a010612802306b8cb712602dd6bb03e501016d07568")
                as &[u8; 38],
            esp: &hex(
                "0000a5f80000000afacedbaddecaf888a5b1f8066029aea40e598b8122de02420938b3ab33f828e687b8858b\
             5bfbdbd0315b27452144cc7795457b9652037f5318027b5b4cd7a636",
            ) as &[u8; 72],
        },
    },
    Vector {
        name: "rfc4106(gcm(aes))",
        key: &hex("abbccddef00112233445566778899aababbccddef00112233445566778899aab73616c74") as &[u8; 36],
        known: Known::Packet {
            icv_bits: &[64, 96, 128],
            seq: 0x156f3126dd0db99b,
            esn: true,
            next_header: 1,
            inner: &hex("45080028732c00004006e9f90a0106120a01038f06b88023dd6bafbecb71260250101f646d54")
                as &[u8; 38],
            esp: &hex(
                "17405e67dd0db99b616e640169766563f2d69ecdbd5a0d5b8d5ef38bad4da58d1f278fde98ef67549d524a30\
             18d9a57ff4d3a31ce673119e451626c2415771e3b7eebca614c89b35",
            ) as &[u8; 72],
        },
    },
    Vector {
        name: "rfc4543(gcm(aes))",
        key: &hex("4c80cdefbb5d10da906ac73c3613a63422433c64") as &[u8; 20],
        known: Known::Packet {
            icv_bits: &[128],
            seq: 7,
            esn: false,
            next_header: 1,
            inner: &hex(
                "45000030da3a00008001df3bc0a80005c0a800010800c6cd020007006162636465666768696a6b6c6d6e6f70\
             71727374",
            ) as &[u8; 48],
            esp: &hex(
                "0000432100000007000000000000000045000030da3a00008001df3bc0a80005c0a800010800c6cd02000700\
             6162636465666768696a6b6c6d6e6f707172737401020201f2a9a836e155106aa8dcd618e4099aaa",
            ) as &[u8; 84],
        },
    },
    Vector {
        name: "rfc7539esp(chacha20,poly1305)",
        key: &hex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3") as &[u8; 36],
        known: Known::Packet {
            icv_bits: &[128],
            seq: 5,
            esn: false,
            next_header: 4,
            inner: &hex(
                "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f\
             101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637",
            ) as &[u8; 84],
            esp: &hex(
                "0102030400000005101112131415161724039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef\
             407ae5c614ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b50\
             2773f6fb94e664da9165b82829f641e076aaa8266b7fb0f7b11b369907e1ad43",
            ) as &[u8; 120],
        },
    },
    Vector {
        name: "cbc(aes)",
        key: &hex("0123456789abcdef0123456789abcdef") as &[u8; 16],
        known: Known::Cipher {
            kind: CipherKind::Cbc,
            iv: &hex("f4e765244f6407adf13dc1380f673f37") as &[u8; 16],
            text: &hex(
                "45000054090400004001f988c0a87b03c0a87bc808009f76a90a0100b49c083d02a2040008090a0b0c0d0e0f\
             101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363701020304\
             05060708090a0a04",
            ) as &[u8; 96],
            sealed: &hex(
                "773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a93013c1b0ea1a0cf70f8e4ecaec78ac53aad7a0f022b\
             859243c647752e94a859352b8a4d4d2decd136e5c177f132ad3fbfb2201ac9904c74ee0a109e0ca1e4dfe9d5\
             a100b842f1c22f0d",
            ) as &[u8; 96],
        },
    },
    Vector {
        name: "cbc(aes)",
        key: &hex("8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b") as &[u8; 24],
        known: Known::Cipher {
            kind: CipherKind::Cbc,
            iv: &hex("000102030405060708090a0b0c0d0e0f") as &[u8; 16],
            text: &hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51") as &[u8; 32],
            sealed: &hex("4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a") as &[u8; 32],
        },
    },
    Vector {
        name: "cbc(aes)",
        key: &hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4") as &[u8; 32],
        known: Known::Cipher {
            kind: CipherKind::Cbc,
            iv: &hex("000102030405060708090a0b0c0d0e0f") as &[u8; 16],
            text: &hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51") as &[u8; 32],
            sealed: &hex("f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d") as &[u8; 32],
        },
    },
    Vector {
        name: "rfc3686(ctr(aes))",
        key: &hex("7e24067817fae0d743d6ce1f32539163006cb6db") as &[u8; 20],
        known: Known::Cipher {
            kind: CipherKind::Ctr,
            iv: &hex("c0543b59da48d90b") as &[u8; 8],
            text: &hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f") as &[u8; 32],
            sealed: &hex("5104a106168a72d9790d41ee8edad388eb2e1efc46da57c8fce630df9141be28") as &[u8; 32],
        },
    },
    Vector {
        name: "rfc3686(ctr(aes))",
        key: &hex("16af5b145fc9f579c175f93e3bfb0eed863d06ccfdb7851500000048") as &[u8; 28],
        known: Known::Cipher {
            kind: CipherKind::Ctr,
            iv: &hex("36733c147d6d93cb") as &[u8; 8],
            text: &hex("53696e676c6520626c6f636b206d7367") as &[u8; 16],
            sealed: &hex("4b55384fe259c9c84e7935a003cbe928") as &[u8; 16],
        },
    },
    Vector {
        name: "rfc3686(ctr(aes))",
        key: &hex("776beff2851db06f4c8a0542c8696f6c6a81af1eec96b4d37fc1d689e6c1c10400000060") as &[u8; 36],
        known: Known::Cipher {
            kind: CipherKind::Ctr,
            iv: &hex("db5672c97aa8f0b2") as &[u8; 8],
            text: &hex("53696e676c6520626c6f636b206d7367") as &[u8; 16],
            sealed: &hex("145ad01dbf824ec7560863dc71e3e0c0") as &[u8; 16],
        },
    },
    Vector {
        name: "hmac(sha1)",
        key: b"Jefe",
        known: Known::Mac {
            kind: MacKind::Sha1,
            text: b"what do ya want for nothing?",
            mac: &hex("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79") as &[u8; 20],
        },
    },
    Vector {
        name: "hmac(sha256)",
        key: b"Jefe",
        known: Known::Mac {
            kind: MacKind::Sha256,
            text: b"what do ya want for nothing?",
            mac: &hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843") as &[u8; 32],
        },
    },
    Vector {
        name: "hmac(sha384)",
        key: b"Jefe",
        known: Known::Mac {
            kind: MacKind::Sha384,
            text: b"what do ya want for nothing?",
            mac: &hex(
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ec\
             fab21649",
            ) as &[u8; 48],
        },
    },
    Vector {
        name: "hmac(sha512)",
        key: b"Jefe",
        known: Known::Mac {
            kind: MacKind::Sha512,
            text: b"what do ya want for nothing?",
            mac: &hex(
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65\
             f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ) as &[u8; 64],
        },
    },
];
