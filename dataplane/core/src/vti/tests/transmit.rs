//! Transmit, one line a scenario. Scenarios that start with `uvti_` were not measured: the kernel's order of checks
//! (net/ipv4/ip_vti.c vti_xmit()) says what it counts.

use super::{Case, Told, assert_covered, xfrmi};
use crate::packet::testing::{set_df, udp4, udp6};
use crate::packet::tos::EcnRule;
use crate::packet::{UDP_HEADER, proto};
use crate::reason::{LinkKind, Reason};
use crate::route::Route;
use crate::tables::{Context, Op, Snapshot, Unmarked};
use crate::vti::testing::{BELOW, IN, KEY, Lab, NOW, OUT, VTI, aes_gcm, device, ip, policy, state, tx_burst};
use crate::vti::{Transmitter, TxSlot, TxVerdict};
use crate::xfrm::{
    Action, Direction, Encap, EncapKind, ExtraFlags, Family, Level, Mark, Mode, Proto, SaDirection, Selector,
    Spi, StateFlags, StateSpec,
};
use std::sync::Arc;

pub(super) type Packets = fn() -> Vec<Vec<u8>>;

pub(super) fn flow4(len: usize) -> Vec<u8> {
    udp4("10.1.0.2", "10.2.0.5", 4000, 5000, len)
}

pub(super) fn df(len: usize) -> Vec<u8> {
    let mut p = flow4(len);
    set_df(&mut p);
    p
}

pub(super) fn flow6(len: usize) -> Vec<u8> {
    udp6("2001:db8:1::2", "2001:db8:2::5", 4000, 5000, len)
}

/// Extended sequence numbers, and the window that they need.
fn esn(l: &mut Lab) {
    l.states[OUT].flags.0 |= StateFlags::ESN;
    l.states[OUT].replay_window = 32;
}

pub(super) fn five() -> Vec<Vec<u8>> {
    vec![flow4(100); 5]
}

pub(super) fn six() -> Vec<Vec<u8>> {
    vec![flow4(100); 6]
}

pub(super) fn five6() -> Vec<Vec<u8>> {
    vec![flow6(120); 5]
}

fn run_on(tables: &Arc<Snapshot>, lab: &Lab, packets: &[Vec<u8>]) -> Vec<TxSlot> {
    let mut burst = tx_burst(packets);
    Transmitter::default().run(tables, &lab.devices[0], &mut burst, 0, NOW);
    burst
}

pub(super) fn run(lab: &Lab, packets: &[Vec<u8>]) -> Vec<TxSlot> {
    run_on(&lab.tables(), lab, packets)
}

pub(super) fn check(lab: &Lab, case: &Case<Packets>) {
    let (name, spoil, packets, verdicts, counted) = case;
    let mut lab = lab.clone();
    spoil(&mut lab);
    let told = Told::transmitted(&run(&lab, &packets()), lab.devices[0].spec.kind);
    assert_eq!((told.verdicts().as_str(), told.counted().as_str()), (*verdicts, *counted), "{name}");
}

pub(super) fn block(lab: &mut Lab, priority: u32) {
    let mut p = lab.policies[OUT].clone();
    (p.action, p.priority, p.templates) = (Action::Block, priority, vec![]);
    p.sel.dst = "10.2.0.0/16".parse().unwrap();
    lab.policies.push(p);
}

/// Template and SA in a mode without outer header: both are between the inner addresses.
pub(super) fn transport(lab: &mut Lab) {
    lab.policies[OUT].templates[0].mode = Mode::Transport;
    let s = &mut lab.states[OUT];
    (s.mode, s.src, s.dst) = (Mode::Transport, ip("10.1.0.2"), ip("10.2.0.5"));
}

/// Policy and SA between other outer addresses, with a route.
pub(super) fn ends(lab: &mut Lab, src: &str, dst: &str) {
    let (src, dst) = (ip(src), ip(dst));
    let (s, t) = (&mut lab.states[OUT], &mut lab.policies[OUT].templates[0]);
    (s.src, s.dst, t.src, t.dst) = (src, dst, src, dst);
    (lab.routes[0].0.src, lab.routes[0].0.dst) = (src, dst);
}

pub(super) fn route(lab: &mut Lab, change: fn(&mut Route)) {
    change(lab.routes[0].1.as_mut().unwrap());
}

