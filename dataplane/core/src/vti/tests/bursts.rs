//! A burst is nothing but its packets: fed whole, cut anywhere, or one by one, everything comes out the same.

use crate::packet::testing::{set_df, udp4, udp6};
use crate::tables::Snapshot;
use crate::vti::testing::{
    IN, Lab, NOW, OUT, Peer, SPI_IN, SPI_OUT, aes_cbc_hmac_sha1, aes_gcm, ip, tx_burst,
};
use crate::vti::{Drop, Receiver, RxSlot, RxVerdict, Transmitter, TxSlot, TxVerdict};
use crate::xfrm::{Action, ExtraFlags, PortMatch, Spi, StateFlags, StateInfo, StateSpec};
use proptest::prelude::*;

/// All that a run leaves behind: a line and the bytes for each packet, and every SA.
type Left = (Vec<(String, Vec<u8>)>, Vec<(StateInfo, bool, u64)>);

fn line(drop: &Drop) -> String {
    let spi = drop.sa.as_ref().map(|sa| sa.spec.spi);
    let policy = drop.policy.as_ref().map(|p| p.spec.index);
    format!("{} {spi:?} {policy:?} mtu {}", drop.reason, drop.mtu)
}

fn states(sas: &[std::sync::Arc<crate::xfrm::Sa>]) -> Vec<(StateInfo, bool, u64)> {
    sas.iter().map(|sa| (sa.info(), sa.run.alive(), sa.run.lost())).collect()
}

/// Everything that is in the tables, dead or alive.
fn all_sas(lab: &Lab, tables: &Snapshot) -> Vec<std::sync::Arc<crate::xfrm::Sa>> {
    lab.states.iter().map(|s| tables.states.named(&s.id()).unwrap().clone()).collect()
}

/// Cuts a burst behind each of the given packets.
fn pieces<T>(burst: &mut [T], cuts: &[usize], mut each: impl FnMut(&mut [T])) {
    let mut from = 0;
    for cut in cuts.iter().copied().chain([burst.len()]) {
        let to = cut.clamp(from, burst.len());
        each(&mut burst[from..to]);
        from = to;
    }
}

fn transmit(lab: &Lab, packets: &[Vec<u8>], cuts: &[usize]) -> Left {
    let (tables, mut burst) = (lab.tables(), tx_burst(packets));
    let sas = all_sas(lab, &tables);
    let mut transmitter = Transmitter::default();
    let tell = |transmitter: &Transmitter, slot: &TxSlot| match &slot.verdict {
        TxVerdict::Pending => panic!("left undecided"),
        TxVerdict::Send { flow, .. } => {
            let decision = transmitter.decision(*flow).unwrap();
            let (spi, index) = (decision.sa.spec.spi, decision.policy.spec.index);
            format!("sent by {spi} for {index} mtu {}", decision.route.mtu)
        }
        TxVerdict::Hop(home) => format!("to {home}"),
        TxVerdict::Hold(policy, _) => format!("held by {}", policy.spec.index),
        TxVerdict::Drop(drop) => line(drop),
    };
    let mut lines = Vec::new();
    pieces(&mut burst, cuts, |piece| {
        transmitter.run(&tables, &lab.devices[0], piece, 0, NOW);
        lines.extend(piece.iter().map(|s| (tell(&transmitter, s), s.buf.bytes().to_vec())));
    });
    (lines, states(&sas))
}

fn receive(lab: &Lab, packets: &[(Peer, Vec<u8>)], cuts: &[usize]) -> Left {
    let tables = lab.tables();
    let sas = all_sas(lab, &tables);
    let received = |(peer, bytes): &(Peer, Vec<u8>)| peer.received(crate::packet::Buf::from_packet(bytes));
    let mut burst: Vec<RxSlot> = packets.iter().map(received).collect();
    let mut receiver = Receiver::default();
    let tell = |receiver: &Receiver, slot: &RxSlot| match &slot.verdict {
        RxVerdict::Pending => panic!("left undecided"),
        RxVerdict::Deliver { way } => {
            let (sa, policy) = (receiver.sa(*way).unwrap(), receiver.policy(*way).unwrap());
            format!("{} by {} for {} to {:?}", slot.len, sa.spec.spi, policy.spec.index, slot.device)
        }
        RxVerdict::Hop(home) => format!("to {home}"),
        RxVerdict::Drop(drop) => format!("{} at {:?}", line(drop), slot.device),
    };
    let mut lines = Vec::new();
    pieces(&mut burst, cuts, |piece| {
        receiver.run(&tables, piece, 0, NOW);
        lines.extend(piece.iter().map(|s| (tell(&receiver, s), s.buf.bytes().to_vec())));
    });
    (lines, states(&sas))
}

