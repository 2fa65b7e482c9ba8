//! Drops by something, as a table.

use super::{Breakdown, By, Line, Subject};
use crate::views::{kernel_counts, lines, number, table};
use comfy_table::Cell;
use uvti_core::reason::{LinkKind, Reason};
use uvti_core::xfrm::Mark;
use uvti_dataplane::account::{PolicyName, SaName};

/// The table, with the sum of all lines at its end.
pub(crate) fn text(breakdown: &Breakdown) -> String {
    if breakdown.lines.is_empty() {
        return "no drops\n".to_owned();
    }
    let mut table = table(match breakdown.by {
        By::Reason => &["PACKETS", "REASON", "OF WHICH", "KERNEL COUNTS", "MEANING"],
        By::Sa => &["PACKETS", "SA", "LOST ON THE WAY", "OF WHICH"],
        By::Policy => &["PACKETS", "POLICY", "OF WHICH"],
        By::Device => &["PACKETS", "DEVICE", "OF WHICH"],
        By::Worker => &["PACKETS", "WORKER", "OF WHICH"],
    });
    for line in &breakdown.lines {
        let mut cells = vec![number(line.packets), Cell::new(subject(&line.subject))];
        if breakdown.by == By::Sa {
            cells.push(number(line.lost.map_or("-".to_owned(), |n| n.to_string())));
        }
        cells.push(Cell::new(parts(line)));
        if let Subject::Reason(name) = &line.subject
            && let Some(row) = Reason::from_name(name).map(|r| r.row())
        {
            cells.extend([Cell::new(kernel_counts(row, Some(LinkKind::Vti))), Cell::new(row.meaning)]);
        }
        table.add_row(cells);
    }
    table.add_row([number(breakdown.total), Cell::new("in all")]);
    lines(&table)
}

/// What a line is about, in words that can be given to `ip` again.
fn subject(subject: &Subject) -> String {
    let gone = |text: String, deleted: bool| if deleted { text + " (deleted)" } else { text };
    match subject {
        Subject::Reason(name) => name.clone(),
        Subject::Sa { name, deleted } => gone(sa(name), *deleted),
        Subject::NoSa => "no SA".to_owned(),
        Subject::Policy { name, deleted } => gone(policy(name), *deleted),
        Subject::NoPolicy => "no policy".to_owned(),
        Subject::Device { name, deleted } => gone(name.clone(), *deleted),
        Subject::NoDevice => "no device".to_owned(),
        Subject::Worker(number) => format!("worker {number}"),
        Subject::Other => "other (no row left)".to_owned(),
    }
}

/// `198.51.100.2 spi 0x00000100 reqid 1 mark 0x1`.
pub(crate) fn sa(name: &SaName) -> String {
    let SaName { id, reqid } = name;
    format!("{} spi {} reqid {reqid}{}", id.dst, id.spi, mark(id.mark))
}

/// `index 9 dir out prio 0 src 10.1.0.0/16 dst 10.2.0.0/16 mark 0x1`.
pub(crate) fn policy(name: &PolicyName) -> String {
    let PolicyName { index, dir, priority, mark: m, if_id, sel } = name;
    let mut selector = String::new();
    crate::ip::show::selector(&mut selector, sel);
    let if_id = if *if_id == 0 { String::new() } else { format!(" if_id {if_id:#x}") };
    format!("index {index} dir {} prio {priority} {}{}{if_id}", dir.name(), selector.trim_end(), mark(*m))
}

fn mark(mark: Mark) -> String {
    match mark {
        m if m.is_unset() => String::new(),
        Mark { value, mask: u32::MAX } => format!(" mark {value:#x}"),
        Mark { value, mask } => format!(" mark {value:#x}/{mask:#x}"),
    }
}

/// `tx_no_sa 12, tx_too_big 3`.
fn parts(line: &Line) -> String {
    line.parts.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
}
