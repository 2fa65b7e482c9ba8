//! `explain` says what the datapath then does, and changes nothing.

use super::bursts::{inner_packets, rx_labs, tx_labs};
use super::{Told, icmp_error, receive, transmit, unmarked, xfrmi};
use crate::packet::testing::{set_df, udp4};
use crate::packet::{Buf, UdpPorts};
use crate::reason::{LinkStats, Mib, Reason};
use crate::tables::Snapshot;
use crate::vti::explain::{self, Context, Esp, Explanation, Outcome};
use crate::vti::testing::{IN, Lab, NOW, OUT, tx_burst};
use crate::vti::{Receiver, RxSlot, RxVerdict, Stage, Transmitter, TxVerdict};
use crate::xfrm::{Action, Mark, Mode, PortMatch, Spi};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const CX: Context<'static> =
    Context { ifname: &|index| format!("if{index}"), onward: &|_, _, dst| super::onward::way(dst) };

/// All that changes per packet, of every SA and policy in the tables.
fn runtime(tables: &Arc<Snapshot>) -> String {
    let sas: Vec<_> = tables.states.iter().map(|sa| format!("{:?}", sa.run)).collect();
    let policies: Vec<_> = tables.policies.newest_first().iter().map(|p| format!("{:?}", p.info())).collect();
    format!("{sas:?} {policies:?}")
}

/// Explains without a trace.
fn unchanged(tables: &Arc<Snapshot>, explain: impl FnOnce() -> Explanation) -> Explanation {
    let before = runtime(tables);
    let explanation = explain();
    assert_eq!(before, runtime(tables), "explaining changed something: {explanation:?}");
    let fails = explanation.checks.iter().filter(|c| c.result == Outcome::Fail).count();
    assert_eq!(fails, usize::from(!explanation.verdict.passes), "{explanation:?}");
    explanation
}

pub(super) fn explain_tx(tables: &Arc<Snapshot>, lab: &Lab, packet: &[u8]) -> Explanation {
    let device = tables.devices.get(lab.devices[0].id).unwrap();
    unchanged(tables, || explain::transmit(tables, device, Buf::from_packet(packet), &CX))
}

pub(super) fn explain_rx(tables: &Arc<Snapshot>, slot: &RxSlot) -> Explanation {
    let copy = Esp::Packet(Buf::from_packet(slot.buf.bytes()));
    unchanged(tables, || explain::receive(tables, &slot.outer, copy, &CX))
}

/// What the explanations of a scenario's packets say is counted, in the words of the scenario.
#[derive(Default)]
struct Foretold {
    link: LinkStats,
    mib: BTreeMap<Mib, u64>,
}

impl Foretold {
    fn add(&mut self, explanation: &Explanation) {
        let (to, from) = (&mut self.link, &explanation.counts.link);
        to.rx_packets += from.rx_packets;
        to.rx_bytes += from.rx_bytes;
        to.rx_errors += from.rx_errors;
        to.rx_frame_errors += from.rx_frame_errors;
        to.rx_dropped += from.rx_dropped;
        to.tx_packets += from.tx_packets;
        to.tx_bytes += from.tx_bytes;
        to.tx_errors += from.tx_errors;
        to.tx_dropped += from.tx_dropped;
        to.collisions += from.collisions;
        to.tx_carrier_errors += from.tx_carrier_errors;
        to.tx_aborted_errors += from.tx_aborted_errors;
        for mib in explanation.counts.xfrm.iter().copied() {
            *self.mib.entry(mib).or_default() += 1;
        }
    }

    /// Without the notes, which the caller has compared.
    fn counted(self) -> String {
        Told { link: self.link, mib: self.mib, ..Told::default() }.counted()
    }
}

