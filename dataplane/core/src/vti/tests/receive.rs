//! Receive, one line a scenario. Scenarios that start with `uvti_` were not measured: the kernel's order of checks
//! (net/xfrm/xfrm_input.c xfrm_input()) says what it counts.

use super::{Case, Told, assert_covered};
use crate::packet::testing::{udp4, udp6};
use crate::packet::tos::EcnRule;
use crate::packet::{Buf, Outer, UdpPorts, proto};
use crate::reason::Reason;
use crate::tables::Snapshot;
use crate::vti::testing::{IN, KEY, Lab, NOW, Peer, aes_gcm, device, ip, policy, state};
use crate::vti::{Receiver, RxSlot, RxVerdict};
use crate::xfrm::{
    Action, Direction, Encap, EncapKind, Family, Level, Mark, Mode, SaDirection, Selector, Spi, StateFlags,
};

pub(super) type Packets = fn(&Peer) -> Vec<RxSlot>;

/// 198.51.100.2 to .1, ESP.
const PEER: &str = "198.51.100.2";

pub(super) fn inner(len: usize) -> Vec<u8> {
    udp4("10.2.0.5", "10.1.0.2", 5000, 4000, len)
}

pub(super) fn numbered(p: &Peer, numbers: &[u64]) -> Vec<RxSlot> {
    numbers.iter().map(|n| p.slot(*n, &inner(100))).collect()
}

pub(super) fn five(p: &Peer) -> Vec<RxSlot> {
    numbered(p, &[1, 2, 3, 4, 5])
}

pub(super) fn three(p: &Peer) -> Vec<RxSlot> {
    numbered(p, &[1, 2, 3])
}

pub(super) fn forged(p: &Peer) -> Vec<RxSlot> {
    five(p).into_iter().map(|s| change(s, |b| *b.last_mut().unwrap() ^= 1)).collect()
}

pub(super) fn change(mut slot: RxSlot, with: fn(&mut [u8])) -> RxSlot {
    with(slot.buf.bytes_mut());
    slot
}

pub(super) fn cut(p: &Peer, len: usize) -> Vec<RxSlot> {
    let mut slots = five(p);
    slots.iter_mut().for_each(|s| s.buf.truncate(len));
    slots
}

pub(super) fn carrying(p: &Peer, next_header: u8, bytes: &[u8]) -> Vec<RxSlot> {
    let p = Peer { next_header, ..p.clone() };
    (1..6).map(|n| p.slot(n, bytes)).collect()
}

pub(super) fn from(p: &Peer, src: &str) -> Vec<RxSlot> {
    five(&Peer { outer: Outer { src: ip(src), ..p.outer }, ..p.clone() })
}

/// UDP without an IP header, 58 bytes.
pub(super) fn udp_only(p: &Peer) -> Vec<RxSlot> {
    let mut slots = carrying(p, proto::UDP, &inner(78)[20..]);
    slots.truncate(3);
    slots
}

pub(super) fn beet(lab: &mut Lab, src: &str, dst: &str) {
    let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
    let family = if matches!(src, ipnet::IpNet::V4(_)) { Family::V4 } else { Family::V6 };
    lab.states[IN].sel = Some(Selector { src, dst, ..Selector::any(family) });
    lab.states[IN].mode = Mode::Beet;
    lab.policies[IN].templates[0].mode = Mode::Beet;
}

fn payload(p: &Peer, bytes: &[u8]) -> Vec<RxSlot> {
    vec![p.clone().in_udp().received(Buf::from_packet(bytes))]
}

pub(super) fn run_on(tables: &std::sync::Arc<Snapshot>, burst: &mut [RxSlot]) {
    Receiver::default().run(tables, burst, 0, NOW);
}

