//! The xfrm interface, one line a scenario (Linux 6.12, `tests/data/xfrmi-6.12.jsonl`). Scenarios that start with `uvti_`
//! were not measured: the kernel's order of checks says what it counts.

use super::explain::{explain_rx, explain_tx, told};
use super::receive::{beet, carrying, cut, five as five_esp, forged, from, inner, numbered, udp_only};
use super::transmit::{block, df, ends, five, five6, flow4, flow6, nest, route, six, transport, udp_encap};
use super::{Case, receive, transmit};
use crate::packet::testing::{udp4, udp6};
use crate::packet::{Inner, Outer, proto};
use crate::reason::Reason;
use crate::tables::Unmarked;
use crate::vti::testing::{BELOW, IF_ID, IN, Lab, OUT, Peer, VTI, aes_gcm, device, interface, ip, state};
use crate::vti::transmit::decide;
use crate::xfrm::{Action, Direction, Family, Level, Mark, Mode, Proto, Selector, Spi, StateFlags};

/// The policy for what is forwarded.
const FWD: usize = 2;

const GOOD: &str = "txp=5 txB=500";
const CARRIER: &str = "txE=5 txD=5 carrier=5 |  | 5x host-unreach";
const NO_STATES: &str = "txE=5 txD=5 carrier=5 | XfrmOutNoStates=5 | 5x host-unreach";
const COLLISIONS: &str = "txE=5 txD=5 colls=5";

/// xfrm1 below xfrm0, with another if_id.
fn below(lab: &mut Lab) {
    nest(lab, BELOW);
    lab.devices[1] = interface("xfrm1", 11, 6);
    lab.states[2].if_id = 6;
    let policy = &mut lab.policies[3];
    (policy.mark, policy.if_id) = (Mark::default(), 6);
}

