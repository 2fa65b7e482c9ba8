//! Our devices among the system's: `ip link show` knows them as TUN devices, and we print them instead.

use serde_json::Value;

/// One of our devices as it is to be shown; `None` when the command's filter leaves it out.
pub(crate) struct Ours<T> {
    pub(crate) ifindex: u32,
    pub(crate) name: String,
    pub(crate) shown: Option<T>,
}

/// Replaces the blocks of our devices in the text that the system printed, and puts in what it left out, by index.
pub(crate) fn text(system: &str, ours: &[Ours<String>]) -> String {
    let blocks = blocks(system).into_iter().map(|b| (index_of(b), b.to_owned())).collect();
    merge(blocks, ours).concat()
}

/// The same for `-br`, where a line says no index: by name, what the system left out at the end.
pub(crate) fn brief(system: &str, ours: &[Ours<String>]) -> String {
    let mut left: Vec<&Ours<String>> = ours.iter().collect();
    let mut all = String::new();
    for line in system.split_inclusive('\n') {
        let name = line.split([' ', '@']).next().unwrap_or("");
        match left.iter().position(|o| o.name == name) {
            Some(at) => all.extend(left.remove(at).shown.as_deref()),
            None => all.push_str(line),
        }
    }
    all.extend(left.iter().filter_map(|o| o.shown.as_deref()));
    all
}

/// The same for the elements of a JSON array; `None` when the system's output is none.
pub(crate) fn json(system: &str, ours: &[Ours<Value>]) -> Option<Vec<Value>> {
    let elements: Vec<Value> = match system.trim() {
        "" => Vec::new(),
        text => serde_json::from_str(text).ok()?,
    };
    // `-br` elements have no index.
    let index = |e: &Value| match e.get("ifindex").and_then(Value::as_u64) {
        Some(n) => u32::try_from(n).ok(),
        None => {
            ours.iter().find(|o| e.get("ifname") == Some(&Value::from(o.name.as_str()))).map(|o| o.ifindex)
        }
    };
    Some(merge(elements.into_iter().map(|e| (index(&e), e)).collect(), ours))
}

fn merge<T: Clone>(system: Vec<(Option<u32>, T)>, ours: &[Ours<T>]) -> Vec<T> {
    let mut all: Vec<(Option<u32>, T)> = Vec::with_capacity(system.len() + ours.len());
    let mut seen = Vec::new();
    for (index, block) in system {
        match ours.iter().find(|o| Some(o.ifindex) == index) {
            Some(our) => {
                seen.push(our.ifindex);
                all.extend(our.shown.clone().map(|shown| (index, shown)));
            }
            None => all.push((index, block)),
        }
    }
    for our in ours.iter().filter(|o| !seen.contains(&o.ifindex)) {
        let Some(shown) = our.shown.clone() else { continue };
        let behind = |(index, _): &(Option<u32>, T)| index.is_some_and(|n| n > our.ifindex);
        let at = all.iter().position(behind).unwrap_or(all.len());
        all.insert(at, (Some(our.ifindex), shown));
    }
    all.into_iter().map(|(_, block)| block).collect()
}

/// A block is a line `N: …` and the lines behind it that are none.
fn blocks(text: &str) -> Vec<&str> {
    let mut starts: Vec<usize> = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if at == 0 || index_of(line).is_some() {
            starts.push(at);
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).map(|(&from, to)| &text[from..to]).collect()
}

fn index_of(block: &str) -> Option<u32> {
    block.split_once(": ")?.0.parse().ok()
}

/// JSON as iproute2 prints it with `-p`.
pub(crate) fn pretty(value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, value, 0);
    out
}

fn write(out: &mut String, value: &Value, depth: usize) {
    let comma = |n: usize| if n > 0 { "," } else { "" };
    match value {
        Value::Array(elements) => {
            out.push_str("[ ");
            for (n, element) in elements.iter().enumerate() {
                out.push_str(comma(n));
                write(out, element, depth + 1);
            }
            out.push_str(if elements.is_empty() { "]" } else { " ]" });
        }
        Value::Object(members) => {
            out.push('{');
            for (n, (key, value)) in members.iter().enumerate() {
                out.push_str(comma(n));
                line(out, depth + 1);
                out.push_str(&format!("{}: ", Value::String(key.clone())));
                write(out, value, depth + 1);
            }
            if !members.is_empty() {
                line(out, depth);
            }
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

fn line(out: &mut String, depth: usize) {
    out.push('\n');
    out.push_str(&"    ".repeat(depth));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SYSTEM: &str = "1: lo: <LOOPBACK>\n    link/loopback 00\n7: vti0: <NOARP>\n    link/none\n9: eth0: <UP>\n    link/ether 02\n";

    fn ours<T>(ifindex: u32, name: &str, shown: Option<T>) -> Ours<T> {
        Ours { ifindex, name: name.to_owned(), shown }
    }

    #[test]
    fn our_blocks_replace_the_systems_and_missing_ones_go_where_their_index_says() {
        let shown = text(
            SYSTEM,
            &[ours(7, "vti0", Some("7: OURS\n".into())), ours(8, "vti1", Some("8: NEW\n".into()))],
        );
        assert_eq!(
            shown,
            "1: lo: <LOOPBACK>\n    link/loopback 00\n7: OURS\n8: NEW\n9: eth0: <UP>\n    link/ether 02\n"
        );
        assert!(!text(SYSTEM, &[ours(7, "vti0", None)]).contains("vti0"));
        assert_eq!(text(SYSTEM, &[]), SYSTEM);
        assert_eq!(text("", &[ours(7, "vti0", Some("7: OURS\n".into()))]), "7: OURS\n");
    }

    #[test]
    fn brief_lines_go_by_name() {
        let system = "lo               UNKNOWN        00 \nvti0             UNKNOWN        <> \n";
        let shown =
            brief(system, &[ours(7, "vti0", Some("OURS\n".into())), ours(8, "vti1", Some("NEW\n".into()))]);
        assert_eq!(shown, "lo               UNKNOWN        00 \nOURS\nNEW\n");
    }

    #[test]
    fn elements_go_by_index_and_what_is_no_json_is_told() {
        let system = r#"[{"ifindex":1},{},{"ifindex":7}]"#;
        let all = json(system, &[ours(7, "vti0", Some(json!({"ours": 1})))]).unwrap();
        assert_eq!(all, vec![json!({"ifindex": 1}), json!({}), json!({"ours": 1})]);
        let brief =
            json(r#"[{"ifname":"lo"},{"ifname":"vti0"}]"#, &[ours(7, "vti0", Some(json!(1)))]).unwrap();
        assert_eq!(brief, vec![json!({"ifname": "lo"}), json!(1)]);
        assert!(json("oops", &[]).is_none());
        assert_eq!(json("", &[]), Some(vec![]));
    }

    #[test]
    fn pretty_is_iproute2s() {
        let value = json!([{ "ifindex": 1, "flags": ["A", "B"], "x": { "y": null } }, { "ifindex": 2 }]);
        let text = "[ {\n        \"ifindex\": 1,\n        \"flags\": [ \"A\",\"B\" ],\n        \"x\": {\n            \
                    \"y\": null\n        }\n    },{\n        \"ifindex\": 2\n    } ]";
        assert_eq!(pretty(&value), text);
    }
}