pub(super) fn check(lab: &Lab, case: &Case<Packets>) {
    let (name, spoil, packets, verdicts, counted) = case;
    let peer = lab.peer();
    let mut lab = lab.clone();
    spoil(&mut lab);
    let mut burst = packets(&peer);
    run_on(&lab.tables(), &mut burst);
    let told = Told::received_by(&burst, lab.devices[0].spec.kind);
    assert_eq!((told.verdicts().as_str(), told.counted().as_str()), (*verdicts, *counted), "{name}");
}

pub(super) fn window(lab: &mut Lab, packets: u32) {
    lab.states[IN].replay_window = packets;
}

pub(super) fn udp_encap(lab: &mut Lab) {
    lab.states[IN].encap =
        Some(Encap { kind: EncapKind::EspInUdp, sport: 4500, dport: 4500, original: ip("0.0.0.0") });
}

/// An input policy without mark: it meets the outer packet.
fn outer_policy(lab: &mut Lab, action: Action) {
    let mut p = policy(Direction::In, 0, ip(PEER), ip("198.51.100.1"));
    (p.mark, p.action) = (Mark::default(), action);
    if action == Action::Block {
        p.templates.clear();
    }
    lab.policies.push(p);
}

/// vti1 to another peer, whose key and policy differ. The SA of vti0 has no mark.
fn other_vti(lab: &mut Lab) {
    lab.devices.push(device("vti1", 11, ip("198.51.100.1"), ip("198.51.100.3"), 2));
    lab.policies.push(policy(Direction::In, 2, ip("198.51.100.3"), ip("198.51.100.1")));
}