#[rustfmt::skip]
pub(super) const TX: &[Case<transmit::Packets>] = &[
    ("xi_tx_ok_fwd", |_| (), five, "5 sent", GOOD),
    ("xi_tx_ok_dev", |l| l.devices[0].spec.dev = Some("w0".into()), five, "5 sent", GOOD),
    ("xi_tx_ok_6in4", |_| (), five6, "5 sent", "txp=5 txB=600"),
    ("xi_tx_ok_natt", udp_encap, five, "5 sent", GOOD),
    ("xi_tx_6in4_no_afunspec", |l| l.states[OUT].flags = StateFlags::default(), five6, "5 tx_no_sa",
        "txE=5 txD=5 carrier=5 | XfrmOutNoStates=5 | 5x addr-unreach"),
    ("xi_tx_nopol_none", |l| l.policies.clear(), five, "5 tx_no_policy", CARRIER),
    ("xi_tx_nopol_none_6in4", |l| l.policies.clear(), five6, "5 tx_no_policy", "txE=5 txD=5 carrier=5 |  | 5x addr-unreach"),
    ("xi_tx_pol_other_ifid", |l| l.policies[OUT].if_id = 6, five, "5 tx_no_policy", CARRIER),
    ("xi_tx_pol_noifid_afpacket", |l| { l.settings.unmarked = Unmarked::Device; l.policies[OUT].if_id = 0 }, five, "5 tx_no_policy", CARRIER),
    ("xi_tx_disable_xfrm", |l| l.devices[0].disable_xfrm = true, five, "5 sent", GOOD),
    ("xi_tx_both_pols_disable_xfrm", |l| { l.devices[0].disable_xfrm = true; let mut p = l.policies[OUT].clone(); p.if_id = 0; p.action = Action::Block; l.policies.push(p) },
        five, "5 sent", GOOD),
    ("xi_tx_pol_block", |l| { l.policies[OUT].action = Action::Block; l.policies[OUT].templates.clear() }, five, "5 tx_policy_block",
        "txE=5 txD=5 carrier=5 | XfrmOutPolBlock=5 | 5x host-unreach"),
    ("xi_tx_pol_allow_notmpl", |l| l.policies[OUT].templates.clear(), five, "5 tx_bypass_policy", CARRIER),
    ("xi_tx_nopol_default_block_afpacket", |l| { l.settings.unmarked = Unmarked::Device; l.policies.clear(); l.block_by_default.push(Direction::Out) }, five, "5 tx_default_block",
        CARRIER),
    ("xi_tx_nopol_selector", |l| l.policies[OUT].sel = Selector { dst: "10.77.0.0/16".parse().unwrap(), ..Selector::any(Family::V4) },
        five, "5 tx_no_policy", CARRIER),
    ("xi_tx_pol_prio", |l| { l.policies[OUT].priority = 20; block(l, 10); l.policies[3].if_id = IF_ID; l.policies[3].mark = Mark::default() },
        five, "5 tx_policy_block", "txE=5 txD=5 carrier=5 | XfrmOutPolBlock=5 | 5x host-unreach"),
    ("xi_tx_tmpl_reqid_mismatch", |l| l.policies[OUT].templates[0].reqid = 9, five, "5 tx_no_sa", NO_STATES),
    ("xi_tx_tmpl_spi_eexist", |l| { let t = &mut l.policies[OUT].templates[0]; (t.reqid, t.spi) = (9, Spi(0x100)) }, five,
        "5 tx_template_spi_clash", "txE=5 txD=5 carrier=5 | XfrmOutPolError=5 | 5x host-unreach"),
    ("xi_tx_tmpl_level_use_nosa", |l| { let t = &mut l.policies[OUT].templates[0]; (t.level, t.mode, t.reqid) = (Level::Use, Mode::Transport, 9) },
        five, "5 tx_no_transform", CARRIER),
    ("xi_tx_nosa", |l| { l.states.remove(OUT); }, five, "5 tx_no_sa", NO_STATES),
    ("xi_tx_nosa_larval0", |l| { l.states.remove(OUT); l.settings.larval_drop = false }, five, "5 tx_no_sa", NO_STATES),
    ("xi_tx_sa_noifid", |l| l.states[OUT].if_id = 0, five, "5 tx_no_sa", NO_STATES),
    ("xi_tx_sa_other_ifid", |l| l.states[OUT].if_id = 6, five, "5 tx_no_sa", NO_STATES),
    ("xi_tx_sa_transport", transport, five, "5 tx_transport_loop", COLLISIONS),
("uvti_sa_beet", |l| { l.states[OUT].mode = Mode::Beet; l.policies[OUT].templates[0].mode = Mode::Beet }, five, "5 tx_not_tunnel_mode", CARRIER),
    ("xi_tx_other_peer", |l| ends(l, "198.51.100.1", "198.51.100.3"), five, "5 sent", GOOD),
    ("xi_tx_mark_pol_mismatch", |l| l.policies[OUT].mark = Mark::exact(7), five, "5 tx_no_policy", CARRIER),
    ("xi_tx_mark_sa_only", |l| l.states[OUT].mark = Mark::exact(7), five, "5 tx_no_sa", NO_STATES),
    ("xi_tx_sel_dev_phys", |l| { l.devices[0].spec.dev = Some("w0".into()); l.policies[OUT].sel.dev = Some("w0".into()) }, five, "5 sent", GOOD),
    ("xi_tx_sel_dev_xfrm", |l| l.policies[OUT].sel.dev = Some("xfrm0".into()), five, "5 tx_no_policy", CARRIER),
    ("xi_tx_expire_packets", |l| l.states[OUT].limits.hard_packets = 3, six, "3 sent, 1 tx_sa_expired, 2 tx_no_sa",
        "txp=3 txB=300 txE=3 txD=2 aborted=1 carrier=2 | XfrmOutNoStates=2 XfrmOutStateExpired=1 | 2x host-unreach"),
    ("xi_tx_seq_overflow", |l| l.states[OUT].replay.oseq = 0xffff_fffd, five, "2 sent, 3 tx_seq_overflow",
        "txp=2 txB=200 txE=3 aborted=3 | XfrmOutStateSeqError=3"),
    ("xi_tx_outer_noroute", |l| l.routes[0].1 = None, five, "5 tx_no_outer_route",
        "txE=5 txD=5 carrier=5 | XfrmOutBundleGenError=5 | 5x host-unreach"),
    ("xi_tx_loop_self", |l| route(l, |r| r.ifindex = VTI), five, "5 tx_loop", COLLISIONS),
    ("xi_tx_loop_self_6in4", |l| route(l, |r| r.ifindex = VTI), five6, "5 tx_loop", COLLISIONS),
    ("xi_tx_nested_ok", below, five, "5 sent", GOOD),
    ("xi_tx_big_df_1446", |_| (), || vec![df(1446); 5], "5 sent", "txp=5 txB=7230"),
    ("xi_tx_big_df_1447", |_| (), || vec![df(1447); 5], "5 tx_too_big", "txE=5 txD=5 |  | 5x frag-needed mtu 1446"),
    ("xi_tx_big_nodf_fwd", |_| (), || vec![flow4(1470); 5], "5 sent", "txp=5 txB=7350"),
    ("xi_tx_big_6in4_small_path_1281", |l| route(l, |r| r.mtu = 1300), || vec![flow6(1281); 5], "5 tx_too_big",
        "txE=5 txD=5 |  | 5x packet-too-big mtu 1280"),
    ("xi_tx_big_6in4_small_path", |l| route(l, |r| r.mtu = 1300), || vec![flow6(1280); 5], "5 tx_narrow_path",
        "txE=5 aborted=5 |  | 5x packet-too-big mtu 1246"),
    ("xi_tx_order_block_nosa", |l| { l.policies[OUT].action = Action::Block; l.states.clear() }, five, "5 tx_policy_block",
        "txE=5 txD=5 carrier=5 | XfrmOutPolBlock=5 | 5x host-unreach"),
    ("uvti_order_nosa_noroute", |l| { l.states.remove(OUT); l.routes[0].1 = None }, five, "5 tx_no_sa", NO_STATES),
    ("uvti_order_loop_size", |l| route(l, |r| r.ifindex = VTI), || vec![df(1470); 5], "5 tx_loop", COLLISIONS),
    ("uvti_order_size_overflow", |l| l.states[OUT].replay.oseq = u32::MAX, || vec![df(1470); 5], "5 tx_too_big",
        "txE=5 txD=5 |  | 5x frag-needed mtu 1446"),
];

