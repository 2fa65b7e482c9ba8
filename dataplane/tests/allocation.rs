//! The packet path of the accounts allocates nothing, however many SAs and policies drops are about.

use std::sync::Arc;
use uvti_core::device::DeviceId;
use uvti_core::reason::Reason;
use uvti_core::vti::Drop;
use uvti_core::vti::testing::Lab;
use uvti_core::xfrm::{Spi, StateSpec};
use uvti_dataplane::account::{Account, Attribution, Collector, Dropped, FlightRecorder, Flip, Ledger};

const ROWS: usize = 40;

#[test]
fn a_flood_of_drops_allocates_nothing() {
    let mut lab = Lab::vti();
    for i in 0..100 {
        lab.states.push(StateSpec { spi: Spi(0x1000 + i), ..lab.states[0].clone() });
    }
    let tables = lab.tables();
    let policy = Some(tables.policies.newest_first()[0].clone());
    let about = |sa: &Arc<uvti_core::xfrm::Sa>| Drop {
        sa: Some(sa.clone()),
        policy: policy.clone(),
        ..Reason::TxTooBig.into()
    };
    let drops: Vec<Drop> = tables.states.iter().map(about).collect();
    let flip = Arc::new(Flip::default());
    let mut ledger = FlightRecorder::new(1, 16).ledgers(|| Attribution::new(ROWS)).remove(0);
    let mut collector = Collector::new(vec![flip.clone()], vec![ledger.attribution.shelf()], ROWS);
    let packet = &[0x45; 1400][..];
    let one = |ledger: &mut Ledger, drop| {
        ledger.dropped(&Dropped { device: DeviceId(1), drop, packet, packets: 1, outer: None });
        ledger.burst_done();
    };
    // The first packet of a reason takes the recorder's memory.
    one(&mut ledger, &drops[0]);
    for round in 1..=4 {
        let info = allocation_counter::measure(|| {
            for drop in drops.iter().cycle().take(10_000) {
                one(&mut ledger, drop);
            }
            ledger.turn_page();
        });
        assert_eq!(info.count_total, 0, "in round {round}");
        collector.collect(|_| flip.open(flip.asked().unwrap())).unwrap();
        let rows = collector.attributed();
        assert!(rows.len() <= ROWS + 1, "{} rows", rows.len());
        assert_eq!(rows.iter().map(|r| r.packets).sum::<u64>(), 1 + round * 10_000);
    }
}
