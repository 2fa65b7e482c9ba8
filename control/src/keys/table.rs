//! Wireshark's tables of preferences: a row a line, its fields quoted and separated by commas, `#` begins a comment.

use std::fmt::Write;

/// A row of a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Its line in the file, from 1.
    pub(super) line: usize,
    pub(super) fields: Vec<String>,
}

/// The rows of a file, or what is wrong in which line.
pub(super) fn rows(text: &str) -> Result<Vec<Row>, (usize, String)> {
    let mut rows = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            let fields = fields(line).map_err(|why| (i + 1, why.to_owned()))?;
            rows.push(Row { line: i + 1, fields });
        }
    }
    Ok(rows)
}

/// A row, with its end of line.
pub(super) fn written(fields: &[String]) -> String {
    let mut row = String::new();
    for (i, field) in fields.iter().enumerate() {
        let _ = write!(row, "{}\"{field}\"", if i > 0 { "," } else { "" });
    }
    row + "\n"
}

fn fields(mut rest: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    loop {
        let (field, behind) = quoted(rest.trim_start())?;
        fields.push(field);
        match behind.trim_start() {
            "" => return Ok(fields),
            next => rest = next.strip_prefix(',').ok_or("a comma belongs between two fields")?,
        }
    }
}

/// A field at the beginning of `text`, and what is behind it. Wireshark writes what is special as `\xHH`.
fn quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut rest = text.strip_prefix('"').ok_or("a field begins with a quotation mark")?;
    let mut field = Vec::new();
    loop {
        let (c, behind) = rest.split_at_checked(1).ok_or("a field has no end, or is not ASCII")?;
        rest = behind;
        match c {
            "\"" => break,
            "\\" => {
                let (escaped, behind) = escape(rest).ok_or("a backslash that Wireshark does not write")?;
                field.push(escaped);
                rest = behind;
            }
            _ => field.extend(c.as_bytes()),
        }
    }
    let field = String::from_utf8(field).map_err(|_| "a field is not text")?;
    Ok((field, rest))
}

fn escape(text: &str) -> Option<(u8, &str)> {
    match text.split_at_checked(1)? {
        ("x", rest) => {
            let (digits, rest) = rest.split_at_checked(2)?;
            Some((u8::from_str_radix(digits, 16).ok()?, rest))
        }
        (c @ ("\\" | "\""), rest) => Some((c.as_bytes()[0], rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_wireshark_writes() {
        let text = "# automatically generated\n\n\"IPv4\", \"a\" ,\"\",\"\\x22\\\\\"\n";
        let fields = ["IPv4", "a", "", "\"\\"].map(str::to_owned).into();
        assert_eq!(rows(text), Ok(vec![Row { line: 3, fields }]));
    }

    #[test]
    fn names_the_line_that_is_wrong() {
        for (line, why) in [
            ("IPv4", "a field begins"),
            ("\"IPv4", "a field has no end"),
            ("\"IPv4\" \"x\"", "a comma belongs"),
            ("\"IPv4\",", "a field begins"),
            ("\"\\q\"", "a backslash"),
            ("\"\\x2\"", "a backslash"),
            ("\"\\xff\"", "a field is not text"),
            ("\"é\"", "a field has no end, or is not ASCII"),
        ] {
            let (at, said) = rows(&format!("#\n{line}\n")).unwrap_err();
            assert!(at == 2 && said.starts_with(why), "{line}: {said}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_harmless(text in "[\"\\\\x0-9a-f,# é\n]*") {
            let _ = rows(&text);
        }
    }
}