#[rustfmt::skip]
const TX6: &[Case<transmit::Packets>] = &[
    ("xi_tx_ok_6in6", |_| (), five6, "5 sent", "txp=5 txB=600"),
    ("xi_tx_ok_4in6", |_| (), five, "5 sent", GOOD),
    ("xi_tx_big_4in6_df", |_| (), || vec![df(1440); 5], "5 tx_too_big", "txE=5 txD=5 |  | 5x frag-needed mtu 1426"),
    ("xi_tx_inner_src_is_remote", |_| (), || vec![udp6("2001:db8:ff::2", "2001:db8:2::5", 4000, 5000, 120); 5], "5 sent", "txp=5 txB=600"),
];

/// Inner packets for this host itself.
fn for_us(p: &Peer) -> Vec<crate::vti::RxSlot> {
    let packet = udp4("10.2.0.5", "10.1.0.1", 5000, 4000, 100);
    (1..6).map(|n| p.slot(n, &packet)).collect()
}

fn short(p: &Peer) -> Vec<crate::vti::RxSlot> {
    cut(p, 4)
}

/// An SPI that nobody has.
fn unknown(p: &Peer) -> Vec<crate::vti::RxSlot> {
    five_esp(p).into_iter().map(|s| receive::change(s, |b| b[3] = 9)).collect()
}

fn transport_in(lab: &mut Lab) {
    lab.states[IN].mode = Mode::Transport;
    lab.policies.truncate(IN);
}

const RECEIVED: &str = "rxp=5 rxB=500";
const NO_POLICY: &str = "rxp=5 rxB=500 | XfrmInNoPols=5";

