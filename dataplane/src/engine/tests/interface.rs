//! xfrm interfaces in an engine: by if_id, with policies for what is forwarded, and rules for their changes.

use super::*;

const IF_ID: u32 = 5;

fn interface(name: &str, if_id: u32) -> LinkSpec {
    LinkSpec { if_id, ..LinkSpec::new(name, LinkKind::Xfrm) }
}

/// The tunnel of [`tunnel`] or [`far_end`] by an interface, without marks.
fn by_interface(mut ops: Vec<Op>) -> Vec<Op> {
    for op in &mut ops {
        match op {
            Op::LinkAdd(spec) => *spec = interface("vti0", IF_ID),
            Op::StateAdd(spec) => spec.if_id = IF_ID,
            Op::PolicyAdd(spec) => {
                (spec.mark, spec.if_id) = (Mark::default(), IF_ID);
                spec.dir = if spec.dir == Direction::In { Direction::Fwd } else { spec.dir };
            }
            _ => {}
        }
    }
    ops
}

#[test]
fn packets_cross_two_engines_by_interfaces() {
    let (a, b) = (lab(2, || Honest), lab(2, || Honest));
    a.engine.apply(&by_interface(tunnel(3))).unwrap();
    b.engine.apply(&by_interface(far_end(3))).unwrap();
    a.send(20, 3);
    let (mut wire, mut inner) = (Vec::new(), Vec::new());
    until("60 packets on the wire", || {
        wire.extend(a.sent());
        wire.len() == 60
    });
    wire.iter().for_each(|packet| b.arrives(packet));
    until("60 packets delivered", || {
        inner.extend(b.tuns.lock().unwrap()[0].host_receives());
        inner.len() == 60
    });
    let received = b.engine.links().unwrap()[0].stats;
    assert_eq!((received.rx_packets, received.rx_bytes), (60, 6000));
    check(&a);
    check(&b);
}

/// kernel: net/xfrm/xfrm_interface_core.c xfrmi_rcv_cb(): policies are asked after the packet was counted
#[test]
fn what_no_policy_wants_was_received() {
    let (a, b) = (lab(1, || Honest), lab(1, || Honest));
    a.engine.apply(&by_interface(tunnel(1))).unwrap();
    let without = |op: &Op| !matches!(op, Op::PolicyAdd(p) if p.dir == Direction::Fwd);
    let ops: Vec<Op> = by_interface(far_end(1)).into_iter().filter(without).collect();
    b.engine.apply(&ops).unwrap();
    a.send(5, 1);
    let mut wire = Vec::new();
    until("5 packets on the wire", || {
        wire.extend(a.sent());
        wire.len() == 5
    });
    wire.iter().for_each(|packet| b.arrives(packet));
    until("5 packets dropped", || dropped(&b.engine, Reason::RxNoPolicy) == 5);
    let stats = b.engine.links().unwrap()[0].stats;
    assert_eq!((stats.rx_packets, stats.rx_bytes, stats.rx_errors, stats.rx_dropped), (5, 500, 0, 0));
    check(&b);
}

/// Linux 6.12, scenario bh_cfg_rules of `tests/data/xfrmi-6.12.jsonl`.
#[test]
fn an_interface_changes_its_if_id_and_nothing_else() {
    let engine = lab(1, || Honest).engine;
    let apply = |op: Op| engine.apply(&[op]).map_err(|(_, refusal)| refusal.errno);
    let below = |spec: LinkSpec, dev: &str| LinkSpec { dev: Some(dev.into()), ..spec };
    apply(Op::LinkAdd(interface("xfrm0", 5))).unwrap();
    assert_eq!(apply(Op::LinkAdd(interface("xfrm1", 5))), Err(Errno::Exists));
    assert_eq!(apply(Op::LinkAdd(below(interface("xfrm1", 5), "w0"))), Err(Errno::Exists));
    assert_eq!(apply(Op::LinkAdd(interface("xfrm1", 0))), Err(Errno::Invalid));
    apply(Op::LinkAdd(below(interface("xfrm2", 6), "w0"))).unwrap();
    apply(Op::LinkChange(interface("xfrm0", 7))).unwrap();
    assert_eq!(apply(Op::LinkChange(interface("xfrm0", 6))), Err(Errno::Exists));
    assert_eq!(apply(Op::LinkChange(interface("xfrm2", 8))), Err(Errno::Invalid));
    assert_eq!(apply(Op::LinkChange(below(interface("xfrm2", 8), "l0"))), Err(Errno::Invalid));
    apply(Op::LinkChange(below(interface("xfrm2", 8), "w0"))).unwrap();
    let tables = engine.tables();
    let found = |if_id| tables.devices.of_sa(if_id).map(|d| d.spec.name.clone());
    assert_eq!([5, 6, 7, 8].map(found), [None, None, Some("xfrm0".into()), Some("xfrm2".into())]);
}
