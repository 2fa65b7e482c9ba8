//! An engine with a state directory, killed and started again.

use super::tests::{LOCAL, REMOTE, dropped, far_end, lab, sa, tunnel, until};
use crate::journal::{CHUNK, Journal};
use crate::worker::tamper::Honest;
use tempfile::TempDir;
use uvti_core::reason::Reason;
use uvti_core::tables::Op;

/// Sequence numbers of what was sent.
fn numbers(wire: &[Vec<u8>]) -> Vec<u32> {
    wire.iter().map(|packet| uvti_core::esp::peek(&packet[20..]).unwrap().1).collect()
}

#[test]
fn a_restart_goes_on_and_accepts_no_replays() {
    let (near, far) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut wire = Vec::new();
    for life in 0..3u64 {
        let (a, b) = (lab(1, || Honest), lab(1, || Honest));
        a.engine.keep_journal(Journal::open(near.path()).unwrap());
        b.engine.keep_journal(Journal::open(far.path()).unwrap());
        a.engine.apply(&tunnel(1)).unwrap();
        b.engine.apply(&far_end(1)).unwrap();
        wire.iter().for_each(|packet: &Vec<u8>| b.arrives(packet));
        until("replays are refused", || {
            dropped(&b.engine, Reason::RxReplayOld) + dropped(&b.engine, Reason::RxReplayDuplicate)
                == wire.len() as u64
        });
        a.send(5, 1);
        let mut new = Vec::new();
        until("five packets", || {
            new.extend(a.sent());
            new.len() == 5
        });
        // A clean stop is behind the second life, a kill behind the first.
        let begin = [0, CHUNK, CHUNK + 5][life as usize] as u32;
        assert_eq!(numbers(&new), (begin + 1..=begin + 5).collect::<Vec<_>>());
        new.iter().for_each(|packet| b.arrives(packet));
        let mut received = 0;
        until("they are received", || {
            received += b.tuns.lock().unwrap()[0].host_receives().len();
            received == 5
        });
        wire.extend(new);
        b.engine.journal().unwrap().keep(true);
        if life == 0 {
            a.engine.journal().unwrap().kill_for_test();
        }
    }
}

#[test]
fn a_change_that_cannot_be_noted_is_refused() {
    let dir = TempDir::new().unwrap();
    let a = lab(1, || Honest);
    a.engine.keep_journal(Journal::open(dir.path()).unwrap());
    a.engine.apply(&tunnel(1)).unwrap();
    a.engine.journal().unwrap().break_for_test();
    let (index, refusal) = a.engine.apply(&[Op::StateAdd(Box::new(sa(LOCAL, REMOTE, 0x77)))]).unwrap_err();
    assert_eq!(index, 0);
    assert!(refusal.to_string().contains("cannot note sequence numbers in the state directory"), "{refusal}");
    assert_eq!(a.engine.tables().states.len(), 2);
    a.engine.apply(&[Op::StateDel(sa(LOCAL, REMOTE, 0x1000).id())]).unwrap();
}