#[rustfmt::skip]
pub(super) const RX: &[Case<receive::Packets>] = &[
    ("xi_rx_ok_fwd", |_| (), five_esp, "5 delivered", RECEIVED),
    ("xi_rx_ok_local", |_| (), for_us, "5 delivered", RECEIVED),
    ("xi_rx_ok_6in4", |_| (), |p| carrying(p, 41, &udp6("2001:db8:2::5", "2001:db8:1::2", 1, 2, 120)), "5 delivered", "rxp=5 rxB=600"),
    ("xi_rx_other_src", |_| (), |p| from(p, "198.51.100.77"), "5 delivered", RECEIVED),
    ("xi_rx_unknown_spi", |_| (), unknown, "5 rx_no_tunnel", " | XfrmInNoStates=5"),
    ("xi_rx_bad_icv", |_| (), forged, "5 rx_bad_icv", "rxE=5 rxD=5 | XfrmInStateProtoError=5 | 5x failed"),
    ("xi_rx_replay", |l| l.states[IN].replay_window = 32, |p| numbered(p, &[1, 1, 1]), "1 delivered, 2 rx_replay_duplicate",
        "rxp=1 rxB=100 rxE=2 rxD=2 | XfrmInStateSeqError=2 | 2x replay"),
    ("xi_rx_sa_noifid", |l| l.states[IN].if_id = 0, five_esp, "5 rx_no_tunnel_known_sa", " | XfrmInNoPols=5"),
    ("xi_rx_sa_noifid_bad_icv", |l| l.states[IN].if_id = 0, forged, "5 rx_bad_icv", " | XfrmInStateProtoError=5 | 5x failed"),
    ("xi_rx_sa_other_ifid", |l| l.states[IN].if_id = 6, five_esp, "5 rx_no_tunnel_known_sa", " | XfrmInNoPols=5"),
    ("xi_rx_sa_other_ifid_dev", |l| { l.states[IN].if_id = 6; l.devices.push(interface("xfrm1", 11, 6)) }, five_esp, "5 rx_no_policy", NO_POLICY),
    ("xi_rx_pol_noifid", |l| l.policies.iter_mut().for_each(|p| p.if_id = 0), five_esp, "5 rx_no_policy", NO_POLICY),
    ("xi_rx_down", |l| l.devices[0].up = false, five_esp, "5 rx_no_tunnel_known_sa", " | XfrmInNoPols=5"),
    ("xi_rx_nopol_fwd", |l| l.policies.clear(), five_esp, "5 rx_no_policy", NO_POLICY),
    ("xi_rx_nopol_local", |l| l.policies.clear(), for_us, "5 rx_no_policy", NO_POLICY),
    ("xi_rx_in_only_fwd", |l| { l.policies.remove(FWD); }, five_esp, "5 rx_no_policy", NO_POLICY),
    ("xi_rx_fwd_only_local", |l| { l.policies.remove(IN); }, for_us, "5 rx_no_policy", NO_POLICY),
    ("xi_rx_fwd_only_fwd", |l| { l.policies.remove(IN); }, five_esp, "5 delivered", RECEIVED),
    ("xi_rx_pol_block_fwd", |l| { l.policies[FWD].action = Action::Block; l.policies[FWD].templates.clear() }, five_esp, "5 rx_policy_block",
        "rxp=5 rxB=500 | XfrmInPolBlock=5"),
    ("xi_rx_pol_allow_notmpl", |l| l.policies[FWD].templates.clear(), five_esp, "5 rx_template_missing", "rxp=5 rxB=500 | XfrmInTmplMismatch=5"),
    ("xi_rx_tmpl_reqid", |l| l.policies[FWD].templates[0].reqid = 9, five_esp, "5 rx_template_mismatch", "rxp=5 rxB=500 | XfrmInTmplMismatch=5"),
    ("xi_rx_tmpl_reqid0", |l| l.policies[FWD].templates[0].reqid = 0, five_esp, "5 delivered", RECEIVED),
    ("xi_rx_disable_policy", |l| { l.policies.clear(); l.devices[0].no_policy = true }, five_esp, "5 delivered", RECEIVED),
    ("xi_rx_outer_pol_block", |l| { let mut p = l.policies[IN].clone(); (p.if_id, p.action) = (0, Action::Block); l.policies.push(p) }, five_esp,
        "5 delivered", RECEIVED),
    ("xi_rx_default_block", |l| l.block_by_default.extend([Direction::In, Direction::Fwd]), five_esp, "5 delivered", RECEIVED),
    ("xi_rx_mark_pol", |l| l.policies[FWD].mark = Mark::exact(7), five_esp, "5 rx_no_policy", NO_POLICY),
    ("xi_rx_mark_sa", |l| l.states[IN].mark = Mark::exact(7), five_esp, "5 rx_no_tunnel", " | XfrmInNoStates=5"),
    ("xi_rx_sa_selector", |l| l.states[IN].sel = Some(Selector { src: "10.77.0.0/16".parse().unwrap(), ..Selector::any(Family::V4) }), five_esp,
        "5 rx_selector_mismatch", "rxp=5 rxB=500 | XfrmInStateMismatch=5"),
    ("xi_rx_sa_transport", transport_in, five_esp, "5 rx_plain_ipip", "rxp=5 rxB=500 | XfrmInNoStates=5"),
    ("uvti_sa_transport_udp", transport_in, |p| carrying(p, proto::UDP, &inner(100)[20..]), "5 delivered", "rxp=5 rxB=400"),
    ("uvti_sa_transport_default_block", |l| { transport_in(l); l.block_by_default.push(Direction::In) },
        |p| carrying(p, proto::UDP, &inner(100)[20..]), "5 rx_no_policy", "rxp=5 rxB=400 | XfrmInNoPols=5"),
    ("xi_rx_sa_beet", |l| { beet(l, "10.2.0.5/32", "10.1.0.2/32"); l.policies[FWD].templates[0].mode = Mode::Beet }, udp_only, "3 delivered",
        "rxp=3 rxB=234"),
    ("xi_rx_encap_mismatch", receive::udp_encap, five_esp, "5 rx_encap_mismatch", "rxE=5 rxD=5 | XfrmInStateMismatch=5"),
    ("xi_rx_larval_acq", |l| { let mut s = l.states.remove(IN); s.if_id = 0; l.reserved.push(s) }, five_esp, "5 rx_acquire",
        " | XfrmAcquireError=5"),
    ("xi_rx_trunc_4", |_| (), short, "5 rx_short", " | XfrmInHdrError=5"),
    ("xi_rx_trunc_8", |_| (), |p| cut(p, 8), "5 rx_truncated", "rxE=5 rxD=5 | XfrmInStateProtoError=5"),
    ("xi_rx_nh17", |_| (), |p| carrying(p, 17, &inner(100)), "5 rx_inner_proto", "rxE=5 rxD=5 | XfrmInStateModeError=5"),
    ("xi_rx_inner_short", |_| (), |p| carrying(p, 4, &inner(100)[..12]), "5 rx_inner_short", "rxE=5 rxD=5 | XfrmInStateModeError=5"),
    ("xi_rx_inner_garbage", |_| (), |p| carrying(p, 4, &[0; 40]), "5 rx_inner_version", "rxp=5 rxB=200"),
    ("xi_rx_tfc", |_| (), |p| { let mut b = inner(100); b.extend([0; 200]); carrying(p, 4, &b) }, "5 delivered", "rxp=5 rxB=1500"),
    ("uvti_tfc_nopol", |l| l.policies.clear(), |p| { let mut b = inner(100); b.extend([0; 200]); carrying(p, 4, &b) }, "5 rx_no_policy",
        "rxp=5 rxB=1500 | XfrmInNoPols=5"),
];

