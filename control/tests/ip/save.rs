//! What is saved, loaded and saved again is the same.

use crate::robust::{Anything, mark, net, policy, state};
use proptest::option::of;
use proptest::prelude::*;
use uvti::ip::batch::{Kind, plan};
use uvti::ip::save::save;
use uvti_core::device::{LinkInfo, LinkKind, LinkSpec, TunnelHeader};
use uvti_core::reason::LinkStats;
use uvti_core::tables::Op;
use uvti_core::xfrm::{
    Action, AlgAuth, AlgEnc, Algorithms, Encap, EncapKind, ExtraFlags, Family, Key, Lifetime, Limits,
    PolicyInfo, PolicySpec, ReplayCounters, SaDirection, StateFlags, StateInfo, StateSpec, StateStats,
};

/// What is saved.
#[derive(Clone, Debug, Default, PartialEq)]
struct Owned {
    links: Vec<LinkInfo>,
    states: Vec<StateInfo>,
    policies: Vec<PolicyInfo>,
    defaults: [Action; 3],
}

impl Owned {
    fn text(&self) -> String {
        save(&self.links, &self.states, &self.policies, self.defaults)
    }

    /// What a dataplane has that runs the lines.
    fn load(text: &str) -> Result<Self, String> {
        let mut owned = Owned::default();
        for line in plan("saved", text, &Anything).map_err(|errors| format!("{errors:?}"))? {
            match line.kind {
                Kind::Owned(ops) => ops.into_iter().for_each(|op| owned.apply(op)),
                Kind::System(words) => owned.system(&words),
            }
        }
        Ok(owned)
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::LinkAdd(spec) => self.links.push(link_info(spec)),
            Op::LinkChange(spec) => {
                let link = self.links.iter_mut().find(|l| l.spec.name == spec.name).unwrap();
                link.spec = spec;
            }
            Op::StateAdd(spec) => self.states.insert(0, state_info(*spec)),
            Op::PolicyAdd(spec) => self.policies.insert(0, policy_info(*spec)),
            Op::PolicyDefault { dir, action } => self.defaults[dir as usize] = action,
            other => panic!("{other:?}"),
        }
    }

    fn system(&mut self, words: &[String]) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ["link", "set", "dev", name, "mtu", mtu] = words[..] else { panic!("{words:?}") };
        self.links.iter_mut().find(|l| l.spec.name == name).unwrap().mtu = mtu.parse().unwrap();
    }
}

fn link_info(spec: LinkSpec) -> LinkInfo {
    let mtu = spec.mtu.unwrap_or(DEFAULT_MTU);
    LinkInfo { spec, ifindex: 1, up: false, mtu, txqlen: 1000, stats: LinkStats::default() }
}

/// Of a device added without.
const DEFAULT_MTU: u32 = 1480;

fn state_info(spec: StateSpec) -> StateInfo {
    let (replay, current) = (spec.replay.clone(), Lifetime::default());
    StateInfo { spec, replay, current, stats: StateStats::default() }
}

fn policy_info(spec: PolicySpec) -> PolicyInfo {
    PolicyInfo { spec, current: Lifetime::default() }
}

