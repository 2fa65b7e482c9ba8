//! A line of the journal: an SA, and how far it is.

use sha2::{Digest, Sha256};
use std::fmt;
use std::net::IpAddr;
use uvti_core::xfrm::{Fingerprint, Spi};

/// How far an SA is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) fingerprint: Fingerprint,
    /// For whoever reads the file; the fingerprint alone counts.
    pub(super) dst: IpAddr,
    pub(super) spi: Spi,
    /// No number above this one was sent.
    pub(super) sent: u64,
    /// The highest number received that was authentic.
    pub(super) received: u64,
    /// Random part of its IVs.
    pub(super) salt: u64,
}

impl Record {
    /// Reads a line, without its end.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (fields, check) = line.rsplit_once(' ')?;
        if check != checksum(fields) {
            return None;
        }
        let words: Vec<&str> = fields.split(' ').collect();
        let [print, dst, spi, sent, received, salt] = words.try_into().ok()?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let mut fingerprint = [0; 32];
        if print.len() != 64 || !print.is_ascii() {
            return None;
        }
        for (i, byte) in fingerprint.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&print[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(Self {
            fingerprint: Fingerprint(fingerprint),
            dst: dst.parse().ok()?,
            spi: Spi(hex(spi.strip_prefix("0x")?)?.try_into().ok()?),
            sent: sent.parse().ok()?,
            received: received.parse().ok()?,
            salt: hex(salt)?,
        })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fingerprint, dst, spi, sent, received, salt } = self;
        let fields = format!("{fingerprint:?} {dst} {spi} {sent} {received} {salt:016x}");
        write!(f, "{fields} {}", checksum(&fields))
    }
}

/// Tells what was written from what a broken disk makes of it, not from what somebody else wrote.
fn checksum(fields: &str) -> String {
    Sha256::digest(fields)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> Record {
        let dst = "198.51.100.2".parse().unwrap();
        Record {
            fingerprint: Fingerprint([7; 32]),
            dst,
            spi: Spi(0x100),
            sent: 1 << 40,
            received: 9,
            salt: 5,
        }
    }

    #[test]
    fn reads_what_it_wrote() {
        let line = record().to_string();
        assert!(line.contains(" 198.51.100.2 0x00000100 1099511627776 9 0000000000000005 "), "{line}");
        assert_eq!(Record::parse(&line), Some(record()));
    }

    proptest! {
        #[test]
        fn any_change_is_noticed(at in 0usize..150, with in "[ -~]") {
            let mut line = record().to_string();
            let at = at % line.len();
            line.replace_range(at..=at, &with);
            prop_assume!(line != record().to_string());
            prop_assert_eq!(Record::parse(&line), None);
        }

        #[test]
        fn any_text_is_harmless(line in ".*") {
            let _ = Record::parse(&line);
            let _ = Record::parse(&format!("{line} {}", checksum(&line)));
        }
    }
}