#[test]
fn counted_like_the_kernel() {
    TX.iter().for_each(|case| transmit::check(&Lab::xfrm(), case));
    TX6.iter().for_each(|case| transmit::check(&Lab::xfrm6(), case));
    RX.iter().for_each(|case| receive::check(&Lab::xfrm(), case));
}

/// Scenario xi_rx_vti_shadows: a VTI between the same ends has the packet first.
#[test]
fn a_vti_comes_first() {
    let mut lab = Lab::xfrm();
    lab.devices.push(device("vti0", 12, ip("198.51.100.1"), ip("198.51.100.2"), 0));
    let mut burst = five_esp(&lab.peer());
    receive::run_on(&lab.tables(), &mut burst);
    assert!(burst.iter().all(|s| s.device == lab.devices[1].id));
}

/// A VTI has policies without if_id, whatever its SAs have.
#[test]
fn a_vti_has_no_if_id() {
    let mut lab = Lab::vti();
    lab.policies[OUT].if_id = IF_ID;
    let (tables, packet) = (lab.tables(), Inner::dissect(&flow4(100)).unwrap());
    let refused = decide(&tables, &lab.devices[0], &packet.flow).unwrap_err();
    assert_eq!(refused.reason, Reason::TxNoPolicy);
}

/// Scenario xi_rx_ipip_plain: where there is an xfrm interface, IP in IP is looked up as an SA.
#[test]
fn plain_ipip_is_seen_by_any_interface() {
    let outer = Outer { src: ip("203.0.113.9"), dst: ip("198.51.100.1"), tos: 0, udp: None };
    let seen = |lab: &Lab| {
        crate::vti::receive::plain_ipip(&lab.tables(), &outer).map(|r| (r.reason, r.device.is_some()))
    };
    assert_eq!(seen(&Lab::xfrm()), Some((Reason::RxPlainIpip, false)));
    assert_eq!(seen(&Lab::vti()), None);
}