#[rustfmt::skip]
pub(super) const CASES: &[Case<Packets>] = &[
    ("rx_ok_fwd", |_| (), five, "5 delivered", "rxp=5 rxB=500"),
    ("rx_ok_6in4", |_| (), |p| carrying(p, 41, &udp6("2001:db8:2::5", "2001:db8:1::2", 1, 2, 120)), "5 delivered", "rxp=5 rxB=600"),
    ("rx_ikey_used", |l| l.devices[0].spec.okey = 7, five, "5 delivered", "rxp=5 rxB=500"),
    ("rx_sa_mark_ok", |l| l.states[IN].mark = Mark::exact(KEY), five, "5 delivered", "rxp=5 rxB=500"),
    ("rx_tmpl_reqid0", |l| l.policies[IN].templates[0].reqid = 0, five, "5 delivered", "rxp=5 rxB=500"),
    ("rx_tmpl_level_use", |l| l.policies[IN].templates[0].level = Level::Use, five, "5 delivered", "rxp=5 rxB=500"),
    ("rx_tfc_padding", |_| (), |p| { let mut b = inner(100); b.extend([0; 200]); carrying(p, 4, &b) }, "5 delivered", "rxp=5 rxB=1500"),
    ("uvti_rx_ok_natt", udp_encap, |p| five(&p.clone().in_udp()), "5 delivered", "rxp=5 rxB=500"),

    ("uvti_keepalive", |_| (), |p| payload(p, &[0xff]), "1 rx_keepalive", ""),
    ("uvti_ike", |_| (), |p| payload(p, &[0, 0, 0, 0, 1, 2, 3, 4, 5]), "1 rx_non_esp", ""),
    ("rx_unknown_spi_no_tunnel", |_| (), |p| { let mut s = from(p, "203.0.113.9"); s.iter_mut().for_each(|s| s.buf.bytes_mut()[3] = 9); s },
        "5 rx_no_tunnel", " | XfrmInNoStates=5"),
    ("rx_known_spi_other_src", |_| (), |p| from(p, "203.0.113.9"), "5 rx_no_tunnel_known_sa", " | XfrmInNoPols=5"),
    ("rx_vti_down", |l| l.devices[0].up = false, five, "5 rx_no_tunnel_known_sa", " | XfrmInNoPols=5"),
    ("rx_fallback_dev", |l| l.devices.push(device("ip_vti0", 3, ip("0.0.0.0"), ip("0.0.0.0"), 0)),
        |p| { let mut s = from(p, "203.0.113.9"); s.iter_mut().for_each(|s| s.buf.bytes_mut()[3] = 9); s },
        "5 rx_no_sa", "rxE=5 rxD=5 | XfrmInNoStates=5"),
    ("rx_outer_pol_block", |l| outer_policy(l, Action::Block), five, "5 rx_outer_policy_block", " | XfrmInPolBlock=5"),
    ("uvti_congested", |l| l.settings.ecn = EcnRule::Rfc6040, |p| { let mut p = p.clone(); p.outer.tos = 3; five(&p) },
        "5 rx_congested", "rxE=5 rxframe=5"),
    ("uvti_ignored_congestion", |_| (), |p| { let mut p = p.clone(); p.outer.tos = 3; five(&p) }, "5 delivered", "rxp=5 rxB=500"),
    ("rx_local_pol_dev", |l| { outer_policy(l, Action::Block); l.policies.last_mut().unwrap().sel.dev = Some("lo".into()) },
        five, "5 rx_outer_policy_block", " | XfrmInPolBlock=5"),
    ("rx_pol_unmarked_fwd", |l| outer_policy(l, Action::Allow), five, "5 rx_outer_policy_template", " | XfrmInTmplMismatch=5"),
    ("uvti_outer_default_block", |l| l.block_by_default = vec![Direction::In], five, "5 rx_outer_default_block", " | XfrmInNoPols=5"),
    ("rx_trunc_4", |_| (), |p| cut(p, 4), "5 rx_short", "rxE=5 rxD=5 | XfrmInHdrError=5"),
    ("rx_unknown_spi", |l| l.states[IN].spi = Spi(0x999), five, "5 rx_no_sa", "rxE=5 rxD=5 | XfrmInNoStates=5"),
    ("rx_sa_mark_mismatch", |l| l.states[IN].mark = Mark::exact(2), five, "5 rx_no_sa", "rxE=5 rxD=5 | XfrmInNoStates=5"),
    ("rx_larval_acq", |l| { let s = l.states.remove(IN); l.reserved.push(s) }, five, "5 rx_acquire", "rxE=5 rxD=5 | XfrmAcquireError=5"),
    ("rx_disable_policy_lower", |l| { l.policies.remove(IN); l.devices[0].no_policy = true }, three, "3 delivered", "rxp=3 rxB=300"),
    ("uvti_disable_policy_outer", |l| { let mut p = l.policies[IN].clone(); p.mark = Mark::default(); l.policies.push(p); l.devices[0].no_policy = true }, three, "3 delivered", "rxp=3 rxB=300"),
    ("rx_sa_beet", |l| beet(l, "10.2.0.5/32", "10.1.0.2/32"), udp_only, "3 delivered", "rxp=3 rxB=234"),
    ("uvti_sa_beet_v6", |l| beet(l, "2001:db8::5/128", "2001:db8::2/128"), udp_only, "3 delivered", "rxp=3 rxB=294"),
    ("uvti_sa_beet_any_family", |l| { beet(l, "10.2.0.5/32", "10.1.0.2/32"); l.states[IN].sel.as_mut().unwrap().family = None }, udp_only,
        "3 rx_inner_proto", "rxE=3 rxD=3 | XfrmInStateModeError=3"),
    ("uvti_sa_beet_template", |l| { beet(l, "10.2.0.5/32", "10.1.0.2/32"); l.policies[IN].templates[0].mode = Mode::Tunnel }, udp_only,
        "3 rx_template_mismatch", "rxE=3 rxD=3 | XfrmInTmplMismatch=3"),
    ("uvti_sa_dir_out", |l| l.states[IN].dir = Some(SaDirection::Out), five, "5 rx_wrong_direction", "rxE=5 rxD=5 | XfrmInStateDirError=5"),
    ("rx_encap_mismatch", udp_encap, five, "5 rx_encap_mismatch", "rxE=5 rxD=5 | XfrmInStateMismatch=5"),
    ("uvti_encap_not_wanted", |_| (), |p| five(&p.clone().in_udp()), "5 rx_encap_mismatch", "rxE=5 rxD=5 | XfrmInStateMismatch=5"),
    ("rx_replay_window0", |_| (), |p| numbered(p, &[7, 7, 7]), "3 delivered", "rxp=3 rxB=300"),
    ("rx_seq0_window0", |_| (), |p| numbered(p, &[0, 0]), "2 delivered", "rxp=2 rxB=200"),
    ("rx_replay", |l| window(l, 32), |p| numbered(p, &[1, 1, 1]), "1 delivered, 2 rx_replay_duplicate",
        "rxp=1 rxB=100 rxE=2 rxD=2 | XfrmInStateSeqError=2 | 2x replay"),
    ("rx_replay_old", |l| window(l, 32), |p| numbered(p, &[100, 69, 68, 50]), "2 delivered, 2 rx_replay_old",
        "rxp=2 rxB=200 rxE=2 rxD=2 | XfrmInStateSeqError=2 | 2x replay-window"),
    ("rx_replay_seq0", |l| window(l, 32), |p| numbered(p, &[0, 0]), "2 rx_replay_zero", "rxE=2 rxD=2 | XfrmInStateSeqError=2"),
    ("rx_replay_bmp", |l| window(l, 128), |p| numbered(p, &[200, 200, 73, 72]), "2 delivered, 1 rx_replay_duplicate, 1 rx_replay_old",
        "rxp=2 rxB=200 rxE=2 rxD=2 | XfrmInStateSeqError=2 | 1x replay 1x replay-window"),
    ("rx_replay_badicv_noadvance", |l| window(l, 32), |p| vec![forged(p).remove(4), p.slot(1, &inner(100))], "1 rx_bad_icv, 1 delivered",
        "rxp=1 rxB=100 rxE=1 rxD=1 | XfrmInStateProtoError=1 | 1x failed"),
    ("rx_expire_packets", |l| l.states[IN].limits.hard_packets = 3, |p| numbered(p, &[1, 2, 3, 4, 5, 6]),
        "3 delivered, 1 rx_sa_expired, 2 rx_no_sa", "rxp=3 rxB=300 rxE=3 rxD=3 | XfrmInNoStates=2 XfrmInStateExpired=1"),
    ("rx_expire_bytes", |l| l.states[IN].limits.hard_bytes = 300, |p| numbered(p, &[1, 2, 3, 4, 5, 6]),
        "3 delivered, 1 rx_sa_expired, 2 rx_no_sa", "rxp=3 rxB=300 rxE=3 rxD=3 | XfrmInNoStates=2 XfrmInStateExpired=1"),
    ("rx_sa_transport", |l| l.states[IN].mode = Mode::Transport, five, "5 rx_not_tunnel_mode", "rxE=5 rxD=5 | XfrmInStateModeError=5"),
    ("rx_trunc_8", |_| (), |p| cut(p, 8), "5 rx_truncated", "rxE=5 rxD=5 | XfrmInStateProtoError=5"),
    ("rx_trunc_24", |_| (), |p| cut(p, 24), "5 rx_truncated", "rxE=5 rxD=5 | XfrmInStateProtoError=5"),
    ("rx_bad_icv", |_| (), forged, "5 rx_bad_icv", "rxE=5 rxD=5 | XfrmInStateProtoError=5 | 5x failed"),
    ("rx_bad_padlen", |_| (), |p| carrying(p, 4, &[]), "5 rx_bad_padding", "rxE=5 rxD=5 | XfrmInStateProtoError=5"),
    ("rx_nh59_dummy", |_| (), |p| carrying(p, 59, &inner(100)), "5 rx_dummy", "rxE=5 rxD=5 | XfrmInStateProtoError=5"),
    ("rx_nh17", |_| (), |p| carrying(p, 17, &inner(100)), "5 rx_inner_proto", "rxE=5 rxD=5 | XfrmInStateModeError=5"),
    ("rx_inner_short", |_| (), |p| carrying(p, 4, &inner(100)[..12]), "5 rx_inner_short", "rxE=5 rxD=5 | XfrmInStateModeError=5"),
    ("uvti_inner_short_v6", |_| (), |p| carrying(p, 41, &[0x60; 39]), "5 rx_inner_short", "rxE=5 rxD=5 | XfrmInStateModeError=5"),
    ("rx_inner_garbage", |_| (), |p| carrying(p, 4, &[0; 40]), "5 rx_inner_version", "rxp=5 rxB=200"),
    ("rx_inner_v6_in_nh4", |_| (), |p| carrying(p, 4, &udp6("::1", "::2", 1, 2, 120)), "5 rx_inner_version", "rxp=5 rxB=600"),
    ("rx_sa_selector_mismatch", |l| l.states[IN].sel = Some(Selector { src: "10.77.0.0/16".parse().unwrap(), ..Selector::any(Family::V4) }),
        five, "5 rx_selector_mismatch", "rxE=5 rxD=5 | XfrmInStateMismatch=5"),
    ("rx_nopol", |l| { l.policies.remove(IN); }, five, "5 rx_no_policy", "rxE=5 rxD=5 | XfrmInNoPols=5"),
    ("rx_pol_mark_mismatch", |l| l.policies[IN].mark = Mark::exact(2), five, "5 rx_no_policy", "rxE=5 rxD=5 | XfrmInNoPols=5"),
    ("rx_pol_selector_mismatch", |l| l.policies[IN].sel.src = "10.77.0.0/16".parse().unwrap(), five, "5 rx_no_policy",
        "rxE=5 rxD=5 | XfrmInNoPols=5"),
    ("rx_pol_block", |l| l.policies[IN].action = Action::Block, five, "5 rx_policy_block", "rxE=5 rxD=5 | XfrmInPolBlock=5"),
    ("rx_pol_allow_notmpl", |l| l.policies[IN].templates.clear(), five, "5 rx_template_missing", "rxE=5 rxD=5 | XfrmInTmplMismatch=5"),
    ("rx_tmpl_reqid_mismatch", |l| l.policies[IN].templates[0].reqid = 9, five, "5 rx_template_mismatch",
        "rxE=5 rxD=5 | XfrmInTmplMismatch=5"),
    ("rx_tmpl_saddr_mismatch", |l| l.policies[IN].templates[0].src = ip("198.51.100.3"), five, "5 rx_template_mismatch",
        "rxE=5 rxD=5 | XfrmInTmplMismatch=5"),
    ("rx_other_vti", other_vti, |p| from(p, "198.51.100.3"), "5 rx_template_mismatch", "rxE=5 rxD=5 | XfrmInTmplMismatch=5"),

    // The order of two causes.
    ("uvti_short_no_tunnel", |_| (), |p| { let mut s = from(p, "203.0.113.9"); s.iter_mut().for_each(|s| s.buf.truncate(4)); s },
        "5 rx_short", " | XfrmInHdrError=5"),
    ("uvti_order_outer_policy_before_short", |l| outer_policy(l, Action::Block), |p| cut(p, 4), "5 rx_outer_policy_block",
        " | XfrmInPolBlock=5"),
    ("uvti_order_no_sa_before_truncated", |l| l.states[IN].spi = Spi(0x999), |p| cut(p, 8), "5 rx_no_sa",
        "rxE=5 rxD=5 | XfrmInNoStates=5"),
    ("uvti_order_encap_before_replay", |l| { udp_encap(l); window(l, 32) }, |p| numbered(p, &[0]), "1 rx_encap_mismatch",
        "rxE=1 rxD=1 | XfrmInStateMismatch=1"),
    ("uvti_order_replay_before_expired", |l| { window(l, 32); l.states[IN].limits.hard_packets = 1 }, |p| numbered(p, &[1, 1, 2]),
        "1 delivered, 1 rx_replay_duplicate, 1 rx_sa_expired",
        "rxp=1 rxB=100 rxE=2 rxD=2 | XfrmInStateSeqError=1 XfrmInStateExpired=1 | 1x replay"),
    ("uvti_order_replay_before_icv", |l| window(l, 32), |p| vec![p.slot(1, &inner(100)), forged(p).remove(0)],
        "1 delivered, 1 rx_replay_duplicate", "rxp=1 rxB=100 rxE=1 rxD=1 | XfrmInStateSeqError=1 | 1x replay"),
    ("uvti_order_expired_before_transport", |l| { l.states[IN].mode = Mode::Transport; l.states[IN].limits.hard_packets = 0 },
        |p| numbered(p, &[1]), "1 rx_sa_expired", "rxE=1 rxD=1 | XfrmInStateExpired=1"),
    ("rx_order_transport_before_icv", |l| l.states[IN].mode = Mode::Transport, forged, "5 rx_not_tunnel_mode",
        "rxE=5 rxD=5 | XfrmInStateModeError=5"),
    ("uvti_order_inner_before_policy", |l| { l.policies.remove(IN); }, |p| carrying(p, 17, &inner(100)), "5 rx_inner_proto",
        "rxE=5 rxD=5 | XfrmInStateModeError=5"),
    ("uvti_order_selector_before_policy", |l| { l.policies.remove(IN);
        l.states[IN].sel = Some(Selector { src: "10.77.0.0/16".parse().unwrap(), ..Selector::any(Family::V4) }) }, five,
        "5 rx_selector_mismatch", "rxE=5 rxD=5 | XfrmInStateMismatch=5"),
];