/// Small limits, often; and a start that runs out of numbers soon.
fn spoilt(spec: StateSpec) -> impl Strategy<Value = StateSpec> {
    let packets = prop_oneof![2 => Just(u64::MAX), 3 => 0u64..12];
    let bytes = prop_oneof![2 => Just(u64::MAX), 1 => 0u64..4000];
    let oseq = prop_oneof![3 => Just(0u32), 2 => 0xffff_fff0u32..=u32::MAX];
    let flags = prop::sample::select(vec![0, StateFlags::ESN, StateFlags::NOECN, StateFlags::NOPMTUDISC]);
    let window = prop::sample::select(vec![0u32, 4, 32, 64]);
    let algs = prop::sample::select(vec![aes_gcm(), aes_cbc_hmac_sha1()]);
    let extra = prop::sample::select(vec![0, ExtraFlags::OSEQ_MAY_WRAP]);
    let tfc = prop::sample::select(vec![0u32, 0, 300]);
    (packets, bytes, oseq, flags, window, extra, tfc, algs).prop_map(
        move |(packets, bytes, oseq, flags, window, extra, tfc, algs)| {
            let mut s = spec.clone();
            (s.limits.hard_packets, s.limits.hard_bytes) = (packets, bytes);
            (s.replay.oseq, s.replay_window, s.tfcpad, s.algs) = (oseq, window, tfc, algs);
            if flags == StateFlags::ESN {
                s.replay_window = window.max(1);
            }
            s.flags.0 |= flags;
            s.extra_flags.0 |= extra;
            s
        },
    )
}

/// Three SAs for output that replace each other, one of them only for some flows and perhaps all on several workers;
/// a policy that blocks some flows, one that names an SPI.
/// A VTI, or an xfrm interface whose packets are for this host.
fn labs() -> impl Strategy<Value = Lab> {
    let mut xfrm = Lab::xfrm();
    xfrm.addresses.push(ip("10.1.0.2"));
    prop_oneof![Just(Lab::vti()), Just(xfrm)]
}

pub(super) fn tx_labs() -> impl Strategy<Value = Lab> {
    labs().prop_flat_map(tx_labs_of)
}

fn tx_labs_of(lab: Lab) -> impl Strategy<Value = Lab> {
    let named = |spi| StateSpec { spi: Spi(spi), ..lab.states[OUT].clone() };
    let sas = [SPI_OUT.0, 0x101, 0x102].map(|spi| spoilt(named(spi)));
    let spi = prop::sample::select(vec![0u32, 0, 0, 0x102]);
    (sas, spi, 1u16..3, any::<[bool; 2]>()).prop_map(move |([a, b, mut c], spi, workers, [narrow, hold])| {
        let mut lab = lab.clone();
        (lab.workers, lab.settings.larval_drop) = (workers, !hold);
        if narrow {
            c.sel = Some(crate::xfrm::Selector { dport: PortMatch::exact(5001), ..c.selector() });
        }
        lab.states[OUT] = a;
        lab.states.extend([b, c]);
        lab.policies[OUT].priority = 10;
        lab.policies[OUT].templates[0].spi = Spi(spi);
        let mut block = lab.policies[OUT].clone();
        (block.action, block.priority, block.sel.dport) = (Action::Block, 5, PortMatch::exact(5003));
        lab.policies.push(block);
        lab
    })
}

