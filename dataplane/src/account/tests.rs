//! What is attributed against the dense totals and against a model, over any drops and flips.

use super::*;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use uvti_core::device::DeviceId;
use uvti_core::reason::Reason;
use uvti_core::tables::Policy;
use uvti_core::vti::Drop;
use uvti_core::vti::testing::Lab;
use uvti_core::xfrm::{Sa, Spi};

const REASONS: [Reason; 3] = [Reason::TxNoSa, Reason::TxTooBig, Reason::RxReplayOld];

/// One worker's side and the collector's.
struct Bench {
    books: Books,
    flip: Arc<Flip>,
    devices: Vec<(DeviceId, Arc<DeviceCounters>)>,
    ledger: Ledger,
}

impl Bench {
    fn new(rows: usize) -> (Self, Collector) {
        let flip = Arc::new(Flip::default());
        let ledger = FlightRecorder::new(1, 1).ledgers(|| Attribution::new(rows)).remove(0);
        let mut collector = Collector::new(vec![flip.clone()], vec![ledger.attribution.shelf()], rows);
        let devices = (0..3).map(DeviceId).map(|id| (id, collector.add_device(id))).collect();
        let bench = Self { books: Books { worker: 0, bank: 0 }, flip, devices, ledger };
        (bench, collector)
    }

    fn drop(&mut self, device: usize, drop: &Drop, packets: u64) {
        let (device, counters) = &self.devices[device];
        self.books.drop(counters, drop.reason, packets);
        self.ledger.dropped(&Dropped { device: *device, drop, packet: &[], packets, outer: None });
    }

    /// The worker between two bursts.
    fn boundary(&mut self) {
        self.ledger.burst_done();
        if let Some(bank) = self.flip.asked() {
            self.ledger.turn_page();
            self.flip.open(bank);
            self.books.bank = bank;
        }
    }
}

fn collect(bench: &mut Bench, collector: &mut Collector) {
    let bench = RefCell::new(bench);
    collector.collect(|_| bench.borrow_mut().boundary()).unwrap();
}

/// Sums by device and reason.
fn dense(collector: &Collector) -> BTreeMap<(DeviceId, Reason), u64> {
    let cells = |row: Row| REASONS.map(|reason| ((row.device, reason), row.cells.dropped(reason)));
    collector.rows().into_iter().flat_map(cells).filter(|(_, n)| *n > 0).collect()
}

fn attributed(collector: &Collector) -> BTreeMap<(DeviceId, Reason), u64> {
    let mut sums = BTreeMap::new();
    for row in collector.attributed() {
        *sums.entry((row.key.device, row.key.reason)).or_default() += row.packets;
    }
    sums
}

/// SAs and policies, all different.
fn parties() -> (Vec<Arc<Sa>>, Vec<Arc<Policy>>) {
    let mut lab = Lab::vti();
    for i in 1..5 {
        lab.states.push(uvti_core::xfrm::StateSpec { spi: Spi(0x100 + i), ..lab.states[0].clone() });
        let mut policy = lab.policies[0].clone();
        policy.mark.value += i;
        lab.policies.push(policy);
    }
    let tables = lab.tables();
    let own = |list: Vec<&Arc<Sa>>| list.into_iter().cloned().collect();
    (own(tables.states.newest_first()), tables.policies.newest_first().into_iter().cloned().collect())
}

#[derive(Clone, Debug)]
enum Event {
    Drop { device: usize, reason: Reason, sa: Option<usize>, policy: Option<usize>, packets: u64 },
    Boundary,
    Look,
}

fn events() -> impl Strategy<Value = Event> {
    let party = || prop::option::of(0usize..5);
    let drop = (0usize..3, prop::sample::select(&REASONS[..]), party(), party(), 1u64..4).prop_map(
        |(device, reason, sa, policy, packets)| Event::Drop { device, reason, sa, policy, packets },
    );
    prop_oneof![8 => drop, 2 => Just(Event::Boundary), 1 => Just(Event::Look)]
}