#[test]
fn counted_like_the_kernel() {
    CASES.iter().for_each(|case| check(&Lab::vti(), case));
}

#[rustfmt::skip]
#[test]
fn counted_like_the_kernel_over_ipv6() {
    let cases: &[Case<Packets>] = &[
        ("vti6_rx_ok", |_| (), five, "5 delivered", "rxp=5 rxB=500"),
        ("vti6_rx_unknown_spi", |l| l.states[IN].spi = Spi(0x999), five, "5 rx_no_sa", "rxE=5 rxD=5 | XfrmInNoStates=5"),
        ("vti6_rx_bad_icv", |_| (), forged, "5 rx_bad_icv", "rxE=5 rxD=5 | XfrmInStateProtoError=5 | 5x failed"),
        ("vti6_rx_tmpl_mismatch", |l| l.policies[IN].templates[0].reqid = 9, five, "5 rx_template_mismatch",
            "rxE=5 rxD=5 | XfrmInTmplMismatch=5"),
        ("vti6_rx_outer_pol_block", |l| outer_policy(l, Action::Block), five, "5 rx_outer_policy_block", " | XfrmInPolBlock=5"),
    ];
    cases.iter().for_each(|case| check(&Lab::vti6(), case));
}

#[test]
fn every_reason_of_the_core_is_here() {
    use Reason::*;
    let by_the_runtime = [RxOuterHeader, RxTooLong, RxWorkerGone, RxDeviceFull, RxDeviceRefused, RxPlainIpip];
    let behind = super::onward::CASES.iter().map(|c| c.3);
    let texts: Vec<_> = CASES.iter().map(|c| c.3).chain(behind).collect();
    assert_covered(&texts, "rx_", &by_the_runtime);
}