/// vti1 below vti0, from .1 to .3, whose packets leave by `ifindex`.
pub(super) fn nest(lab: &mut Lab, ifindex: u32) {
    let (local, remote) = (ip("198.51.100.1"), ip("198.51.100.3"));
    lab.devices.push(device("vti1", 11, local, remote, 2));
    lab.states.push(state(local, remote, Spi(0x300), aes_gcm()));
    lab.policies.push(policy(Direction::Out, 2, local, remote));
    let mut below = lab.routes[0];
    (below.0.dst, below.1) = (remote, Some(Route { ifindex, mtu: 1500 }));
    lab.routes.push(below);
    route(lab, |r| r.ifindex = 11);
}

pub(super) fn udp_encap(lab: &mut Lab) {
    lab.states[OUT].encap =
        Some(Encap { kind: EncapKind::EspInUdp, sport: 4500, dport: 4500, original: ip("0.0.0.0") });
}

const GOOD: &str = "txp=5 txB=500";
const CARRIER: &str = "txE=5 carrier=5 |  | 5x host-unreach";
const NO_STATES: &str = "txE=5 carrier=5 | XfrmOutNoStates=5 | 5x host-unreach";

#[rustfmt::skip]
pub(super) const CASES: &[Case<Packets>] = &[
    ("tx_ok_fwd", |_| (), five, "5 sent", GOOD),
    ("tx_ok_6in4", |_| (), five6, "5 sent", "txp=5 txB=600"),
    ("tx_ok_sa_marked", |l| l.states[OUT].mark = Mark::exact(KEY), five, "5 sent", GOOD),
    ("tx_ok_remote_any", |l| l.devices[0].spec.remote = ip("0.0.0.0"), five, "5 sent", GOOD),
    ("tx_okey_only", |l| l.devices[0].spec.ikey = 7, five, "5 sent", GOOD),
    ("tx_ok_natt", udp_encap, five, "5 sent", GOOD),
    ("tx_short_ipv4", |_| (), || vec![vec![0x45; 10]; 5], "5 tx_runt", "txE=5"),
    ("tx_garbage_ipv4", |_| (), || vec![udp4("10.1.0.2", "0.0.0.0", 4000, 5000, 100); 5], "5 tx_no_destination", "txE=5 carrier=5"),
    ("tx_proto_arp", |_| (), || vec![vec![0; 28]; 5], "5 tx_not_ip", "txE=5"),
    ("tx_nosa_larval0", |l| { l.states.remove(OUT); l.settings.larval_drop = false }, five, "5 held", ""),
    ("tx_sa_larval", |l| { let s = l.states.remove(OUT); l.reserved.push(s) }, five, "5 tx_no_sa", NO_STATES),
    ("uvti_disable_xfrm_6in4", |l| l.devices[0].disable_xfrm = true, five6, "5 sent", "txp=5 txB=600"),
    ("tx_disable_xfrm", |l| l.devices[0].disable_xfrm = true, five, "5 tx_xfrm_disabled", CARRIER),
    ("tx_nopol_none", |l| l.policies.clear(), five, "5 tx_no_policy", CARRIER),
    ("tx_nopol_mark", |l| l.policies[OUT].mark = Mark::exact(2), five, "5 tx_no_policy", CARRIER),
    ("tx_nopol_selector", |l| l.policies[OUT].sel.dst = "10.77.0.0/16".parse().unwrap(), five, "5 tx_no_policy", CARRIER),
    ("tx_6in4_nopol", |l| l.policies[OUT].sel = Selector::any(Family::V4), five6, "5 tx_no_policy",
        "txE=5 carrier=5 |  | 5x addr-unreach"),
    ("tx_nopol_default_block_afpacket", |l| { l.settings.unmarked = Unmarked::Device; l.policies.clear(); l.block_by_default = vec![Direction::Out] }, five,
        "5 tx_default_block", CARRIER),
    ("tx_pol_block", |l| l.policies[OUT].action = Action::Block, five, "5 tx_policy_block",
        "txE=5 carrier=5 | XfrmOutPolBlock=5 | 5x host-unreach"),
    ("tx_pol_allow_notmpl", |l| l.policies[OUT].templates.clear(), five, "5 tx_bypass_policy", CARRIER),
    ("tx_pol_prio_block_shadows", |l| { l.policies[OUT].priority = 20; block(l, 10) }, five, "5 tx_policy_block",
        "txE=5 carrier=5 | XfrmOutPolBlock=5 | 5x host-unreach"),
    ("tx_pol_prio_allow_shadows", |l| { l.policies[OUT].priority = 10; block(l, 20) }, five, "5 sent", GOOD),
    ("tx_pol_prio_equal_specific", |l| block(l, 0), five, "5 sent", GOOD),
    ("tx_tmpl_reqid_mismatch", |l| l.policies[OUT].templates[0].reqid = 9, five, "5 tx_no_sa", NO_STATES),
    ("tx_tmpl_reqid0", |l| l.policies[OUT].templates[0].reqid = 0, five, "5 tx_no_sa", NO_STATES),
    ("tx_tmpl_proto_ah", |l| l.policies[OUT].templates[0].proto = Proto::Ah, five, "5 tx_no_sa", NO_STATES),
    ("tx_tmpl_spi_mismatch", |l| l.policies[OUT].templates[0].spi = Spi(0x999), five, "5 tx_no_sa", NO_STATES),
    ("tx_tmpl_spi_eexist", |l| { l.policies[OUT].templates[0].spi = Spi(0x100); l.states[OUT].reqid = 9 }, five,
        "5 tx_template_spi_clash", "txE=5 carrier=5 | XfrmOutPolError=5 | 5x host-unreach"),
    ("tx_tmpl_level_use_nosa", |l| { let t = &mut l.policies[OUT].templates[0]; (t.mode, t.level) = (Mode::Transport, Level::Use) },
        five, "5 tx_no_transform", CARRIER),
    ("tx_nosa", |l| { l.states.remove(OUT); }, five, "5 tx_no_sa", NO_STATES),
    ("tx_6in4_nosa", |l| { l.states.remove(OUT); }, five6, "5 tx_no_sa",
        "txE=5 carrier=5 | XfrmOutNoStates=5 | 5x addr-unreach"),
    ("tx_6in4_no_afunspec", |l| l.states[OUT].flags.0 = 0, five6, "5 tx_no_sa",
        "txE=5 carrier=5 | XfrmOutNoStates=5 | 5x addr-unreach"),
    ("tx_nosa_fragment", |l| { l.states.remove(OUT); }, || { let mut p = flow4(100); p[7] = 9; vec![p; 5] }, "5 tx_no_sa",
        "txE=5 carrier=5 | XfrmOutNoStates=5"),
    ("tx_nosa_icmp_inner", |l| { l.states.remove(OUT); },
        || { let mut p = flow4(100); (p[9], p[20]) = (proto::ICMP, 3); vec![p; 5] }, "5 tx_no_sa",
        "txE=5 carrier=5 | XfrmOutNoStates=5"),
    ("tx_sa_selector_mismatch", |l| l.states[OUT].sel = Some(Selector { dst: "10.77.0.0/16".parse().unwrap(), ..Selector::any(Family::V4) }),
        five, "5 tx_no_sa", NO_STATES),
    ("tx_sa_mark_mismatch", |l| l.states[OUT].mark = Mark::exact(2), five, "5 tx_no_sa", NO_STATES),
    ("tx_sa_transport_tmpl_tunnel", |l| l.states[OUT].mode = Mode::Transport, five, "5 tx_no_sa", NO_STATES),
    ("tx_sa_transport", transport, five, "5 tx_not_tunnel_mode", CARRIER),
    ("tx_sa_beet", |l| { l.policies[OUT].templates[0].mode = Mode::Beet; l.states[OUT].mode = Mode::Beet }, five,
        "5 tx_not_tunnel_mode", CARRIER),
    ("uvti_sa_dir_in", |l| l.states[OUT].dir = Some(SaDirection::In), five, "5 tx_wrong_direction",
        "txE=5 carrier=5 | XfrmOutPolError=5 XfrmOutStateDirError=5 | 5x host-unreach"),
    ("tx_outer_noroute", |l| l.routes[0].1 = None, five, "5 tx_no_outer_route",
        "txE=5 carrier=5 | XfrmOutBundleGenError=5 | 5x host-unreach"),
    ("uvti_outer_not_asked_yet", |l| l.routes.clear(), five, "5 tx_no_outer_route",
        "txE=5 carrier=5 | XfrmOutBundleGenError=5 | 5x host-unreach"),
    ("tx_state_check_daddr", |l| ends(l, "198.51.100.1", "198.51.100.3"), five, "5 tx_endpoint_mismatch", CARRIER),
    ("tx_state_check_saddr", |l| ends(l, "10.1.0.1", "198.51.100.2"), five, "5 tx_endpoint_mismatch", CARRIER),
    ("tx_state_check_family", |l| ends(l, "2001:db8::1", "2001:db8::2"), five, "5 tx_outer_family", CARRIER),
    ("tx_loop_self", |l| route(l, |r| r.ifindex = VTI), five, "5 tx_loop", "txE=5 colls=5"),
    ("uvti_own_esp", |_| (), || vec![own_esp(proto::ESP); 5], "5 tx_own_esp", "txE=5 colls=5"),
    ("uvti_own_esp_in_udp", |_| (), || vec![own_esp(proto::UDP); 5], "5 tx_own_esp", "txE=5 colls=5"),
    ("tx_loop_mutual", |l| nest(l, VTI), five, "5 tx_mutual_loop", "txE=5 aborted=5"),
    ("tx_nested_ok", |l| nest(l, BELOW), five, "5 sent", GOOD),
    ("tx_nested_nosa", |l| { nest(l, BELOW); l.states.pop(); }, five, "5 sent", GOOD),
    ("tx_big_df_fwd", |_| (), || vec![df(1470); 5], "5 tx_too_big", "txE=5 |  | 5x frag-needed mtu 1446"),
    ("uvti_big_df_1447", |_| (), || vec![df(1447); 5], "5 tx_too_big", "txE=5 |  | 5x frag-needed mtu 1446"),
    ("tx_big_df_1446", |_| (), || vec![df(1446); 5], "5 sent", "txp=5 txB=7230"),
    ("tx_big_nodf_fwd", |_| (), || vec![flow4(1470); 5], "5 sent", "txp=5 txB=7350"),
    ("tx_big_sa_nopmtudisc", |l| l.states[OUT].flags.0 |= StateFlags::NOPMTUDISC, || vec![df(1470); 5], "5 tx_too_big",
        "txE=5 |  | 5x frag-needed mtu 1446"),
    ("tx_big_6in4", |_| (), || vec![flow6(1470)], "1 tx_too_big", "txE=1 |  | 1x packet-too-big mtu 1446"),
    ("tx_natt_mtu", udp_encap, || vec![df(1439)], "1 tx_too_big", "txE=1 |  | 1x frag-needed mtu 1438"),
    ("tx_pmtu_learned", |l| route(l, |r| r.mtu = 1300), || vec![df(1260); 3], "3 tx_too_big", "txE=3 |  | 3x frag-needed mtu 1246"),
    ("uvti_device_mtu", |l| l.devices[0].mtu = 1400, || vec![df(1401)], "1 tx_too_big", "txE=1 |  | 1x frag-needed mtu 1400"),
    ("tx_expire_packets", |l| l.states[OUT].limits.hard_packets = 3, six, "3 sent, 1 tx_sa_expired, 2 tx_no_sa",
        "txp=3 txB=300 txE=3 aborted=1 carrier=2 | XfrmOutNoStates=2 XfrmOutStateExpired=1 | 2x host-unreach"),
    ("tx_expire_bytes", |l| l.states[OUT].limits.hard_bytes = 360, five, "4 sent, 1 tx_sa_expired",
        "txp=4 txB=400 txE=1 aborted=1 | XfrmOutStateExpired=1"),
    ("tx_expire_soft", |l| l.states[OUT].limits.soft_packets = 2, five, "5 sent", GOOD),
    ("tx_seq_overflow", |l| l.states[OUT].replay.oseq = 0xffff_fffd, five, "2 sent, 3 tx_seq_overflow",
        "txp=2 txB=200 txE=3 aborted=3 | XfrmOutStateSeqError=3"),
    ("tx_seq_maywrap", |l| { l.states[OUT].replay.oseq = 0xffff_fffd; l.states[OUT].extra_flags.0 = ExtraFlags::OSEQ_MAY_WRAP }, five,
        "5 sent", GOOD),
    ("tx_seq_esn_wrap", |l| { l.states[OUT].replay.oseq = 0xffff_fffd; esn(l) }, five, "5 sent", GOOD),
    ("tx_seq_esn_overflow", |l| { let r = &mut l.states[OUT].replay; (r.oseq, r.oseq_hi) = (0xffff_fffd, u32::MAX); esn(l) },
        five, "2 sent, 3 tx_seq_overflow", "txp=2 txB=200 txE=3 aborted=3 | XfrmOutStateSeqError=3"),
    ("tx_sa_tfcpad", |l| l.states[OUT].tfcpad = 300, || vec![flow4(100); 2], "2 sent", "txp=2 txB=200"),
    ("uvti_no_room_for_tfc", |l| l.states[OUT].tfcpad = 1400, five, "5 tx_no_room", "txE=5 aborted=5 | XfrmOutError=5"),
    ("tx_two_vtis_isolated", |l| { l.policies[OUT].mark = Mark::exact(2); l.states[OUT].mark = Mark::exact(2) }, five, "5 tx_no_policy", CARRIER),

    // The order of two causes.
    ("uvti_order_not_ip_before_policy", |l| l.policies.clear(), || vec![vec![0; 28]; 5], "5 tx_not_ip", "txE=5"),
    ("uvti_order_block_before_no_sa", |l| { l.policies[OUT].action = Action::Block; l.states.remove(OUT); }, five, "5 tx_policy_block",
        "txE=5 carrier=5 | XfrmOutPolBlock=5 | 5x host-unreach"),
    ("uvti_order_no_sa_before_route", |l| { l.states.remove(OUT); l.routes.clear() }, five, "5 tx_no_sa", NO_STATES),
    ("uvti_order_direction_before_route", |l| { l.states[OUT].dir = Some(SaDirection::In); l.routes.clear() }, five, "5 tx_wrong_direction",
        "txE=5 carrier=5 | XfrmOutPolError=5 XfrmOutStateDirError=5 | 5x host-unreach"),
    ("uvti_order_route_before_endpoints", |l| { ends(l, "198.51.100.1", "198.51.100.3"); l.routes.clear() }, five, "5 tx_no_outer_route",
        "txE=5 carrier=5 | XfrmOutBundleGenError=5 | 5x host-unreach"),
    ("uvti_order_endpoints_before_loop", |l| { ends(l, "198.51.100.1", "198.51.100.3"); route(l, |r| r.ifindex = VTI) }, five,
        "5 tx_endpoint_mismatch", CARRIER),
    ("uvti_order_loop_before_too_big", |l| route(l, |r| r.ifindex = VTI), || vec![df(1470); 5], "5 tx_loop", "txE=5 colls=5"),
    ("uvti_order_too_big_before_expired", |l| l.states[OUT].limits.hard_packets = 0, || vec![df(1470); 5], "5 tx_too_big",
        "txE=5 |  | 5x frag-needed mtu 1446"),
    ("uvti_order_expired_before_overflow", |l| { l.states[OUT].limits.hard_packets = 0; l.states[OUT].replay.oseq = u32::MAX }, five,
        "1 tx_sa_expired, 4 tx_no_sa",
        "txE=5 aborted=1 carrier=4 | XfrmOutNoStates=4 XfrmOutStateExpired=1 | 4x host-unreach"),
];

