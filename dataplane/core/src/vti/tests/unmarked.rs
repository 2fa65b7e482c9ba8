//! Policies without a mark, one line a scenario: what they do is done before the packet reaches the device, which counts
//! nothing. Names as in `transmit`.

use super::Case;
use super::transmit::{Packets, check, df, five, five6, nest, route};
use crate::packet::testing::udp4;
use crate::packet::{Buf, EtherType};
use crate::reason::Reason;
use crate::tables::Unmarked;
use crate::vti::testing::{IN, KEY, Lab, NOW, OUT, VTI, policy, tx_burst};
use crate::vti::transmit::decide;
use crate::vti::{Stage, Transmitter, TxVerdict};
use crate::xfrm::{Action, Direction, Level, Mark, Mode, SaDirection, Spi};

/// An output policy without a mark, and none with the device's okey.
pub(super) fn lab() -> Lab {
    let mut lab = Lab::vti();
    lab.policies[OUT].mark = Mark::default();
    lab
}

#[rustfmt::skip]
pub(super) const CASES: &[Case<Packets>] = &[
    ("tx_key1_pol_unmarked", |_| (), five, "5 sent before", ""),
    ("tx_ok_key0", |l| l.devices[0].spec.okey = 0, five, "5 sent before", ""),
    ("uvti_unmarked_6in4", |_| (), five6, "5 sent before", ""),
    ("uvti_unmarked_value_of_a_mask", |l| l.policies[OUT].mark = Mark { value: 0, mask: 0xff }, five, "5 sent before", ""),
    ("uvti_unmarked_any_ends", |l| l.devices[0].spec.remote = "198.51.100.77".parse().unwrap(), five, "5 sent before", ""),
    ("tx_pol_block_unmarked", |l| l.policies[OUT].action = Action::Block, five, "5 tx_unmarked_policy_block", " | XfrmOutPolBlock=5"),
    ("tx_nopol_default_block", |l| { l.policies.remove(OUT); l.block_by_default.push(Direction::Out); }, five,
        "5 tx_unmarked_default_block", ""),
    ("uvti_unmarked_nosa", |l| { l.states.remove(OUT); }, five, "5 tx_unmarked_no_sa", " | XfrmOutNoStates=5"),
    ("uvti_unmarked_nosa_larval0", |l| { l.states.remove(OUT); l.settings.larval_drop = false }, five, "5 held", ""),
    ("uvti_unmarked_spi_clash", |l| { l.policies[OUT].templates[0].spi = Spi(0x100); l.policies[OUT].templates[0].reqid = 77; }, five,
        "5 tx_unmarked_policy_error", " | XfrmOutPolError=5"),
    ("uvti_unmarked_dir_in", |l| l.states[OUT].dir = Some(SaDirection::In), five, "5 tx_unmarked_wrong_direction",
        " | XfrmOutPolError=5 XfrmOutStateDirError=5"),
    ("uvti_unmarked_noroute", |l| l.routes[0].1 = None, five, "5 tx_unmarked_no_outer_route", " | XfrmOutBundleGenError=5"),
    ("uvti_unmarked_beet", |l| { l.policies[OUT].templates[0].mode = Mode::Beet; l.states[OUT].mode = Mode::Beet; }, five,
        "5 tx_unmarked_not_tunnel_mode", ""),
    ("uvti_unmarked_loop", |l| route(l, |r| r.ifindex = VTI), five, "5 tx_unmarked_loop", ""),
    ("uvti_unmarked_mutual_loop", |l| nest(l, VTI), five, "5 tx_unmarked_loop", ""),
    ("uvti_unmarked_big", |_| (), || vec![df(1470)], "1 tx_unmarked_too_big", " |  | 1x frag-needed mtu 1446"),
    ("uvti_unmarked_expired", |l| l.states[OUT].limits.hard_packets = 3, five,
        "3 sent before, 1 tx_unmarked_sa_expired, 1 tx_unmarked_no_sa", " | XfrmOutNoStates=1 XfrmOutStateExpired=1"),
    ("uvti_unmarked_overflow", |l| l.states[OUT].replay.oseq = 0xffff_fffe, five,
        "1 sent before, 4 tx_unmarked_seq_overflow", " | XfrmOutStateSeqError=4"),
    ("uvti_unmarked_no_room", |_| (), || vec![udp4("10.1.0.2", "10.2.0.5", 4000, 5000, 65_500)], "1 tx_unmarked_unsent", ""),
    // What it does not encrypt goes on to the device.
    ("uvti_unmarked_bypass", |l| l.policies[OUT].templates.clear(), five, "5 tx_bypass_policy", "txE=5 carrier=5 |  | 5x host-unreach"),
    ("uvti_unmarked_bypass_then_marked", |l| { l.policies[OUT].templates.clear(); l.policies[OUT].priority = 9; marked(l) }, five,
        "5 sent", "txp=5 txB=500"),
    ("uvti_unmarked_optional", |l| { l.policies[OUT].templates[0].level = Level::Use; l.policies[OUT].templates[0].mode = Mode::Transport; l.states.remove(OUT); }, five, "5 tx_no_transform",
        "txE=5 carrier=5 |  | 5x host-unreach"),
    ("uvti_unmarked_before_marked", |l| { l.policies[OUT].priority = 9; marked(l) }, five, "5 sent before", ""),
    ("tx_disable_xfrm_unmarked", |l| l.devices[0].disable_xfrm = true, five, "5 tx_xfrm_disabled", "txE=5 carrier=5 |  | 5x host-unreach"),
    ("uvti_unmarked_on_the_device", |l| l.settings.unmarked = Unmarked::Device, five, "5 sent", "txp=5 txB=500"),
];