/// Scenario rx_order_policy_counts_sa: window, bytes and packets move before policies are asked.
#[test]
fn a_policy_drop_has_used_the_sequence_number() {
    let mut lab = Lab::vti();
    lab.states[IN].replay_window = 32;
    lab.policies[IN].action = Action::Block;
    let mut burst = numbered(&lab.peer(), &[1, 1, 2]);
    let tables = lab.tables();
    run_on(&tables, &mut burst);
    assert_eq!(Told::received(&burst).verdicts(), "2 rx_policy_block, 1 rx_replay_duplicate");
    let info = tables.states.named(&lab.states[IN].id()).unwrap().info();
    assert_eq!(
        (info.replay.seq, info.current.packets, info.current.bytes, info.stats.replay),
        (2, 2, 200, 1)
    );
}

/// With ESN a number left of the window is one of the next 2³²: its ICV is wrong. The right high half is found.
#[test]
fn esn_finds_the_high_half() {
    let mut lab = Lab::vti();
    let s = &mut lab.states[IN];
    (s.replay_window, s.flags.0) = (32, s.flags.0 | StateFlags::ESN);
    s.replay.seq = 0xffff_fff0;
    let peer = lab.peer();
    let mut burst = numbered(&peer, &[0xffff_ffff, 0x1_0000_0002, 0xffff_fffe, 0x1_0000_0000, 0xffff_ff00]);
    let tables = lab.tables();
    run_on(&tables, &mut burst);
    assert_eq!(Told::received(&burst).verdicts(), "4 delivered, 1 rx_bad_icv");
    let replay = tables.states.named(&lab.states[IN].id()).unwrap().info().replay;
    assert_eq!((replay.seq, replay.seq_hi), (2, 1));
}

