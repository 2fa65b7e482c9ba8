//! A record in words: one line for people, one object for programs.

use super::frame::Frame;
use crate::breakdown;
use crate::ip::show;
use crate::protocol::{DropRecord, to_hex};
use crate::views::kernel_counts;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use uvti_core::reason::{Reason, Row};
use uvti_core::xfrm::Mark;
use uvti_dataplane::account::{PolicyName, SaName};

/// `TIME DEVICE REASON worker N [KERNEL COUNTERS] sa … policy …: PACKET`, with the time of the zone.
pub(super) fn line(record: &DropRecord, zone: &TimeZone) -> String {
    let DropRecord { device, reason, worker, .. } = record;
    let time = timestamp(record.time).to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M:%S.%6f");
    let mut line = format!("{time} {device} {reason} worker {worker} [{}]", counters(record));
    for part in [sa(record), policy(record)].into_iter().flatten() {
        line.push(' ');
        line.push_str(&part);
    }
    format!("{line}: {}", Frame::of(record).line())
}

/// A record as a JSON object.
pub(super) fn object(record: &DropRecord) -> Value {
    let frame = Frame::of(record);
    let mark = |m: Mark| (!m.is_unset()).then(|| show::mark(m));
    let sa = |s: &SaName| {
        let SaName { id, reqid } = s;
        json!({ "dst": id.dst, "spi": id.spi.to_string(), "reqid": reqid, "mark": mark(id.mark) })
    };
    let policy = |p: &PolicyName| {
        let PolicyName { index, dir, priority, mark: m, if_id, sel } = p;
        let mut selector = String::new();
        show::selector(&mut selector, sel);
        json!({
            "index": index, "dir": dir.name(), "priority": priority, "mark": mark(*m),
            "if_id": (*if_id != 0).then(|| format!("{if_id:#x}")), "selector": selector.trim_end(),
        })
    };
    json!({
        "time": timestamp(record.time).to_string(),
        "device": record.device,
        "reason": record.reason,
        "worker": record.worker,
        "number": record.nth,
        "kernel_counts": row(record).map(|row| kernel_counts(row, record.kind)),
        "sa": record.sa.as_ref().map(sa),
        "policy": record.policy.as_ref().map(policy),
        "summary": frame.line(),
        "len": frame.len,
        "packet": to_hex(&frame.bytes),
    })
}

/// The comment on the packet in a capture: a line each for what there is to say.
pub(super) fn comment(record: &DropRecord) -> String {
    let meaning = row(record).map_or("", |r| r.meaning);
    let counters = Some(counters(record)).filter(|c| !c.is_empty()).unwrap_or_else(|| "nothing".into());
    let rebuilt = record.outer.map(|_| {
        "the outer header is rebuilt: addresses, TOS and ports are the packet's, TTL, ID and DF are not"
            .into()
    });
    let touched = is_decrypted(record).then(|| "what follows the IV is as decryption left it".into());
    let lines = [
        Some(format!("{}: {meaning}", record.reason)),
        Some(format!("a kernel counts: {counters}")),
        sa(record),
        policy(record),
        Some(format!("device {} worker {}", record.device, record.worker)),
        rebuilt,
        touched,
    ];
    lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

/// Whether an ESP packet was decrypted in place before it was refused: not all of its bytes are those that came.
fn is_decrypted(record: &DropRecord) -> bool {
    let reason = Reason::from_name(&record.reason);
    matches!(reason, Some(Reason::RxBadIcv | Reason::RxBadPadding | Reason::RxDummy))
}

/// `sa 198.51.100.2 spi 0x00000100 reqid 1 mark 0x1`.
fn sa(record: &DropRecord) -> Option<String> {
    record.sa.as_ref().map(|name| format!("sa {}", breakdown::sa(name)))
}

/// `policy index 9 dir out prio 0 src 10.1.0.0/16 dst 10.2.0.0/16 mark 0x1`.
fn policy(record: &DropRecord) -> Option<String> {
    record.policy.as_ref().map(|name| format!("policy {}", breakdown::policy(name)))
}

fn counters(record: &DropRecord) -> String {
    row(record).map(|row| kernel_counts(row, record.kind)).unwrap_or_default()
}

/// None if the dataplane has a reason that this program does not know.
fn row(record: &DropRecord) -> Option<&'static Row> {
    Reason::from_name(&record.reason).map(|r| r.row())
}

/// A time of nanoseconds since the Unix epoch.
pub(super) fn timestamp(nanoseconds: u64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{esp_record, record};
    use super::*;

    #[test]
    fn a_line_says_when_where_why_by_which_policy_and_what() {
        assert_eq!(
            line(&record(), &TimeZone::UTC),
            "2026-11-24 13:46:40.123456 vti0 tx_no_sa worker 1 [tx_errors, carrier, XfrmOutNoStates] \
             policy index 9 dir out prio 100 src 0.0.0.0/0 dst 10.2.0.0/16 mark 0x1: \
             10.1.0.2.40000 > 10.2.0.2.5000 UDP len 100"
        );
        assert_eq!(
            line(&esp_record(), &TimeZone::UTC),
            "2026-11-24 13:46:40.123456 vti0 rx_replay_duplicate worker 1 \
             [rx_errors, rx_dropped, XfrmInStateSeqError, SA replay] \
             sa 198.51.100.1 spi 0x00000200 reqid 1: \
             198.51.100.2 > 198.51.100.1 ESP spi 0x00000200 seq 7 len 120"
        );
    }

    #[test]
    fn a_comment_names_the_reason_its_meaning_and_what_moves() {
        let said = comment(&record());
        let mut lines = said.lines();
        assert!(lines.next().unwrap().starts_with("tx_no_sa: A policy matches, but no valid SA"), "{said}");
        assert_eq!(lines.next(), Some("a kernel counts: tx_errors, carrier, XfrmOutNoStates"));
        assert!(lines.next().unwrap().starts_with("policy index 9 dir out"), "{said}");
        assert_eq!(lines.next(), Some("device vti0 worker 1"));
        let said = comment(&esp_record());
        assert!(said.contains("spi 0x00000200") && said.contains("is rebuilt"), "{said}");
        let wiped = DropRecord { reason: "rx_bad_icv".into(), ..esp_record() };
        assert!(comment(&wiped).ends_with("as decryption left it"));
        let quiet = DropRecord { reason: "rx_keepalive".into(), ..record() };
        assert!(comment(&quiet).contains("a kernel counts: nothing"));
    }

    #[test]
    fn an_object_has_the_packet_with_its_outer_header() {
        let object = object(&esp_record());
        assert_eq!(object["time"], "2026-11-24T13:46:40.123456789Z");
        assert_eq!((&object["sa"]["spi"], &object["policy"]), (&json!("0x00000200"), &Value::Null));
        assert_eq!(object["packet"].as_str().unwrap().len(), 240);
    }
}