/// Explains each packet and then really sends it: the same reason, the same ICMP error.
fn transmit_both(tables: &Arc<Snapshot>, lab: &Lab, packets: &[Vec<u8>], name: &str) -> Foretold {
    let mut foretold = Foretold::default();
    for packet in packets {
        let said = explain_tx(tables, lab, packet);
        let mut burst = tx_burst(std::slice::from_ref(packet));
        Transmitter::default().run(tables, &lab.devices[0], &mut burst, home(tables, &said), NOW);
        if let TxVerdict::Hold(_, stage) = &burst[0].verdict {
            // The runtime counts what waits.
            let counted = u64::from(*stage == Stage::Device);
            assert_eq!(
                (said.verdict.passes, said.counts.link.tx_packets),
                (true, counted),
                "{name}: {said:?}"
            );
            continue;
        }
        let (done, told) = match &burst[0].verdict {
            TxVerdict::Send { .. } => (None, None),
            TxVerdict::Drop(drop) => (Some(drop.reason.row().name), icmp_error(&burst[0], drop)),
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(said.verdict.reason.as_deref(), done, "{name}: {said:?}");
        let mtu = |told: &str| told.split_once("mtu ").map(|(_, m)| m.split(' ').next().map(str::to_owned));
        assert_eq!(said.icmp.as_deref().map(mtu), told.as_deref().map(mtu), "{name}: {said:?}");
        foretold.add(&said);
    }
    foretold
}

/// The worker at which the packet's SA is at home: what hops there is decided there.
fn home(tables: &Arc<Snapshot>, said: &Explanation) -> u16 {
    let spi = said.seen.sa.as_ref().map(|sa| sa.spi.clone());
    let found = tables.states.iter().find(|sa| Some(sa.spec.spi.to_string()) == spi);
    found.map_or(0, |sa| sa.home)
}

fn receive_both(tables: &Arc<Snapshot>, slots: Vec<RxSlot>, name: &str) -> Foretold {
    let mut foretold = Foretold::default();
    for slot in slots {
        let said = explain_rx(tables, &slot);
        let mut burst = [slot];
        Receiver::default().run(tables, &mut burst, home(tables, &said), NOW);
        let done = match &burst[0].verdict {
            RxVerdict::Deliver { .. } => {
                assert_eq!(said.counts.link.rx_bytes, burst[0].len as u64, "{name}");
                None
            }
            RxVerdict::Drop(drop) => Some(drop.reason.row().name),
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(said.verdict.reason.as_deref(), done, "{name}: {said:?}");
        assert_eq!(said.device.is_some(), burst[0].device != crate::device::DeviceId::NONE, "{name}");
        foretold.add(&said);
    }
    foretold
}

/// The part of a scenario's counters that stands in front of its notes.
fn without_notes(counted: &str) -> String {
    let parts: Vec<&str> = counted.split(" | ").take(2).collect();
    parts.join(" | ").trim_end_matches([' ', '|']).to_owned()
}

/// Every scenario that a kernel was measured with, packet by packet.
#[test]
fn what_is_said_of_a_packet_is_what_the_kernel_counts_for_it() {
    let over_v4 = transmit::CASES.iter().map(|case| (Lab::vti(), case));
    let over_v6 = transmit::VTI6.iter().map(|case| (Lab::vti6(), case));
    let by_interface = xfrmi::TX.iter().map(|case| (Lab::xfrm(), case));
    let unmarked = unmarked::CASES.iter().map(|case| (unmarked::lab(), case));
    let all = over_v4.chain(over_v6).chain(by_interface).chain(unmarked);
    for (mut lab, (name, spoil, packets, _, counted)) in all {
        spoil(&mut lab);
        let foretold = transmit_both(&lab.tables(), &lab, &packets(), name);
        assert_eq!(foretold.counted(), without_notes(counted), "{name}");
    }
    let by_vti = receive::CASES.iter().map(|case| (Lab::vti(), case));
    let by_interface = xfrmi::RX.iter().map(|case| (Lab::xfrm(), case));
    for (mut lab, (name, spoil, packets, _, counted)) in by_vti.chain(by_interface) {
        let slots = packets(&lab.peer());
        spoil(&mut lab);
        let foretold = receive_both(&lab.tables(), slots, name);
        assert_eq!(foretold.counted(), without_notes(counted), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn transmit_is_foretold(lab in tx_labs(), packets in prop::collection::vec(inner_packets(), 0..40)) {
        transmit_both(&lab.tables(), &lab, &packets, "");
    }

    #[test]
    fn receive_is_foretold((lab, packets) in rx_labs()) {
        let slots = packets.iter().map(|(peer, bytes)| peer.received(Buf::from_packet(bytes))).collect();
        receive_both(&lab.tables(), slots, "");
    }
}

/// A reason that no step has would show as a check of its own name, at the end.
#[test]
fn every_reason_of_the_core_is_a_step() {
    let (name, by_the_runtime) = (
        "name",
        [
            // Of packets that have waited, and of what is not ESP.
            "tx_bad_offload",
            "tx_held_purged",
            "tx_held_no_sa",
            "tx_held_too_big",
            "tx_held_policy_block",
            "tx_held_policy_error",
            "tx_held_no_outer_route",
            "tx_held_sa_expired",
            "tx_held_seq_overflow",
            "tx_held_unsent",
            "rx_plain_ipip",
            "tx_worker_gone",
            "tx_lower_queue_full",
            "tx_lower_too_big",
            "tx_send_failed",
            "tx_device_gone",
            "rx_outer_header",
            "rx_too_long",
            "rx_worker_gone",
            "rx_device_full",
            "rx_device_refused",
        ],
    );
    let missing: Vec<_> = Reason::ALL
        .iter()
        .filter(|r| !by_the_runtime.contains(&r.row().name) && !explain::has_step(**r))
        .collect();
    assert!(missing.is_empty(), "{name}: {missing:?}");
}

fn flow() -> Vec<u8> {
    udp4("10.1.0.2", "10.2.0.5", 4000, 5000, 100)
}

fn near_tx(spoil: impl FnOnce(&mut Lab), packet: &[u8]) -> Vec<(String, Vec<String>)> {
    let mut lab = Lab::vti();
    // As `ip xfrm policy add` without `sel` makes them.
    lab.policies.iter_mut().for_each(|p| p.sel.family = Some(crate::xfrm::Family::V4));
    spoil(&mut lab);
    told(explain_tx(&lab.tables(), &lab, packet))
}

fn near_rx(spoil: impl FnOnce(&mut Lab), seqs: &[u64]) -> Vec<(String, Vec<String>)> {
    let mut lab = Lab::vti();
    lab.policies.iter_mut().for_each(|p| p.sel.family = Some(crate::xfrm::Family::V4));
    let peer = lab.peer();
    spoil(&mut lab);
    let tables = lab.tables();
    let mut said = None;
    for seq in seqs {
        let slot = peer.slot(*seq, &udp4("10.2.0.5", "10.1.0.2", 5000, 4000, 100));
        said = Some(explain_rx(&tables, &slot));
        Receiver::default().run(&tables, &mut [slot], 0, NOW);
    }
    told(said.unwrap())
}

pub(super) fn told(said: Explanation) -> Vec<(String, Vec<String>)> {
    said.near.into_iter().map(|n| (n.text, n.repair)).collect()
}

fn one(text: &str, repair: &[&str]) -> Vec<(String, Vec<String>)> {
    vec![(text.to_owned(), repair.iter().map(|s| (*s).to_owned()).collect())]
}

const OUT_TMPL: &str = "tmpl src 198.51.100.1 dst 198.51.100.2 proto esp reqid 1 mode tunnel";
const ADD_OUT: &str = "uvti ip xfrm state add src 198.51.100.1 dst 198.51.100.2 proto esp spi 0x00000100";
const DEL_OUT: &str = "uvti ip xfrm state delete src 198.51.100.1 dst 198.51.100.2 proto esp spi 0x00000100";
const ALG: &str = "flag 0x20 aead 'rfc4106(gcm(aes))' $KEY 128";

#[test]
fn policies_that_nearly_match() {
    assert_eq!(
        near_tx(|l| l.policies[OUT].mark = Mark::exact(2), &flow()),
        one(
            "policy 1 would match, but its mark is 0x2, the device's key is 0x1",
            &[&format!("uvti ip xfrm policy update src 0.0.0.0/0 dst 0.0.0.0/0 dir out mark 0x1 {OUT_TMPL}")]
        )
    );
    let ports =
        |l: &mut Lab| (l.policies[OUT].sel.proto, l.policies[OUT].sel.dport) = (17, PortMatch::exact(5001));
    assert_eq!(
        near_tx(ports, &flow()),
        one(
            "policy 1 would match, but its selector wants dport 5001, the packet has 5000",
            &[&format!(
                "uvti ip xfrm policy update src 0.0.0.0/0 dst 0.0.0.0/0 proto udp dport 5000 dir out mark 0x1 {OUT_TMPL}"
            )]
        )
    );
    let both = |l: &mut Lab| {
        l.policies[OUT].sel.dst = "10.77.0.0/16".parse().unwrap();
        l.policies[OUT].mark = Mark::exact(2);
    };
    assert_eq!(
        near_tx(both, &flow()),
        one(
            "policy 1 would match, but its mark is 0x2, the device's key is 0x1, and its selector wants dst \
             10.77.0.0/16, the packet has 10.2.0.5",
            &[&format!(
                "uvti ip xfrm policy update src 0.0.0.0/0 dst 10.2.0.0/16 dir out mark 0x1 {OUT_TMPL}"
            )]
        )
    );
    assert_eq!(
        near_tx(|l| l.policies.clear(), &flow()),
        one(
            "there is no policy with dir out",
            &[&format!("uvti ip xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir out mark 0x1 {OUT_TMPL}")]
        )
    );
    let shadowed = |l: &mut Lab| {
        let mut block = l.policies[OUT].clone();
        (block.action, block.priority, block.sel.dst) = (Action::Block, 5, "10.2.0.0/16".parse().unwrap());
        l.policies[OUT].priority = 10;
        l.policies.push(block);
    };
    let found = near_tx(shadowed, &flow());
    assert_eq!(
        found[0].0,
        "policy 1 (priority 10) would let it through, but policy 17 (priority 5) comes first"
    );
    assert_eq!(
        found[0].1,
        [format!(
            "uvti ip xfrm policy update src 0.0.0.0/0 dst 0.0.0.0/0 dir out mark 0x1 priority 4 {OUT_TMPL}"
        )]
    );
}

#[test]
fn states_that_nearly_fit() {
    assert_eq!(
        near_tx(|l| l.states[OUT].mode = Mode::Transport, &flow()),
        one(
            "SA 0x00000100 (reqid 1) exists, but it is in transport mode, the template wants tunnel",
            &[DEL_OUT, &format!("{ADD_OUT} reqid 1 mode tunnel {ALG}")]
        )
    );
    assert_eq!(
        near_tx(|l| l.policies[OUT].templates[0].reqid = 9, &flow()),
        one(
            "SA 0x00000100 (reqid 1) exists, but its reqid is 1, the template's is 9",
            &[&format!("uvti ip xfrm policy update src 0.0.0.0/0 dst 0.0.0.0/0 dir out mark 0x1 {OUT_TMPL}")]
        )
    );
    assert_eq!(
        near_tx(|l| l.states[OUT].mark = Mark::exact(2), &flow()),
        one(
            "SA 0x00000100 (reqid 1) exists, but its mark is 0x2, the policy's is 0x1",
            &[&format!("{DEL_OUT} mark 0x2"), &format!("{ADD_OUT} reqid 1 mode tunnel {ALG}")]
        )
    );
    assert_eq!(
        near_tx(|l| l.states.clear(), &flow()),
        one(
            "there is no SA from 198.51.100.1 to 198.51.100.2, nor one that is nearly so",
            &[
                "uvti ip xfrm state add src 198.51.100.1 dst 198.51.100.2 proto esp spi $SPI reqid 1 mode tunnel \
               aead 'rfc4106(gcm(aes))' $KEY 128"
            ]
        )
    );
    assert_eq!(
        near_tx(|l| l.states[OUT].limits.hard_packets = 0, &flow())[0].0,
        "SA 0x00000100 (reqid 1) is used up: 0 of 0 packets, 0 bytes, last number sent 0"
    );
    let far = "198.51.100.3".parse().unwrap();
    let ends = |l: &mut Lab| {
        (l.states[OUT].dst, l.policies[OUT].templates[0].dst, l.routes[0].0.dst) = (far, far, far);
    };
    assert_eq!(
        near_tx(ends, &flow()),
        one(
            "SA 0x00000100 goes from 198.51.100.1 to 198.51.100.3, the device from 198.51.100.1 to 198.51.100.2",
            &[&format!("uvti ip xfrm policy update src 0.0.0.0/0 dst 0.0.0.0/0 dir out mark 0x1 {OUT_TMPL}")]
        )
    );
}

#[test]
fn the_path_and_the_device() {
    let mut big = udp4("10.1.0.2", "10.2.0.5", 4000, 5000, 1470);
    set_df(&mut big);
    assert_eq!(
        near_tx(|_| (), &big),
        one(
            "the largest that passes is 1446 bytes, the device's MTU is 1480",
            &["uvti ip link set dev vti0 mtu 1446"]
        )
    );
    assert_eq!(
        near_tx(|l| l.routes[0].1 = None, &flow()),
        one(
            "the host has no route to 198.51.100.2 from 198.51.100.1",
            &["ip route add 198.51.100.2 via $GATEWAY"]
        )
    );
    assert_eq!(
        near_tx(|l| l.devices[0].disable_xfrm = true, &flow()),
        one("disable_xfrm is set on vti0", &["sysctl -w net.ipv4.conf.vti0.disable_xfrm=0"])
    );
    assert_eq!(
        near_rx(|l| l.devices[0].up = false, &[1]),
        one("vti0 would take it, but it is down", &["ip link set dev vti0 up"])
    );
    let remote = "203.0.113.1".parse().unwrap();
    assert_eq!(
        near_rx(|l| l.devices[0].spec.remote = remote, &[1]),
        one(
            "vti0 would take it, but its remote is 203.0.113.1, the packet comes from 198.51.100.2",
            &["uvti ip link change vti0 type vti local 198.51.100.1 remote 198.51.100.2"]
        )
    );
}

const ADD_IN: &str = "uvti ip xfrm state add src 198.51.100.2 dst 198.51.100.1 proto esp spi 0x00000200";
const DEL_IN: &str = "uvti ip xfrm state delete src 198.51.100.2 dst 198.51.100.1 proto esp spi 0x00000200";

#[test]
fn received_packets_that_nearly_passed() {
    assert_eq!(
        near_rx(|l| l.states[IN].replay_window = 32, &[4742, 4699]),
        one(
            "sequence 4699 is 12 left of the window (4711 to 4742)",
            &[DEL_IN, &format!("{ADD_IN} reqid 1 mode tunnel replay-window 64 {ALG}")]
        )
    );
    assert_eq!(
        near_rx(|l| l.states[IN].replay_window = 32, &[7, 7]),
        one("sequence 7 was received before (window 1 to 7)", &[])
    );
    assert_eq!(
        near_rx(|l| l.states[IN].spi = Spi(0x999), &[1]),
        one(
            "SA 0x00000999 (reqid 1) exists, but the packet has spi 0x00000200",
            &[&DEL_IN.replace("0200", "0999"), &format!("{ADD_IN} reqid 1 mode tunnel {ALG}")]
        )
    );
    assert_eq!(
        near_rx(|l| l.policies[IN].templates[0].reqid = 9, &[1]),
        one(
            "policy 8 matches, but its template wants reqid 9, the SA has 1",
            &[
                "uvti ip xfrm policy update src 0.0.0.0/0 dst 0.0.0.0/0 dir in mark 0x1 tmpl src 198.51.100.2 dst \
               198.51.100.1 proto esp reqid 1 mode tunnel"
            ]
        )
    );
    assert_eq!(
        near_rx(|l| l.policies[IN].mark = Mark::default(), &[1])[0].0,
        "policy 8 has no mark, so that it meets the outer packet; the device's key is 0x1"
    );
}

#[test]
fn an_icv_that_is_right_for_another() {
    let esn = near_rx(|l| (l.states[IN].flags.0, l.states[IN].replay_window) = (0xa0, 32), &[1]);
    assert_eq!(
        esn,
        one(
            "SA 0x00000200 (reqid 1) has ESN, the peer has not",
            &[DEL_IN, &format!("{ADD_IN} reqid 1 mode tunnel replay-window 32 {ALG}")]
        )
    );
    let exchanged = |l: &mut Lab| {
        let mut other = l.states[IN].clone();
        other.spi = Spi(0x201);
        l.states.push(other);
        l.states[IN].algs = crate::vti::testing::chacha20_poly1305();
    };
    assert_eq!(
        near_rx(exchanged, &[1]),
        one("the ICV is right with the key of SA 0x00000201 (reqid 1)", &[])
    );
}

/// Without ciphertext it is explained up to the decryption, and with an inner packet on from there.
#[test]
fn a_header_is_explained_as_far_as_it_goes() {
    let mut lab = Lab::vti();
    lab.states[IN].replay_window = 32;
    let tables = lab.tables();
    let peer = lab.peer();
    let explain = |seq, inner: Option<Vec<u8>>| {
        let inner = inner.map(|p| Buf::from_packet(&p));
        let esp = Esp::Header { spi: lab.states[IN].spi, seq, inner };
        unchanged(&tables, || explain::receive(&tables, &peer.outer, esp, &CX))
    };
    let results = |said: &Explanation, result: Outcome| -> Vec<String> {
        said.checks.iter().filter(|c| c.result == result).map(|c| c.name.clone()).collect()
    };
    let said = explain(1, None);
    assert!(said.verdict.passes);
    assert_eq!(
        results(&said, Outcome::Unchecked),
        ["icv", "padding", "inner packet", "selector", "policy", "template"]
    );
    assert_eq!(explain(0, None).verdict.reason.as_deref(), Some("rx_replay_zero"));
    let said = explain(1, Some(udp4("10.2.0.5", "10.1.0.2", 5000, 4000, 100)));
    assert_eq!(results(&said, Outcome::Unchecked), ["icv", "padding"]);
    assert_eq!((said.verdict.passes, said.counts.link.rx_bytes), (true, 100));
    assert_eq!(said.verdict.meaning, "Delivered to vti0, if it is authentic.");
}

/// ESP to us is told from ESP of ours, and from UDP that is none.
#[test]
fn the_direction_of_a_captured_packet() {
    let lab = Lab::vti();
    let tables = lab.tables();
    let mut esp = udp4("198.51.100.2", "198.51.100.1", 0, 0x200, 60);
    esp[9] = 50;
    esp[20..24].copy_from_slice(&0x200u32.to_be_bytes());
    let back = [&esp[..12], &esp[16..20], &esp[12..16], &esp[20..]].concat();
    let padded = [&esp[..], &[0; 9]].concat();
    let natt = udp4("198.51.100.2", "198.51.100.1", 4500, 4500, 60);
    let other = udp4("198.51.100.2", "198.51.100.1", 4500, 53, 60);
    let found = |p: &[u8]| explain::received(&tables, p).map(|i| (i.buf.len(), i.outer.udp));
    assert_eq!(found(&esp), Some((40, None)));
    assert_eq!(found(&padded), Some((40, None)), "what the link layer added is not the packet's");
    assert_eq!(found(&natt), Some((32, Some(UdpPorts { src: 4500, dst: 4500 }))));
    assert_eq!((found(&back), found(&other), found(&[]), found(&flow())), (None, None, None, None));
}