#[rustfmt::skip]
pub(super) const VTI6: &[Case<Packets>] = &[
    ("vti6_ok_v6", |_| (), five6, "5 sent", "txp=5 txB=600"),
    ("vti6_ok_v4", |_| (), five, "5 sent", GOOD),
    ("vti6_nosa", |l| { l.states.remove(OUT); }, five6, "5 tx_no_sa", "txE=5 txD=5 carrier=5 | XfrmOutNoStates=5 | 5x addr-unreach"),
    ("vti6_nosa_v4", |l| { l.states.remove(OUT); }, five, "5 tx_no_sa", "txE=5 txD=5 carrier=5 | XfrmOutNoStates=5 | 5x host-unreach"),
    ("vti6_nopol", |l| l.policies.clear(), five6, "5 tx_no_policy", "txE=5 txD=5 carrier=5 |  | 5x addr-unreach"),
    ("vti6_block", |l| l.policies[OUT].action = Action::Block, five6, "5 tx_policy_block",
        "txE=5 txD=5 carrier=5 | XfrmOutPolBlock=5 | 5x addr-unreach"),
    ("vti6_state_check_daddr", |l| ends(l, "2001:db8:ff::1", "2001:db8:ff::3"), five6, "5 tx_endpoint_mismatch",
        "txE=5 txD=5 carrier=5 |  | 5x addr-unreach"),
    ("vti6_loop", |l| route(l, |r| r.ifindex = VTI), five6, "5 tx_loop", "txE=5 txD=5 colls=5"),
    ("vti6_outer_noroute", |l| l.routes[0].1 = None, five6, "5 tx_no_outer_route",
        "txE=5 txD=5 carrier=5 | XfrmOutBundleGenError=5 | 5x addr-unreach"),
    ("vti6_big_v6", |_| (), || vec![flow6(1440)], "1 tx_too_big", "txE=1 txD=1 |  | 1x packet-too-big mtu 1426"),
    ("vti6_big_v4_df", |_| (), || vec![df(1440); 5], "5 tx_too_big", "txE=5 txD=5 |  | 5x frag-needed mtu 1426"),
    ("vti6_nosa_larval0", |l| { l.states.remove(OUT); l.settings.larval_drop = false }, five6, "5 held", ""),
    ("vti6_local_not_ours", |l| l.devices[0].local_not_ours = true, five6, "5 tx_local_not_ours",
        "txE=5 txD=5 carrier=5 |  | 5x addr-unreach"),
    ("uvti_vti6_remote_is_ours", |l| l.devices[0].remote_is_ours = true, five6, "5 tx_remote_is_ours",
        "txE=5 txD=5 carrier=5 |  | 5x addr-unreach"),
    ("uvti_vti6_order_ends_after_state", |l| { l.devices[0].local_not_ours = true; l.states.remove(OUT); }, five6, "5 tx_no_sa",
        "txE=5 txD=5 carrier=5 | XfrmOutNoStates=5 | 5x addr-unreach"),
    ("uvti_vti6_source_is_remote", |_| (), || vec![udp6("2001:db8:ff::2", "2001:db8:2::5", 4000, 5000, 120); 5],
        "5 tx_source_is_remote", "txE=5 txD=5"),
    ("vti6_short", |_| (), || vec![vec![0x60; 10]; 5], "5 tx_runt", "txE=5 txD=5"),
];

