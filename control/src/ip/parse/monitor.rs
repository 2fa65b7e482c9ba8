//! `ip xfrm monitor`.

use super::Command;
use crate::ip::words::{Fail, Words, begins};
use uvti_dataplane::engine::Topics;

/// Topics by name, each of which may be cut short. The first that fits is meant.
const TOPICS: &[(&str, Topics)] = &[
    ("acquire", Topics { acquire: true, ..NONE }),
    ("expire", Topics { expire: true, ..NONE }),
    ("SA", Topics { states: true, ..NONE }),
    ("policy", Topics { policies: true, ..NONE }),
    // A kernel sends these about Mobile IPv6 alone.
    ("report", NONE),
];
const NONE: Topics = Topics { acquire: false, expire: false, states: false, policies: false };

pub(super) fn parse(words: &[String]) -> Result<Command, Fail> {
    let mut rest = Words::new(words);
    let mut nokeys = false;
    let mut named: Option<Topics> = None;
    while let Some(word) = rest.next() {
        match word {
            "nokeys" => nokeys = true,
            "all" => {}
            _ if ["file", "all-nsid"].iter().any(|whole| begins(word, whole)) => {
                return Err(rest.unsupported());
            }
            _ => match TOPICS.iter().find(|(whole, _)| begins(word, whole)) {
                Some((_, topic)) => named = Some(both(named.unwrap_or_default(), *topic)),
                None if begins(word, "aevent") => return Err(rest.unsupported()),
                None if begins(word, "help") => return Err(Fail::usage(USAGE, None)),
                None => {
                    let text = format!("Argument \"{word}\" is unknown, try \"ip xfrm monitor help\".\n");
                    return Err(rest.say(text, 255));
                }
            },
        }
    }
    Ok(Command::Monitor { topics: named.unwrap_or(Topics::ALL), nokeys })
}

fn both(a: Topics, b: Topics) -> Topics {
    Topics {
        acquire: a.acquire || b.acquire,
        expire: a.expire || b.expire,
        states: a.states || b.states,
        policies: a.policies || b.policies,
    }
}

const USAGE: &str = "\
Usage: ip xfrm monitor [ nokeys ] [ all | OBJECTS | help ]
OBJECTS := { acquire | expire | SA | policy | report }
";

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(words: &str) -> Result<(Topics, bool), String> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        match parse(&words) {
            Ok(Command::Monitor { topics, nokeys }) => Ok((topics, nokeys)),
            Ok(other) => panic!("{other:?}"),
            Err(fail) => Err(fail.text),
        }
    }

    #[test]
    fn topics_are_added_up_and_all_of_them_are_meant_without_any() {
        assert_eq!(topics(""), Ok((Topics::ALL, false)));
        assert_eq!(topics("nokeys all"), Ok((Topics::ALL, true)));
        let both = Topics { acquire: true, expire: true, ..NONE };
        assert_eq!(topics("ac all ex"), Ok((both, false)));
        assert_eq!(topics("S"), Ok((Topics { states: true, ..NONE }, false)));
        assert_eq!(topics("report"), Ok((NONE, false)));
    }

    /// Measured with iproute2 6.1.
    #[test]
    fn what_is_unknown_is_said_as_iproute2_does() {
        let unknown =
            |word: &str| Err(format!("Argument \"{word}\" is unknown, try \"ip xfrm monitor help\".\n"));
        assert_eq!(topics("nokeys bogus"), unknown("bogus"));
        assert_eq!(topics("SA="), unknown("SA="));
        for word in ["aevent", "all-nsid", "file"] {
            assert_eq!(topics(word), Err(format!("uvti: \"{word}\": not supported in userspace\n")));
        }
    }
}