/// What leaves by one interface may enter another, but not the same again.
#[test]
fn esp_of_another_interface_may_be_nested() {
    let mut lab = Lab::xfrm();
    lab.devices.push(interface("xfrm1", 11, 6));
    lab.states.push(state(ip("198.51.100.1"), ip("198.51.100.3"), Spi(0x300), aes_gcm()));
    lab.states[2].if_id = 6;
    lab.routes.push(lab.routes[0]);
    lab.routes[1].0.dst = ip("198.51.100.3");
    let esp = |dst: &str, spi: u32| {
        let mut packet = udp4("198.51.100.1", dst, 0, 0, 100);
        packet[9] = Proto::Esp.number();
        packet[20..24].copy_from_slice(&spi.to_be_bytes());
        packet
    };
    let sent = transmit::run(&lab, &[esp("198.51.100.2", 0x100), esp("198.51.100.3", 0x300)]);
    let told = super::Told::transmitted(&sent, lab.devices[0].spec.kind);
    assert_eq!(told.verdicts(), "1 tx_own_esp, 1 sent");
}

#[test]
fn the_direction_is_that_of_the_inner_destination() {
    let lab = Lab::xfrm();
    let tables = lab.tables();
    for (dst, ours) in
        [("10.1.0.1", true), ("10.1.0.2", false), ("224.0.0.5", true), ("255.255.255.255", true)]
    {
        assert_eq!(tables.is_for_us(ip(dst)), ours, "{dst}");
    }
}

/// What would have let a packet pass: by if_id, and by what its SAs know of ends.
#[test]
fn near_misses_are_told_by_if_id() {
    let near_tx = |spoil: fn(&mut Lab)| {
        let mut lab = Lab::xfrm();
        spoil(&mut lab);
        told(explain_tx(&lab.tables(), &lab, &flow4(100))).remove(0)
    };
    let near_rx = |spoil: fn(&mut Lab)| {
        let mut lab = Lab::xfrm();
        let slot = lab.peer().slot(1, &inner(100));
        spoil(&mut lab);
        told(explain_rx(&lab.tables(), &slot)).remove(0)
    };
    let (text, repair) = near_tx(|l| l.policies[OUT].if_id = 6);
    assert_eq!(text, "policy 1 would match, but its if_id is 0x6, the device's is 0x5");
    assert!(repair[0].contains(" if_id 0x5 "), "{repair:?}");
    let (text, repair) = near_tx(|l| l.policies.clear());
    assert_eq!(text, "there is no policy with dir out");
    let tmpl = "if_id 0x5 tmpl src 198.51.100.1 dst 198.51.100.2 proto esp reqid 1 mode tunnel";
    assert!(repair[0].ends_with(tmpl), "{repair:?}");

    let (text, repair) = near_rx(|l| {
        l.policies.remove(FWD);
    });
    assert_eq!(text, "there is no policy with dir fwd");
    let tmpl = "dir fwd if_id 0x5 tmpl src 198.51.100.2 dst 198.51.100.1 proto esp reqid 1 mode tunnel";
    assert!(repair[0].ends_with(tmpl), "{repair:?}");
    let (text, repair) = near_rx(|l| l.devices[0].up = false);
    assert_eq!(text, "xfrm0 has the SA's if_id 0x5, but it is down");
    assert_eq!(repair, ["ip link set dev xfrm0 up"]);
    let (text, repair) = near_rx(|l| l.states[IN].if_id = 7);
    assert_eq!(text, "there is no xfrm interface with the SA's if_id 0x7");
    assert_eq!(repair, ["uvti ip link add type xfrm if_id 0x7"]);
}