/// What this tunnel sends, come back.
fn own_esp(protocol: u8) -> Vec<u8> {
    let mut p = udp4("198.51.100.1", "198.51.100.2", 4500, 4500, 100);
    p[9] = protocol;
    let at = if protocol == proto::UDP { 20 + UDP_HEADER } else { 20 };
    p[at..at + 4].copy_from_slice(&[0, 0, 1, 0]);
    p
}

#[test]
fn counted_like_the_kernel() {
    CASES.iter().for_each(|case| check(&Lab::vti(), case));
}

#[test]
fn counted_like_the_kernel_over_ipv6() {
    VTI6.iter().for_each(|case| check(&Lab::vti6(), case));
}

#[test]
fn every_reason_of_the_core_is_here() {
    use Reason::*;
    // TxSealFailed: the cipher's limit is 64 GiB.
    let by_the_runtime = [
        TxWorkerGone,
        TxLowerQueueFull,
        TxLowerTooBig,
        TxSendFailed,
        TxDeviceGone,
        TxBadOffload,
        TxSealFailed,
        TxHoldQueueFull,
        TxUnmarkedHoldQueueFull,
        TxHeldPurged,
        TxHeldNoSa,
        TxHeldTooBig,
        TxHeldPolicyBlock,
        TxHeldPolicyError,
        TxHeldNoOuterRoute,
        TxHeldSaExpired,
        TxHeldSeqOverflow,
        TxHeldUnsent,
        TxSeqNotReserved,
    ];
    let lists = [CASES, VTI6, xfrmi::TX, super::unmarked::CASES];
    let texts: Vec<_> = lists.into_iter().flatten().map(|c| c.3).collect();
    assert_covered(&texts, "tx_", &by_the_runtime);
}

