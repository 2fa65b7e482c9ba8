//! README's table of reasons is the one in the code.

use std::fmt::Write;
use uvti_core::reason::{Reason, Row};

const README: &str = include_str!("../../../README.md");

#[test]
fn readme_has_the_table_of_reasons() {
    let expected = table();
    assert!(
        README.contains(&expected),
        "README.md, \"The reasons\", differs from dataplane/core/src/reason/table.rs; it must have:\n\n{expected}"
    );
}

fn table() -> String {
    let mut text =
        "| Reason | A kernel VTI counts | Sender is told | Meaning |\n|---|---|---|---|\n".to_owned();
    for row in Reason::ALL.iter().map(|r| r.row()) {
        let (counts, told) = (kernel_counts(row), row.icmp.name());
        writeln!(text, "| `{}` | {counts} | {told} | {} |", row.name, row.meaning).unwrap();
    }
    text
}

/// Counters of the link, of `/proc/net/xfrm_stat` and of the SA; in parentheses what `ip6_vti` and the
/// xfrm interface add, or the latter counts instead.
fn kernel_counts(row: &Row) -> String {
    let link = row.link.iter().map(|f| f.name().to_owned());
    let dropped = row.vti6_tx_dropped.then(|| "(vti6, xfrm: tx_dropped)".to_owned());
    let own = row.xfrm_link.map(|fields| {
        let names: Vec<_> = fields.iter().map(|f| f.name()).collect();
        format!("(xfrm: {})", names.join(", "))
    });
    let mib = row.mib.iter().map(|m| m.name().to_owned());
    let sa = row.sa.map(|s| format!("SA {}", s.name()));
    link.chain(dropped).chain(own).chain(mib).chain(sa).collect::<Vec<_>>().join(", ")
}