pub(super) fn inner_packets() -> impl Strategy<Value = Vec<u8>> {
    let udp = (5000u16..5004, prop_oneof![28usize..400, 1400usize..1500], any::<bool>()).prop_map(
        |(port, len, df)| {
            let mut p = udp4("10.1.0.2", "10.2.0.5", 4000, port, len);
            p[1] = port as u8;
            if df {
                set_df(&mut p);
            }
            p
        },
    );
    prop_oneof![
        12 => udp,
        2 => (48usize..1500).prop_map(|len| udp6("2001:db8::1", "2001:db8::2", 4000, 5001, len)),
        1 => prop::collection::vec(any::<u8>(), 0..60),
        1 => Just(own_esp()),
    ]
}

/// What this tunnel sends, come back.
fn own_esp() -> Vec<u8> {
    let mut p = udp4("198.51.100.1", "198.51.100.2", 0, 0x100, 100);
    p[9] = 50;
    p
}

/// Numbers near each other, some twice, of two SAs; some packets are tampered with, some are short, some carry nonsense.
fn rx_packets(peer: Peer) -> impl Strategy<Value = (Peer, Vec<u8>)> {
    let kind = prop_oneof![12 => Just(0u8), 1 => Just(1), 1 => Just(2), 1 => Just(3), 1 => Just(4), 1 => Just(5), 1 => Just(6)];
    (kind, 0u64..40, inner_packets(), any::<prop::sample::Index>()).prop_map(move |(kind, seq, inner, at)| {
        let mut peer = peer.clone();
        peer.outer.tos = inner.first().copied().unwrap_or(0) & 3;
        peer.next_header = match kind {
            1 => 59,
            2 => 41,
            _ if inner.first().is_some_and(|b| b >> 4 == 6) => 41,
            _ => 4,
        };
        let mut esp = peer.esp(seq, &inner).bytes().to_vec();
        let at = at.index(esp.len());
        match kind {
            3 => esp[at] ^= 1,
            4 => esp.truncate(at),
            5 => peer.outer.src = "203.0.113.9".parse().unwrap(),
            6 => peer = peer.in_udp(),
            _ => {}
        }
        (peer, esp)
    })
}

pub(super) fn rx_labs() -> impl Strategy<Value = (Lab, Vec<(Peer, Vec<u8>)>)> {
    labs().prop_flat_map(rx_labs_of)
}

fn rx_labs_of(lab: Lab) -> impl Strategy<Value = (Lab, Vec<(Peer, Vec<u8>)>)> {
    let named = |spi| StateSpec { spi: Spi(spi), ..lab.states[IN].clone() };
    let sas = [SPI_IN.0, 0x201].map(|spi| spoilt(named(spi)));
    sas.prop_flat_map(move |[a, b]| {
        let mut lab = lab.clone();
        lab.states[IN] = b.clone();
        let other = lab.peer();
        lab.states[IN] = a;
        lab.states.push(b);
        let mut block = lab.policies[IN].clone();
        (block.action, block.sel.dport) = (Action::Block, PortMatch::exact(5003));
        lab.policies[IN].priority = 10;
        lab.policies.push(block);
        let packet = prop_oneof![3 => rx_packets(lab.peer()), 1 => rx_packets(other)];
        let packets = prop::collection::vec(packet, 0..70);
        (Just(lab), packets)
    })
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0usize..70, 0..8).prop_map(|mut cuts| {
        cuts.sort_unstable();
        cuts
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn transmit_does_not_see_bursts(
        lab in tx_labs(),
        packets in prop::collection::vec(inner_packets(), 0..70),
        cuts in cuts(),
    ) {
        let whole = transmit(&lab, &packets, &[]);
        let one_by_one: Vec<usize> = (1..=packets.len()).collect();
        prop_assert_eq!(&whole, &transmit(&lab, &packets, &cuts));
        prop_assert_eq!(&whole, &transmit(&lab, &packets, &one_by_one));
    }

    #[test]
    fn receive_does_not_see_bursts((lab, packets) in rx_labs(), cuts in cuts()) {
        let whole = receive(&lab, &packets, &[]);
        let one_by_one: Vec<usize> = (1..=packets.len()).collect();
        prop_assert_eq!(&whole, &receive(&lab, &packets, &cuts));
        prop_assert_eq!(&whole, &receive(&lab, &packets, &one_by_one));
    }
}