/// SPIs and sequence numbers of what was sent over IPv4.
fn sent(burst: &[TxSlot]) -> Vec<(u32, u32)> {
    burst
        .iter()
        .filter(|s| matches!(s.verdict, TxVerdict::Send { .. }))
        .map(|s| crate::esp::peek(&s.buf.bytes()[20..]).map(|(spi, seq)| (spi.0, seq)).unwrap())
        .collect()
}

/// The overflow repeats for ever, and neither number nor lifetime is used up by it.
#[test]
fn a_sequence_overflow_consumes_nothing() {
    let mut lab = Lab::vti();
    lab.states[OUT].replay.oseq = 0xffff_fffd;
    lab.states[OUT].limits.hard_packets = 3;
    let tables = lab.tables();
    assert_eq!(sent(&run_on(&tables, &lab, &five())), [(0x100, 0xffff_fffe), (0x100, 0xffff_ffff)]);
    for _ in 0..3 {
        let told = Told::transmitted(&run_on(&tables, &lab, &five()), LinkKind::Vti);
        assert_eq!(told.verdicts(), "5 tx_seq_overflow");
    }
    let info = tables.states.named(&lab.states[OUT].id()).unwrap().info();
    assert_eq!((info.replay.oseq, info.current.packets, info.current.bytes), (u32::MAX, 2, 200));
    assert_eq!(info.current.use_time, NOW);
}

