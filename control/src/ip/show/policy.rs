//! `ip xfrm policy`.

use super::{Style, flag_names, lifetimes, mark, selector};
use crate::ip::parse::POLICY_FLAGS;
use crate::protocol::Counts;
use std::fmt::Write;
use uvti_core::xfrm::{Action, Direction, Level, PolicyInfo, Template};

/// One policy.
pub fn policy(info: &PolicyInfo, style: Style) -> String {
    let spec = &info.spec;
    let mut out = String::new();
    selector(&mut out, &spec.sel);
    let (dir, action, flags) = (spec.dir.name(), spec.action.name(), flag_names(spec.flags.0, POLICY_FLAGS));
    if style.stats {
        let _ = writeln!(
            out,
            "uid 0\n\tdir {dir} action {action} index {} priority {} ptype main share any flag {flags} (0x{:08b})",
            spec.index, spec.priority, spec.flags.0
        );
        lifetimes(&mut out, &spec.limits, &info.current);
    } else {
        let action = if spec.action == Action::Block { "action block " } else { "" };
        let flags = if flags.is_empty() { flags } else { format!("flag {flags}") };
        let _ = writeln!(out, "\n\tdir {dir} {action}priority {} ptype main {flags}", spec.priority);
    }
    if !spec.mark.is_unset() {
        let _ = writeln!(out, "\tmark {} ", mark(spec.mark));
    }
    spec.templates.iter().for_each(|t| template(&mut out, t, style));
    if spec.if_id != 0 {
        let _ = writeln!(out, "\tif_id {:#x}", spec.if_id);
    }
    style.finish(out)
}

fn template(out: &mut String, t: &Template, style: Style) {
    let (proto, mode, level, reqid) = (t.proto.name(), t.mode.name(), t.level.name(), t.reqid);
    let _ = writeln!(out, "\ttmpl src {} dst {}", t.src, t.dst);
    if style.stats {
        let _ = writeln!(
            out,
            "\t\tproto {proto} spi {}({}) reqid {reqid}({reqid:#010x}) mode {mode}\n\
             \t\tlevel {level} share any \n\
             \t\tenc-mask ffffffff auth-mask ffffffff comp-mask ffffffff",
            t.spi, t.spi.0
        );
        return;
    }
    let spi = if t.spi.0 == 0 { String::new() } else { format!("spi {} ", t.spi) };
    let _ = writeln!(out, "\t\tproto {proto} {spi}reqid {reqid} mode {mode}");
    if t.level != Level::Required {
        let _ = writeln!(out, "\t\tlevel {level} ");
    }
}

/// `ip xfrm policy count`. Policies of sockets are not in the dataplane.
pub fn count(counts: &Counts, stats: bool) -> String {
    let [input, output, forward] = counts.policies;
    let sock = if stats { " (Sock: IN 0 OUT 0 FWD 0)" } else { "" };
    format!("\t SPD IN  {input} OUT {output} FWD {forward}{sock}\n")
}

/// `ip xfrm policy getdefault`; `actions` by direction: in, out, fwd.
pub fn defaults(actions: [Action; 3]) -> String {
    let name = |dir: Direction| match actions[dir as usize] {
        Action::Allow => "accept",
        Action::Block => "block",
    };
    let (input, forward, output) = (name(Direction::In), name(Direction::Fwd), name(Direction::Out));
    format!("Default policies:\n in:  {input}\n fwd: {forward}\n out: {output}\n")
}
