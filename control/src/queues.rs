//! Every queue as a table.

use crate::views::{lines, number, table};
use comfy_table::Cell;
use uvti_dataplane::engine::Queue;

/// The table; what is not known is a dash.
pub(crate) fn text(queues: &[Queue]) -> String {
    let mut table = table(&["QUEUE", "UNIT", "DEPTH", "HIGH WATER", "CAPACITY", "DROPS", "NOTE"]);
    let known = |n: Option<u64>| number(n.map_or_else(|| "-".to_owned(), |n| n.to_string()));
    for Queue { name, unit, depth, high_water, capacity, drops, note } in queues {
        let mut cells = vec![Cell::new(name), Cell::new(unit)];
        cells.extend([known(*depth), known(*high_water), known(*capacity), number(drops)]);
        cells.push(Cell::new(note.as_deref().unwrap_or_default()));
        table.add_row(cells);
    }
    lines(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_for_people() {
        let device = Queue {
            name: "vti0 from the host".into(),
            unit: "packets".into(),
            capacity: Some(500),
            drops: 12,
            ..Queue::default()
        };
        let sockets = Queue {
            name: "sockets of worker 0".into(),
            unit: "packets".into(),
            drops: 3,
            note: Some("1 sends tried again after an ICMP error".into()),
            ..Queue::default()
        };
        let hops = Queue {
            name: "to worker 1".into(),
            unit: "bursts".into(),
            depth: Some(0),
            high_water: Some(32),
            capacity: Some(32),
            ..Queue::default()
        };
        let expected = "\
            \x20QUEUE                UNIT     DEPTH  HIGH WATER  CAPACITY  DROPS  NOTE\n\
            \x20vti0 from the host   packets      -           -       500     12\n\
            \x20sockets of worker 0  packets      -           -         -      3  1 sends tried again after an ICMP error\n\
            \x20to worker 1          bursts       0          32        32      0\n";
        assert_eq!(text(&[device, sockets, hops]), expected);
    }
}