/// What may not be used yet waits for nobody: the packet is dropped, and nothing is used up.
#[test]
fn a_number_that_is_not_reserved_is_not_used() {
    let lab = Lab::vti();
    let tables = lab.tables();
    let sa = tables.states.named(&lab.states[OUT].id()).unwrap().clone();
    sa.run.out.grant(2);
    let told = Told::transmitted(&run_on(&tables, &lab, &five()), LinkKind::Vti);
    assert_eq!(told.verdicts(), "2 sent, 3 tx_seq_not_reserved");
    assert_eq!(sa.info().current.packets, 2);
    sa.run.out.grant(u64::MAX);
    assert_eq!(sent(&run_on(&tables, &lab, &five())).first(), Some(&(0x100, 3)));
}

/// The newest SA is used, from the next packet on; when it dies, the one before it.
#[test]
fn the_newest_sa_is_used_while_it_lives() {
    let mut lab = Lab::vti();
    let newer = StateSpec { spi: Spi(0x101), ..lab.states[OUT].clone() };
    lab.states.push(newer);
    lab.states[IN + 1].limits.hard_packets = 2;
    let burst = run(&lab, &five());
    assert_eq!(sent(&burst), [(0x101, 1), (0x101, 2), (0x100, 1), (0x100, 2)]);
    assert_eq!(Told::transmitted(&burst, LinkKind::Vti).verdicts(), "4 sent, 1 tx_sa_expired");
}