proptest! {
    /// However few rows there are, at every look both tables add up to the same for each device and reason, and the
    /// rows are no more than they may be.
    #[test]
    fn attribution_adds_up_to_the_totals(
        rows in 0usize..12,
        events in prop::collection::vec(events(), 0..200),
    ) {
        let (sas, policies) = parties();
        let (mut bench, mut collector) = Bench::new(rows);
        let mut model: BTreeMap<(DeviceId, Reason), u64> = BTreeMap::new();
        for event in events.into_iter().chain([Event::Look]) {
            match event {
                Event::Drop { device, reason, sa, policy, packets } => {
                    let (sa, policy) = (sa.map(|i| sas[i].clone()), policy.map(|i| policies[i].clone()));
                    bench.drop(device, &Drop { reason, sa, policy, mtu: 0 }, packets);
                    *model.entry((DeviceId(device as u32), reason)).or_default() += packets;
                }
                Event::Boundary => bench.boundary(),
                Event::Look => {
                    collect(&mut bench, &mut collector);
                    prop_assert_eq!(&dense(&collector), &model);
                    prop_assert_eq!(&attributed(&collector), &model);
                    let known = collector.attributed().iter().filter(|r| r.key.party != Party::Other).count();
                    prop_assert!(known <= rows, "{known} rows of {rows}");
                }
            }
        }
    }

    /// With room for all of them every drop stands at its own SA and policy.
    #[test]
    fn drops_stand_where_they_belong(events in prop::collection::vec(events(), 0..200)) {
        let (sas, policies) = parties();
        let (mut bench, mut collector) = Bench::new(1000);
        let mut model = BTreeMap::new();
        for event in events.into_iter().chain([Event::Look]) {
            match event {
                Event::Drop { device, reason, sa, policy, packets } => {
                    let key = (device as u32, reason, sa.map(|i| sas[i].spec.spi.0), policy.map(|i| policies[i].spec.index));
                    *model.entry(key).or_default() += packets;
                    let (sa, policy) = (sa.map(|i| sas[i].clone()), policy.map(|i| policies[i].clone()));
                    bench.drop(device, &Drop { reason, sa, policy, mtu: 0 }, packets);
                }
                Event::Boundary => bench.boundary(),
                Event::Look => collect(&mut bench, &mut collector),
            }
        }
        let name = |row: AttributedRow| {
            let (sa, policy) = (row.sa.map(|sa| sa.id.spi.0), row.policy.map(|p| p.index));
            ((row.key.device.0, row.key.reason, sa, policy), row.packets)
        };
        let rows: BTreeMap<_, u64> = collector.attributed().into_iter().map(name).collect();
        prop_assert_eq!(rows, model);
    }
}

#[test]
fn rows_of_today_push_out_those_of_yesterday() {
    let (sas, _) = parties();
    let (mut bench, mut collector) = Bench::new(3);
    let about = |i: usize| Drop { sa: Some(sas[i].clone()), ..Reason::TxTooBig.into() };
    // Before each look one more SA; the first goes on all the time.
    for i in 0..5 {
        bench.drop(1, &about(0), 1);
        bench.drop(1, &about(i), 10);
        collect(&mut bench, &mut collector);
    }
    let mut rows: Vec<_> =
        collector.attributed().iter().map(|r| (r.sa.map(|s| s.id.spi), r.packets)).collect();
    rows.sort_unstable_by_key(|r| (r.1, r.0.map(|spi| spi.0)));
    let spi = |i: usize| Some(sas[i].spec.spi);
    assert_eq!(rows, [(spi(3), 10), (spi(4), 10), (spi(0), 15), (None, 20)]);
}

#[test]
fn what_is_deleted_keeps_its_name_but_not_its_keys() {
    let (sas, _) = parties();
    let (mut bench, mut collector) = Bench::new(8);
    let drop = Drop { sa: Some(sas[0].clone()), ..Reason::TxTooBig.into() };
    let held = Arc::strong_count(&sas[0]);
    bench.drop(1, &drop, 1);
    assert_eq!(Arc::strong_count(&sas[0]), held, "a page must not keep an SA alive");
    collect(&mut bench, &mut collector);
    assert_eq!(collector.attributed()[0].sa, Some(SaName::from(&*sas[0])));
}
