//! Every view adds up to all drops, and reads as it should.

use super::*;
use proptest::prelude::*;
use std::cell::RefCell;
use std::sync::Arc;
use uvti_core::vti::Drop;
use uvti_core::vti::testing::Lab;
use uvti_core::xfrm::{Mark, Spi, StateSpec};
use uvti_dataplane::account::{
    Account, Attribution, Books, Collector, DeviceCounters, Dropped, FlightRecorder, Flip,
};

const DEVICES: [DeviceId; 3] = [DeviceId::NONE, DeviceId(10), DeviceId(11)];
const REASONS: [Reason; 3] = [Reason::TxNoSa, Reason::TxTooBig, Reason::RxReplayOld];

/// `n` packets dropped on a worker, of a device, for a reason, with the SA and policy of these positions.
type Case = (usize, usize, usize, Option<usize>, Option<usize>, u64);

/// Three SAs and policies each way.
fn lab() -> Lab {
    let mut lab = Lab::vti();
    for i in 1..3 {
        let mark = Mark { value: i, mask: 0xff };
        lab.states.push(StateSpec { spi: Spi(0x1000 + i), mark, ..lab.states[0].clone() });
        let mut policy = lab.policies[0].clone();
        policy.mark.value += i;
        lab.policies.push(policy);
    }
    lab
}

/// What two workers with `rows` rows each would have counted.
fn count(tables: &Snapshot, rows: usize, cases: &[Case]) -> Drops {
    let flips: Vec<_> = (0..2).map(|_| Arc::new(Flip::default())).collect();
    let mut ledgers = FlightRecorder::new(flips.len(), 0).ledgers(|| Attribution::new(rows));
    let shelves = ledgers.iter().map(|l| l.attribution.shelf()).collect();
    let mut collector = Collector::new(flips.clone(), shelves, rows);
    let counters: Vec<Arc<DeviceCounters>> = DEVICES.map(|id| collector.add_device(id)).into();
    let (sas, policies) = (tables.states.newest_first(), tables.policies.newest_first());
    for (worker, device, reason, sa, policy, packets) in cases.iter().copied() {
        let (sa, policy) = (sa.map(|i| sas[i].clone()), policy.map(|i| policies[i].clone()));
        let drop = Drop { sa, policy, ..REASONS[reason].into() };
        Books { worker, bank: 0 }.drop(&counters[device], drop.reason, packets);
        let device = DEVICES[device];
        ledgers[worker].dropped(&Dropped { device, drop: &drop, packet: &[], packets, outer: None });
    }
    let ledgers = RefCell::new(ledgers);
    let turn = |worker: usize| {
        ledgers.borrow_mut()[worker].turn_page();
        flips[worker].open(1);
    };
    collector.collect(turn).unwrap();
    let names = [(DEVICES[1], "vti0".to_owned()), (DEVICES[2], "vti1".to_owned())].into();
    Drops { rows: collector.rows(), attributed: collector.attributed(), names }
}

proptest! {
    #[test]
    fn all_views_add_up_to_the_same(
        rows in 0usize..8,
        cases in prop::collection::vec(
            (0usize..2, 0usize..3, 0usize..3, prop::option::of(0usize..4), prop::option::of(0usize..4), 1u64..9),
            0..60,
        ),
    ) {
        let tables = lab().tables();
        let drops = count(&tables, rows, &cases);
        let all: u64 = cases.iter().map(|c| c.5).sum();
        for by in By::value_variants() {
            let breakdown = Breakdown::new(&drops, *by, &tables);
            prop_assert_eq!(breakdown.total, all, "{:?}", by);
            prop_assert_eq!(breakdown.lines.iter().map(|l| l.packets).sum::<u64>(), all);
            for line in &breakdown.lines {
                prop_assert_eq!(line.parts.iter().map(|p| p.1).sum::<u64>(), line.packets);
            }
            prop_assert!(breakdown.lines.is_sorted_by_key(|l| Reverse(l.packets)));
        }
    }
}

/// Newest first: SAs 0x1002, 0x1001, 0x200, 0x100; policies with mark 3, 2 and, in and out, 1.
const CASES: [Case; 6] = [
    (0, 1, 0, None, Some(3), 31),
    (0, 1, 1, Some(3), Some(3), 8),
    (1, 1, 1, Some(0), Some(0), 3),
    (1, 0, 2, Some(2), None, 5),
    (1, 2, 0, None, Some(1), 2),
    (1, 2, 0, None, None, 1),
];

#[test]
fn tables_for_people() {
    let before = lab().tables();
    // The SA 0x1002 is deleted, vti1 never came to be; the SA 0x1001 has drops of nobody's, but losses.
    let drops = count(&before, 5, &CASES);
    let mut after = Snapshot::clone(&before);
    after.remove_state(before.states.newest_first()[0]);
    let lossy = after.states.iter().find(|sa| sa.spec.spi == Spi(0x1001)).unwrap();
    lossy.run.add_lost(7);
    let mut texts = String::new();
    for by in By::value_variants() {
        texts += &text(&Breakdown::new(&drops, *by, &after));
        texts.push('\n');
    }
    assert_eq!(texts, include_str!("golden.txt"));
    let nothing = Drops { rows: vec![], attributed: vec![], names: BTreeMap::new() };
    assert_eq!(text(&Breakdown::new(&nothing, By::Policy, &before)), "no drops\n");
}

#[test]
fn lines_for_machines() {
    let tables = lab().tables();
    let drops = count(&tables, 5, &CASES[2..3]);
    let json = serde_json::to_value(Breakdown::new(&drops, By::Sa, &tables)).unwrap();
    let id = serde_json::json!({
        "dst": "198.51.100.2", "spi": 0x1002, "proto": "Esp", "mark": { "value": 2, "mask": 255 },
    });
    let line = serde_json::json!({
        "subject": { "sa": { "name": { "id": id, "reqid": 1 }, "deleted": false } },
        "packets": 3,
        "parts": [["tx_too_big", 3]],
        "lost": 0,
    });
    assert_eq!(json, serde_json::json!({ "by": "sa", "lines": [line], "total": 3 }));
}

#[test]
fn a_view_longer_than_an_answer_is_folded_and_still_adds_up() {
    let line = |i: usize| Line {
        subject: if i == 5 { Subject::Other } else { Subject::Worker(i) },
        packets: 1,
        parts: vec![("tx_no_sa".to_owned(), 1)],
        lost: None,
    };
    let mut lines: Vec<_> = (0..MAX_LINES + 10).map(line).collect();
    fold(&mut lines);
    assert!(lines.len() <= MAX_LINES);
    assert_eq!(lines.iter().map(|l| l.packets).sum::<u64>(), MAX_LINES as u64 + 10);
    let other: Vec<_> = lines.iter().filter(|l| l.subject == Subject::Other).collect();
    assert_eq!((other.len(), other[0].packets), (1, 12));
    assert_eq!(other[0].parts, [("tx_no_sa".to_owned(), 12)]);
}