/// A flow's next SA may be at home on another worker: then its packets go there as they are.
#[test]
fn packets_hop_to_the_home_of_their_sa() {
    let mut lab = Lab::vti();
    lab.workers = 2;
    let tables = lab.tables();
    let home = tables.states.named(&lab.states[OUT].id()).unwrap().home;
    let mut burst = tx_burst(&five());
    Transmitter::default().run(&tables, &lab.devices[0], &mut burst, 1 - home, NOW);
    assert!(burst.iter().all(|s| matches!(s.verdict, TxVerdict::Hop(to) if to == home)));
    assert!(burst.iter().all(|s| s.buf.bytes() == flow4(100)));
}

/// What the peer finds on the wire: outer header, IV, and inside the packet, unchanged.
#[test]
fn the_outer_packet_is_the_kernels() {
    let lab = Lab::vti();
    let mut inner = df(100);
    inner[1] = 0xbb;
    let mut burst = run(&lab, &[inner.clone(), flow4(1470)]);
    let b = burst[0].buf.bytes();
    assert_eq!(
        (b[1], &b[4..8], b[8], b[9]),
        (0xba, &[0, 0, 0x40, 0][..], 64, proto::ESP),
        "CE becomes ECT(0)"
    );
    assert_eq!(b.len(), 20 + 136);
    let sa = lab.tables().states.named(&lab.states[OUT].id()).unwrap().clone();
    assert_eq!(b[28..36], (sa.run.salt() ^ 1).to_be_bytes(), "salt xor number");
    let buf = &mut burst[0].buf;
    buf.pull_front(20);
    sa.crypter.open(buf, None).unwrap();
    assert_eq!(buf.bytes(), inner);
    let big = burst[1].buf.bytes();
    assert_eq!((big.len() > 1500, big[6]), (true, 0), "whole, to be cut outside");
    assert_ne!(big[4..6], [0, 0]);
}

/// kernel: net/ipv4/esp4.c esp_output(): padding ends where the path does.
#[test]
fn tfc_padding_does_not_exceed_the_path() {
    let mut lab = Lab::vti();
    lab.states[OUT].tfcpad = 9000;
    lab.routes[0].1 = Some(Route { ifindex: BELOW, mtu: 400 });
    assert_eq!(run(&lab, &five())[0].buf.len(), 400);
}

/// Keys of a deleted SA are wiped with its last owner: what is remembered of flows must not be that.
#[test]
fn what_is_remembered_ends_with_the_tables() {
    let lab = Lab::vti();
    let tables = lab.tables();
    let mut transmitter = Transmitter::default();
    transmitter.run(&tables, &lab.devices[0], &mut tx_burst(&five()), 0, NOW);
    let sa = Arc::downgrade(tables.states.named(&lab.states[OUT].id()).unwrap());
    drop(tables);
    assert!(sa.upgrade().is_some());
    transmitter.follow(&lab.tables());
    assert!(sa.upgrade().is_none());
}