/// The packet that comes out: padding off, congestion and DSCP as asked for, header checksum right.
#[test]
fn the_inner_packet_is_the_kernels() {
    let deliver = |inner_tos: u8, outer_tos: u8, flags: u8| {
        let mut lab = Lab::vti();
        lab.states[IN].flags.0 |= flags;
        let mut peer = lab.peer();
        peer.outer.tos = outer_tos;
        let mut sent = inner(100);
        crate::packet::tos::set(&mut sent, inner_tos);
        sent.extend([0; 30]);
        let mut burst = [peer.slot(1, &sent)];
        run_on(&lab.tables(), &mut burst);
        assert!(matches!(burst[0].verdict, RxVerdict::Deliver { .. }));
        assert_eq!(burst[0].len, 130);
        let b = burst[0].buf.bytes();
        assert_eq!((b.len(), crate::packet::checksum(&b[..20])), (100, 0));
        assert_eq!(b[20..], inner(100)[20..]);
        b[1]
    };
    assert_eq!(deliver(0xb9, 0x03, 0), 0xbb, "CE on ECT(1)");
    assert_eq!(deliver(0xb8, 0x03, 0), 0xb8, "CE on Not-ECT is ignored");
    assert_eq!(deliver(0x02, 0xb8, StateFlags::DECAP_DSCP), 0xba);
    assert_eq!(deliver(0xb9, 0x03, StateFlags::NOECN), 0xb9, "noecn counts on receive as well");
}