fn links() -> impl Strategy<Value = Vec<LinkInfo>> {
    let header =
        (any::<bool>(), any::<u8>(), any::<u8>(), any::<bool>()).prop_map(|(by_ioctl, ttl, tos, df)| {
            // iproute2 and the kernel set DF with a TTL.
            TunnelHeader { by_ioctl, ttl, tos, df: df || ttl != 0 }
        });
    let plain = prop_oneof![Just(TunnelHeader::default()), header];
    let interface = (of(Just("lo".to_owned())), 1..=u32::MAX, 68..65000u32).prop_map(|(dev, if_id, mtu)| {
        let spec = LinkSpec { if_id, dev, mtu: Some(mtu), ..LinkSpec::new(String::new(), LinkKind::Xfrm) };
        LinkInfo { mtu, ..link_info(spec) }
    });
    let one = (any::<bool>(), net(Family::V4), net(Family::V6), any::<(u32, u32)>(), 68..65000u32, plain)
        .prop_flat_map(|(v6, four, six, keys, mtu, header)| {
            (of(Just("lo".to_owned())), prop_oneof![Just(0), any::<u32>()]).prop_map(move |(dev, fwmark)| {
                let kind = if v6 { LinkKind::Vti6 } else { LinkKind::Vti };
                let end = if v6 { six.addr() } else { four.addr() };
                // A vti6 shows nothing of its header.
                let header = match (v6, header.by_ioctl) {
                    (false, _) => header,
                    (true, false) => TunnelHeader::default(),
                    (true, true) => TunnelHeader { by_ioctl: true, df: fwmark == 0, ..Default::default() },
                };
                let spec = LinkSpec {
                    name: String::new(),
                    kind,
                    local: end,
                    remote: end,
                    ikey: keys.0,
                    okey: keys.1,
                    if_id: 0,
                    dev,
                    fwmark,
                    mtu: (!header.by_ioctl).then_some(mtu),
                    header,
                };
                // `ip link set mtu` reaches one as it does the other.
                LinkInfo { mtu, ..link_info(spec) }
            })
        });
    proptest::collection::vec(prop_oneof![3 => one, 1 => interface], 0..4).prop_map(|mut links| {
        links.iter_mut().enumerate().for_each(|(n, link)| link.spec.name = format!("t{n}"));
        links
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    let many = prop_oneof![Just(u64::MAX), any::<u64>()];
    let seconds = prop_oneof![Just(0), any::<u64>()];
    (
        [many.clone(), many.clone(), many.clone(), many],
        [seconds.clone(), seconds.clone(), seconds.clone(), seconds],
    )
        .prop_map(|(m, s)| Limits {
            soft_bytes: m[0],
            hard_bytes: m[1],
            soft_packets: m[2],
            hard_packets: m[3],
            soft_add_seconds: s[0],
            hard_add_seconds: s[1],
            soft_use_seconds: s[2],
            hard_use_seconds: s[3],
        })
}

/// Everything that a state may have.
fn full_state() -> impl Strategy<Value = StateSpec> {
    let numbers = any::<(u32, u32, u32, u32)>();
    let encap =
        of((0..3usize, any::<(u16, u16)>(), net(Family::V4)).prop_map(|(kind, (sport, dport), net)| {
            let kind = [EncapKind::EspInUdp, EncapKind::EspInUdpNonIke, EncapKind::EspInTcp][kind];
            Encap { kind, sport, dport, original: net.addr() }
        }));
    let auth = of((proptest::collection::vec(any::<u8>(), 0..9), of(any::<u32>())));
    let dir = prop_oneof![Just(None), Just(Some(SaDirection::In)), Just(Some(SaDirection::Out))];
    let rest = (any::<(u32, u32, u32)>(), any::<(bool, bool)>(), dir, 0..3u8);
    (state(), mark(), numbers, limits(), encap, auth, rest).prop_map(
        |(mut spec, output_mark, (seq, seq_hi, oseq, oseq_hi), limits, encap, auth, rest)| {
            let ((tfcpad, extra, acquired), (esn, cbc), dir, selected) = rest;
            spec.output_mark = output_mark;
            spec.replay = ReplayCounters { seq, seq_hi, oseq, oseq_hi, bitmap: Vec::new() };
            (spec.limits, spec.encap, spec.tfcpad, spec.dir, spec.seq) =
                (limits, encap, tfcpad, dir, acquired);
            spec.extra_flags = ExtraFlags(if extra % 2 == 0 { extra % 4 } else { extra });
            if esn && spec.replay_window > 0 {
                spec.flags = StateFlags(spec.flags.0 | StateFlags::ESN);
            }
            if cbc {
                let enc = Some(AlgEnc { name: "cbc(aes)".into(), key: Key::new(vec![7; 16]) });
                let auth = auth.map(|(key, trunc_bits)| AlgAuth {
                    name: "hmac(sha256)".into(),
                    key: Key::new(key),
                    trunc_bits,
                });
                spec.algs = Algorithms { aead: None, enc, auth };
            }
            match selected {
                0 => spec.sel = None,
                // A selector for both families is one without addresses.
                1 if spec.flags.has(StateFlags::AF_UNSPEC) => {
                    spec.sel = spec.sel.map(|sel| uvti_core::xfrm::Selector {
                        proto: sel.proto,
                        sport: sel.sport,
                        dport: sel.dport,
                        dev: sel.dev,
                        family: None,
                        ..uvti_core::xfrm::Selector::any(Family::of(spec.dst))
                    });
                }
                _ => {}
            }
            spec
        },
    )
}

fn full_policy() -> impl Strategy<Value = PolicySpec> {
    (policy(), limits(), any::<u32>()).prop_map(|(spec, limits, index)| PolicySpec { limits, index, ..spec })
}

fn owned() -> impl Strategy<Value = Owned> {
    let states = proptest::collection::vec(full_state().prop_map(state_info), 0..4);
    let policies = proptest::collection::vec(full_policy().prop_map(policy_info), 0..4);
    let defaults = any::<[bool; 3]>().prop_map(|b| b.map(|b| if b { Action::Block } else { Action::Allow }));
    (links(), states, policies, defaults).prop_map(|(links, states, policies, defaults)| Owned {
        links,
        states,
        policies,
        defaults,
    })
}

proptest! {
    #[test]
    fn saved_loaded_and_saved_again_is_the_same(owned in owned()) {
        let text = owned.text();
        let loaded = Owned::load(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        prop_assert_eq!(&loaded, &owned, "{}", text);
        prop_assert_eq!(loaded.text(), text);
    }
}