/// Adds a policy with the device's okey.
fn marked(lab: &mut Lab) {
    let ends = &lab.devices[0].spec;
    lab.policies.push(policy(Direction::Out, KEY, ends.local, ends.remote));
}

#[test]
fn counted_like_the_kernel() {
    CASES.iter().for_each(|case| check(&lab(), case));
}

/// Whether any policy concerns packets without a mark is known without a look-up: also after changes.
#[test]
fn unmarked_policies_are_counted() {
    let lab = lab();
    let stage = |lab: &Lab| decide(&lab.tables(), &lab.devices[0], &flow()).map(|d| d.stage);
    assert!(lab.tables().policies.concern_unmarked());
    assert_eq!(stage(&lab).unwrap(), Stage::Host);
    let mut marked = lab.clone();
    marked.policies[OUT].mark = Mark::exact(KEY);
    marked.policies[IN].mark = Mark::default();
    assert!(!marked.tables().policies.concern_unmarked(), "an input policy is none");
    assert_eq!(stage(&marked).unwrap(), Stage::Device);
    let mut tables = (*lab.tables()).clone();
    let mut cx = crate::tables::Context { now: NOW, random: &mut || 0 };
    let spec = lab.policies[OUT].clone();
    tables.apply(&crate::tables::Op::PolicyUpdate(Box::new(spec.clone())), &mut cx).unwrap();
    assert!(tables.policies.concern_unmarked());
    let named =
        tables.policies.newest_first().into_iter().find(|p| p.spec.dir == Direction::Out).unwrap().info();
    let id = crate::xfrm::PolicyId::Index {
        index: named.spec.index,
        dir: Direction::Out,
        mark: spec.mark,
        if_id: 0,
    };
    tables.apply(&crate::tables::Op::PolicyDel(id), &mut cx).unwrap();
    assert!(!tables.policies.concern_unmarked());
    tables.apply(&crate::tables::Op::PolicyAdd(Box::new(spec)), &mut cx).unwrap();
    tables.apply(&crate::tables::Op::PolicyFlush, &mut cx).unwrap();
    assert!(!tables.policies.concern_unmarked());
}

fn flow() -> crate::packet::Flow {
    crate::packet::Inner::dissect(&five()[0]).unwrap().flow
}

/// What the host says a packet is decides, not its first byte: measured with AF_PACKET (`tx_garbage_ipv4`,
/// `tx_ver_mismatch`).
#[test]
fn the_ethertype_decides() {
    let lab = Lab::vti();
    let tables = lab.tables();
    let verdict = |protocol, bytes: &[u8]| {
        let mut burst = tx_burst(&[bytes.to_vec()]);
        burst[0].buf.protocol = protocol;
        Transmitter::default().run(&tables, &lab.devices[0], &mut burst, 0, NOW);
        match &burst[0].verdict {
            TxVerdict::Drop(drop) => {
                assert!(super::icmp_error(&burst[0], drop).is_none() || drop.reason == Reason::TxNoPolicy);
                drop.reason.row().name
            }
            _ => "sent",
        }
    };
    let six = crate::packet::testing::udp6("2001:db8:a::1", "2001:db8:b::5", 1, 2, 120);
    assert_eq!(verdict(EtherType::Ipv4, &[0; 40]), "tx_no_destination");
    assert_eq!(verdict(EtherType::Ipv4, &six), "tx_no_destination");
    assert_eq!(verdict(EtherType::Ipv6, &six), "sent");
    assert_eq!(verdict(EtherType::Ipv4, &five()[0]), "sent");
    assert_eq!(verdict(EtherType::Other(0x0806), &five()[0]), "tx_not_ip");
    assert_eq!(verdict(EtherType::Other(0x8847), &six), "tx_not_ip");
    assert_eq!(verdict(EtherType::Ipv6, &five()[0][..39]), "tx_runt");
    assert_eq!(verdict(EtherType::Ipv6, &five()[0]), "sent", "nobody looks at the version");
    assert_eq!(Buf::from_packet(&six).protocol, EtherType::Ipv6);
}
