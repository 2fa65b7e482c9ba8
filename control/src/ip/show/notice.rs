//! `ip xfrm monitor`.

use super::{Style, policy, selector, state};
use std::fmt::Write;
use uvti_core::xfrm::{PolicyInfo, Proto, StateInfo};
use uvti_dataplane::engine::{Change, Notice};

/// One notice.
pub fn notice(notice: &Notice, style: Style) -> String {
    match notice {
        Notice::Acquire { larval, policy } => acquire(larval, policy, style),
        Notice::Expired { state, hard } => expired(state, *hard, style),
        Notice::State(change, info) => format!("{}{}", prefix(*change), state::state(info, style)),
        Notice::StatesFlushed(proto) => {
            let name = if *proto == Proto::Any { "0" } else { proto.name() };
            style.finish(format!("Flushed state proto {name}\n"))
        }
        Notice::Policy(change, info) => format!("{}{}", prefix(*change), policy::policy(info, style)),
        Notice::PoliciesFlushed => style.finish("Flushed policy ptype main \n".to_owned()),
        Notice::Defaults(actions) => policy::defaults(*actions),
    }
}

const fn prefix(change: Change) -> &'static str {
    match change {
        Change::Added => "",
        Change::Updated => "Updated ",
        Change::Deleted => "Deleted ",
    }
}

fn acquire(larval: &StateInfo, asking: &PolicyInfo, style: Style) -> String {
    let spec = &larval.spec;
    let mut out = format!("acquire proto {} ", spec.proto.name());
    let _ = match (style.stats, spec.spi.0) {
        (true, number) => write!(out, "spi {}({number}) ", spec.spi),
        (false, 0) => Ok(()),
        (false, _) => write!(out, "spi {} ", spec.spi),
    };
    out.push_str("\n  sel ");
    selector(&mut out, &spec.selector());
    out.push_str(if style.stats { "uid 0\n" } else { "\n" });
    for (n, line) in policy::policy(asking, Style { oneline: false, ..style }).lines().enumerate() {
        // iproute2 hands the margin down to all but the mark and the if_id.
        let margin = match n {
            0 => "  policy ",
            _ if line.starts_with("\tmark ") || line.starts_with("\tif_id ") => "",
            _ => "    ",
        };
        let _ = writeln!(out, "{margin}{line}");
    }
    if style.stats {
        let seq = spec.seq.to_be();
        let _ = write!(out, "  seq 0x{seq:08} enc-mask ffffffff auth-mask ffffffff comp-mask ffffffff");
    }
    out.push('\n');
    style.finish(out)
}

/// Neither keys nor numbers: the kernel's message has none.
fn expired(info: &StateInfo, hard: bool, style: Style) -> String {
    let mut out = format!("Expired {}", state::outline(info, style));
    let _ = writeln!(out, "\thard {}", u8::from(hard));
    style.finish(out)
}