/// Scenario tx_nosa_km: one acquire, whatever the number of packets; what it says is what the kernel says.
#[test]
fn an_sa_that_is_missing_is_asked_for_once() {
    let mut lab = Lab::vti();
    lab.states.remove(OUT);
    lab.settings.key_manager = true;
    let mut tables = (*lab.tables()).clone();
    let mut transmitter = Transmitter::default();
    let mut send = |tables: &Snapshot| {
        transmitter.run(&Arc::new(tables.clone()), &lab.devices[0], &mut tx_burst(&five()), 0, NOW);
        transmitter.acquires().collect::<Vec<_>>()
    };
    let acquires = send(&tables);
    assert_eq!(acquires.len(), 1);
    let larval = tables.acquire(&acquires[0], NOW).unwrap();
    let (spec, sel) = (&larval.spec, larval.spec.sel.as_ref().unwrap());
    assert_eq!((spec.spi, spec.mark, spec.reqid, spec.seq.to_be()), (Spi(0), Mark::exact(KEY), 1, 1));
    assert_eq!(
        (sel.src.to_string(), sel.dport.value, sel.dev.as_deref()),
        ("10.1.0.2/32".into(), 5000, Some("vti0"))
    );
    assert_eq!(tables.acquire(&acquires[0], NOW), None, "in progress");
    assert!(send(&tables).is_empty());
    assert_eq!(tables.state_infos().len(), 2);
    // Scenario tx_nosa_acq_expires: after 30 s it is asked for again.
    assert!(tables.expire_larvals(NOW + 29).is_empty());
    assert_eq!(tables.expire_larvals(NOW + 30), [larval]);
    assert_eq!(send(&tables).len(), 1);
}

/// The SA that comes takes the place of its larval state, be it added or updated.
#[test]
fn a_state_that_is_added_delivers_its_larval_state() {
    for reserved in [false, true] {
        let mut lab = Lab::vti();
        let spec = lab.states.remove(OUT);
        lab.settings.key_manager = true;
        let mut tables = (*lab.tables()).clone();
        let mut transmitter = Transmitter::default();
        transmitter.run(&Arc::new(tables.clone()), &lab.devices[0], &mut tx_burst(&five()), 0, NOW);
        let acquire = transmitter.acquires().next().unwrap();
        tables.acquire(&acquire, NOW).unwrap();
        let mut random = || 7;
        let mut cx = Context { now: NOW, random: &mut random };
        let new = StateSpec { mark: Mark::exact(KEY), ..spec };
        let op = if reserved {
            tables.allocate(&new, (0x100, 0x100), &mut cx).unwrap();
            assert_eq!(tables.states.larvals.iter().count(), 1, "the one that asked has the SPI");
            assert!(tables.allocate(&new, (0x100, 0x100), &mut cx).is_err(), "taken");
            assert!(tables.apply(&Op::StateAdd(Box::new(new.clone())), &mut cx).is_err(), "kernel: EEXIST");
            Op::StateUpdate(Box::new(new))
        } else {
            Op::StateAdd(Box::new(new))
        };
        tables.apply(&op, &mut cx).unwrap();
        assert_eq!((tables.states.larvals.iter().count(), tables.states.len()), (0, 2));
        assert_eq!(
            Told::transmitted(&run_on(&Arc::new(tables), &lab, &five()), LinkKind::Vti).verdicts(),
            "5 sent"
        );
    }
}

/// kernel: net/xfrm/xfrm_state.c xfrm_state_look_at(): an older SA is better than one that has reached a soft limit, but
/// a dying one is better than none.
#[test]
fn a_dying_sa_gives_way_to_an_older_one() {
    let mut lab = Lab::vti();
    let newer = StateSpec { spi: Spi(0x101), ..lab.states[OUT].clone() };
    lab.states.push(newer);
    lab.states[IN + 1].limits.soft_packets = 2;
    let tables = lab.tables();
    let spis = |burst: &[TxSlot]| sent(burst).into_iter().map(|(spi, _)| spi).collect::<Vec<_>>();
    assert_eq!(spis(&run_on(&tables, &lab, &five())), [0x101, 0x101, 0x101, 0x100, 0x100]);
    let newest = tables.states.newest_first()[0];
    assert!(newest.run.is_news() && !newest.run.is_news(), "told once");
    lab.states.remove(OUT);
    assert_eq!(spis(&run(&lab, &five())), [0x101; 5]);
}

/// `--ecn rfc6040`: CE is copied to the outer header, which by the kernel's rule it is not.
#[test]
fn congestion_goes_out_by_the_rule() {
    let outer_tos = |rule| {
        let mut lab = Lab::vti();
        lab.settings.ecn = rule;
        let mut inner = flow4(100);
        crate::packet::tos::set(&mut inner, 0xbb);
        run(&lab, &[inner])[0].buf.bytes()[1]
    };
    assert_eq!([EcnRule::Kernel, EcnRule::Rfc6040].map(outer_tos), [0xba, 0xbb]);
}