/// One inner packet's port, one policy each: a burst's flows do not borrow each other's verdicts.
#[test]
fn every_flow_is_asked_for() {
    let mut lab = Lab::vti();
    lab.policies[IN].priority = 10;
    let mut block = lab.policies[IN].clone();
    (block.action, block.priority) = (Action::Block, 5);
    block.sel.dport = crate::xfrm::PortMatch::exact(4001);
    lab.policies.push(block);
    let peer = lab.peer();
    let to = |port| udp4("10.2.0.5", "10.1.0.2", 5000, port, 100);
    let mut burst: Vec<_> =
        [4000, 4001, 4000, 4000, 4001].iter().zip(1..).map(|(p, n)| peer.slot(n, &to(*p))).collect();
    run_on(&lab.tables(), &mut burst);
    assert_eq!(Told::received(&burst).verdicts(), "3 delivered, 2 rx_policy_block");
}

/// kernel: net/ipv4/ip_tunnel.c ip_tunnel_lookup(), scenario rx_lookup_priority
#[test]
fn the_most_specific_tunnel_receives() {
    let (local, any) = (ip("198.51.100.1"), ip("0.0.0.0"));
    let devices = [
        device("exact", 21, local, ip(PEER), KEY),
        device("local-any", 22, any, ip(PEER), KEY),
        device("remote-any", 23, local, any, KEY),
        device("both-any", 24, any, any, KEY),
    ];
    for first in 0..devices.len() {
        let lab = Lab { devices: devices[first..].to_vec(), ..Lab::vti() };
        let mut burst = five(&lab.peer());
        run_on(&lab.tables(), &mut burst);
        assert!(burst.iter().all(|s| s.device == devices[first].id));
    }
}

