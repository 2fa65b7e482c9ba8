//! What an operation has changed, as listeners are told.

use super::{Change, Notice};
use uvti_core::tables::{Op, Snapshot};
use uvti_core::xfrm::{PolicyId, PolicySpec, Proto, SaId};

/// Notes what an operation has changed that turned `before` into `after`.
pub fn note(op: &Op, before: &Snapshot, after: &Snapshot, notices: &mut Vec<Notice>) {
    let Some(notice) = change(op, before, after) else { return };
    // One command sets all of the defaults.
    notices.pop_if(|last| matches!((last, &notice), (Notice::Defaults(_), Notice::Defaults(_))));
    notices.push(notice);
}

/// The notice of an operation that turned `before` into `after`. A flush of nothing, and changes of links,
/// have none.
///
/// kernel: net/xfrm/xfrm_user.c xfrm_add_sa(), xfrm_del_sa(), xfrm_flush_sa(), xfrm_add_policy(), xfrm_get_policy(),
/// xfrm_flush_policy(), xfrm_set_default()
fn change(op: &Op, before: &Snapshot, after: &Snapshot) -> Option<Notice> {
    match op {
        Op::StateAdd(spec) => state(after, &spec.id(), Change::Added),
        Op::StateUpdate(spec) => state(after, &spec.id(), Change::Updated),
        Op::StateDel(id) => state(before, id, Change::Deleted),
        Op::StateFlush(proto) => has_states(before, *proto).then_some(Notice::StatesFlushed(*proto)),
        Op::PolicyAdd(spec) => policy(after, &named(spec), Change::Added),
        Op::PolicyUpdate(spec) => policy(after, &named(spec), Change::Updated),
        Op::PolicyDel(id) => policy(before, id, Change::Deleted),
        Op::PolicyFlush => (!before.policies.is_empty()).then_some(Notice::PoliciesFlushed),
        Op::PolicyDefault { .. } => Some(Notice::Defaults(after.policies.defaults)),
        Op::LinkAdd(_) | Op::LinkChange(_) | Op::LinkDel { .. } => None,
    }
}

fn state(tables: &Snapshot, id: &SaId, change: Change) -> Option<Notice> {
    tables.state_info(id).map(|info| Notice::State(change, Box::new(info)))
}

fn has_states(tables: &Snapshot, proto: Proto) -> bool {
    let meant = |p: Proto| proto == Proto::Any || p == proto;
    tables.states.iter().any(|sa| meant(sa.spec.proto))
        || tables.states.larvals.iter().any(|l| meant(l.spec.proto))
}

fn policy(tables: &Snapshot, id: &PolicyId, change: Change) -> Option<Notice> {
    tables.policies.named(id).map(|policy| Notice::Policy(change, Box::new(policy.info())))
}

fn named(spec: &PolicySpec) -> PolicyId {
    PolicyId::Selector { sel: spec.sel.clone(), dir: spec.dir, mark: spec.mark, if_id: spec.if_id }
}
