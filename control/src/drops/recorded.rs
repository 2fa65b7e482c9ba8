//! The dataplane's side of `uvti drops`: what the engine recorded, as the control socket carries it.

use crate::protocol::{DropHistory, DropRecord, DropsPage, DropsQuery, HistoryRow, OuterLabel};
use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uvti_core::device::{DeviceId, LinkKind};
use uvti_core::packet::Outer;
use uvti_core::reason::Reason;
use uvti_core::tables::Snapshot;
use uvti_dataplane::account::{BUCKET, BUCKETS, Page, PolicyName, Record};
use uvti_dataplane::engine::Engine;

/// Records a page: 5 MB of hexadecimal digits at most, well below the longest message.
const PAGE: usize = 1024;
/// How long a question for new records waits for one: a client that went away is noticed that late.
const WAIT: Duration = Duration::from_secs(1);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);

/// Answers a question for records. A reader that is slow asks seldom: nothing is kept for it here.
pub(crate) fn page(engine: &Engine, query: &DropsQuery) -> DropsPage {
    let reason = query.reason.as_deref().and_then(Reason::from_name);
    let mut page = look(engine, query, reason);
    let mut left = if query.wait { WAIT } else { Duration::ZERO };
    while page.records.is_empty() && !left.is_zero() && !engine.stopped() {
        sleep(LOOK);
        left = left.saturating_sub(LOOK);
        page = look(engine, query, reason);
    }
    let (names, tables) = (engine.device_names(), engine.tables());
    DropsPage {
        records: page.records.into_iter().map(|r| record(r, &names, &tables)).collect(),
        reached: page.reached,
        more: page.more,
        skipped: engine.flight().skipped(),
    }
}

fn look(engine: &Engine, query: &DropsQuery, reason: Option<Reason>) -> Page {
    match (&query.reason, reason) {
        // A reason of another version of uvti: there are none.
        (Some(_), None) => Page { reached: query.reached.clone(), ..Page::default() },
        _ => engine.flight().after(&query.reached, reason, PAGE),
    }
}

/// Answers a question for the history.
pub(crate) fn history(engine: &Engine) -> DropHistory {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let last = now / BUCKET;
    let row = |(reason, packets): (Reason, BTreeMap<u64, u64>)| HistoryRow {
        reason: reason.to_string(),
        packets: packets.into_iter().collect(),
    };
    DropHistory {
        bucket: BUCKET,
        buckets: BUCKETS as u64,
        last,
        rows: engine.flight().history(last).into_iter().map(row).collect(),
    }
}

fn record(r: Record, names: &BTreeMap<DeviceId, String>, tables: &Snapshot) -> DropRecord {
    // One that is gone was a VTI, as most are.
    let kind = tables.devices.get(r.device).map_or(LinkKind::Vti, |device| device.spec.kind);
    DropRecord {
        time: r.time,
        worker: r.worker,
        seq: r.seq,
        nth: r.nth,
        device: names.get(&r.device).cloned().unwrap_or_else(|| "-".to_owned()),
        kind: (r.device != DeviceId::NONE).then_some(kind),
        reason: r.reason.to_string(),
        sa: r.sa,
        policy: r.policy.as_deref().map(PolicyName::from),
        outer: r.outer.map(|Outer { src, dst, tos, udp }| OuterLabel {
            src,
            dst,
            tos,
            udp: udp.map(|ports| (ports.src, ports.dst)),
        }),
        len: r.len,
        packet: r.packet,
    }
}
