//! `tos` of a tunnel: the differentiated services field by number and name, and `inherit`, its lowest bit.

/// The names that iproute2 comes with (`/etc/iproute2/rt_dsfield`): RFC 2474, RFC 2597, RFC 3246.
const NAMES: [(&str, u8); 21] = [
    ("default", 0x00),
    ("AF11", 0x28),
    ("AF12", 0x30),
    ("AF13", 0x38),
    ("AF21", 0x48),
    ("AF22", 0x50),
    ("AF23", 0x58),
    ("AF31", 0x68),
    ("AF32", 0x70),
    ("AF33", 0x78),
    ("AF41", 0x88),
    ("AF42", 0x90),
    ("AF43", 0x98),
    ("CS1", 0x20),
    ("CS2", 0x40),
    ("CS3", 0x60),
    ("CS4", 0x80),
    ("CS5", 0xa0),
    ("CS6", 0xc0),
    ("CS7", 0xe0),
    ("EF", 0xb8),
];

const INHERIT: u8 = 1;

/// `NAME`, `HEX`, `inherit` or `inherit/…`.
pub(super) fn parse(word: &str) -> Option<u8> {
    match word.split_once('/') {
        None if word == "inherit" => Some(INHERIT),
        Some(("inherit", rest)) => Some(INHERIT | value(rest)?),
        _ => value(word),
    }
}

fn value(word: &str) -> Option<u8> {
    if let Some((_, value)) = NAMES.iter().find(|(name, _)| *name == word) {
        return Some(*value);
    }
    let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")).unwrap_or(word);
    let digits = Some(digits).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

/// As `ip tunnel show` writes it behind ` tos`; nothing for 0.
pub(super) fn shown(tos: u8) -> String {
    let value = tos & !INHERIT;
    let inherit = if tos & INHERIT != 0 { "inherit" } else { "" };
    let between = if inherit.is_empty() { "" } else { "/" };
    match value {
        0 => inherit.to_owned(),
        _ => {
            let name = NAMES.iter().find(|(_, known)| *known == value).map(|(name, _)| (*name).to_owned());
            format!("{inherit}{between}{}", name.unwrap_or_else(|| format!("{value:#04x}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_back() {
        for tos in 0..=u8::MAX {
            let shown = shown(tos);
            assert_eq!(shown.is_empty(), tos == 0);
            assert_eq!(parse(&shown), if tos == 0 { None } else { Some(tos) }, "{shown}");
        }
        assert_eq!(
            (parse("4"), parse("10"), parse("EF"), parse("inherit/CS1")),
            (Some(4), Some(16), Some(0xb8), Some(0x21))
        );
        for bad in ["100", "x", "inherit/", "inherit/x", "a/b", "+1", "0x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
