//! What the control socket carries of recorded drops.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use uvti_core::device::LinkKind;
use uvti_dataplane::account::{Contents, PolicyName, SaName};

/// Which recorded packets are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropsQuery {
    /// Of this reason only.
    pub reason: Option<String>,
    /// Those behind the places that an earlier [`DropsPage`] reached; empty is from the start.
    pub reached: Vec<u64>,
    /// If there are none, wait a moment for one.
    pub wait: bool,
}

/// Some recorded packets, and where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropsPage {
    /// By worker, and oldest first.
    pub records: Vec<DropRecord>,
    /// By worker: the place reached.
    pub reached: Vec<u64>,
    /// Whether there are more by now.
    pub more: bool,
    /// Packets that were not recorded because somebody was reading at that moment, since the start.
    pub skipped: u64,
}

/// A dropped packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropRecord {
    /// When, nanoseconds since the Unix epoch.
    pub time: u64,
    /// Who dropped it.
    pub worker: u16,
    /// Its place on the tape of its worker.
    pub seq: u64,
    /// Its number among those of its reason and worker; a gap is records that are gone.
    pub nth: u64,
    /// The device it was for; `-` for none.
    pub device: String,
    /// Its kind, by which a kernel counts.
    pub kind: Option<LinkKind>,
    /// Name of the reason.
    pub reason: String,
    /// The SA that had a part in it.
    pub sa: Option<SaName>,
    /// The policy that had a part in it.
    pub policy: Option<PolicyName>,
    /// The outer header that was taken off the packet, if it was not opened.
    pub outer: Option<OuterLabel>,
    /// Length of the whole packet, bytes.
    pub len: usize,
    /// The packet, or the beginning of it.
    #[serde(with = "hex")]
    pub packet: Contents,
}

/// An outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OuterLabel {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// TOS or traffic class.
    pub tos: u8,
    /// UDP source and destination port, if there was UDP.
    pub udp: Option<(u16, u16)>,
}

/// How many packets each reason dropped, bucket by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropHistory {
    /// Length of a bucket, nanoseconds.
    pub bucket: u64,
    /// How many buckets are remembered.
    pub buckets: u64,
    /// Number of the last one: its time since the Unix epoch, in buckets.
    pub last: u64,
    /// One row for each reason that has drops.
    pub rows: Vec<HistoryRow>,
}

/// The drops of one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// Name of the reason.
    pub reason: String,
    /// Number of the bucket and packets in it, oldest first; empty buckets are left out.
    pub packets: Vec<(u64, u64)>,
}

/// Bytes as hexadecimal text.
mod hex {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use uvti_dataplane::account::Contents;

    pub(super) fn serialize<S: Serializer>(bytes: &Contents, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::to_hex(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Contents, D::Error> {
        let text = String::deserialize(d)?;
        let digits = text.as_bytes().chunks(2).map(|pair| {
            let value = |c: &u8| char::from(*c).to_digit(16);
            let [high, low] = pair else { return None };
            Some((value(high)? << 4 | value(low)?) as u8)
        });
        digits.collect::<Option<_>>().map(Contents).ok_or_else(|| D::Error::custom("not hexadecimal"))
    }
}

/// Bytes in hexadecimal.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n & 15)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(*b)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_survives_the_wire_and_garbage_is_refused() {
        let record = crate::drops::testing::record();
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<DropRecord>(&text).unwrap(), record);
        for wrong in ["0g", "123", "+1", "ä"] {
            let text = text.replace(&to_hex(&record.packet), wrong);
            assert!(serde_json::from_str::<DropRecord>(&text).is_err(), "{wrong}");
        }
    }
}