/// Packets of an SA that is at home elsewhere go there untouched, whatever state it is in.
#[test]
fn packets_hop_to_the_home_of_their_sa() {
    let mut lab = Lab::vti();
    lab.workers = 2;
    let tables = lab.tables();
    let home = tables.states.named(&lab.states[IN].id()).unwrap().home;
    let peer = lab.peer();
    let mut burst = five(&peer);
    Receiver::default().run(&tables, &mut burst, 1 - home, NOW);
    for (slot, n) in burst.iter().zip(1..) {
        assert!(matches!(slot.verdict, RxVerdict::Hop(to) if to == home));
        assert_eq!(slot.buf.bytes(), peer.esp(n, &inner(100)).bytes());
    }
}

/// One SA for two tunnels: the first's policy accepts it, the other's does not.
#[test]
fn a_verdict_is_for_one_device() {
    let mut lab = Lab::vti();
    other_vti(&mut lab);
    lab.states.push(state(ip("198.51.100.3"), ip("198.51.100.1"), Spi(0x300), aes_gcm()));
    let peer = lab.peer();
    let other = Peer {
        outer: Outer { src: ip("198.51.100.3"), udp: None::<UdpPorts>, ..peer.outer },
        ..peer.clone()
    };
    let mut burst = [peer.slot(1, &inner(100)), other.slot(2, &inner(100)), peer.slot(3, &inner(100))];
    run_on(&lab.tables(), &mut burst);
    assert_eq!(Told::received(&burst).verdicts(), "2 delivered, 1 rx_template_mismatch");
}

/// In beet mode the inner header is made of the selector.
#[test]
fn beet_makes_the_inner_header() {
    let mut lab = Lab::vti();
    beet(&mut lab, "10.2.0.5/32", "10.1.0.2/32");
    let mut burst = udp_only(&lab.peer());
    run_on(&lab.tables(), &mut burst);
    let packet = burst[0].buf.bytes();
    assert_eq!((packet.len(), &packet[12..20]), (78, &[10, 2, 0, 5, 10, 1, 0, 2][..]));
    assert_eq!((crate::packet::checksum(&packet[..20]), &packet[20..]), (0, &inner(78)[20..]));
}

/// Scenario rx_ipip_plain; what comes from elsewhere is not the VTI's.
#[test]
fn plain_ipip_from_the_far_end_is_an_error() {
    let mut lab = Lab::vti();
    let outer = |src| Outer { src: ip(src), dst: ip("198.51.100.1"), tos: 0, udp: None };
    let seen = |lab: &Lab, src| {
        let found = crate::vti::receive::plain_ipip(&lab.tables(), &outer(src));
        found.map(|f| (f.reason, f.device.is_some()))
    };
    assert_eq!(seen(&lab, PEER), Some((Reason::RxPlainIpip, true)));
    assert_eq!(seen(&lab, "198.51.100.9"), None);
    let mut block = policy(Direction::In, 0, ip(PEER), ip("198.51.100.1"));
    (block.mark, block.action, block.sel.proto) = (Mark::default(), Action::Block, proto::IPIP);
    lab.policies.push(block);
    assert_eq!(seen(&lab, PEER), Some((Reason::RxOuterPolicyBlock, false)));
}
