//! Batch files as iproute2 reads them: comments, continued lines, quotes.

/// A word and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    /// Line in the file, from 1.
    pub(crate) line: usize,
    /// Character in the line, from 1.
    pub(crate) column: usize,
}

/// A command of a batch file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Command {
    /// Its last line, from 1: the one that iproute2 names.
    pub(crate) number: usize,
    pub(crate) words: Vec<Word>,
    /// Where it ends, for what is missing there: line and column.
    pub(crate) end: (usize, usize),
    /// Why its words could not be told apart, and where.
    pub(crate) broken: Option<(&'static str, usize, usize)>,
}

const UNTERMINATED: &str = "Unterminated quoted string";
/// The file ends where a line should go on: iproute2 says so and leaves that line out.
pub(crate) const UNFINISHED: &str = "Missing continuation line";
const TOO_MANY: &str = "Too many arguments to command";

/// Most words in a line of a batch file.
const MAX_WORDS: usize = 99;

/// The commands of a file; empty lines are left out.
pub(crate) fn commands(text: &str) -> Vec<Command> {
    let mut all = Vec::new();
    let mut lines = text.split_inclusive('\n').enumerate().peekable();
    while let Some((n, line)) = lines.next() {
        let mut characters = Vec::new();
        let mut continued = take(line, n + 1, &mut characters);
        let mut number = n + 1;
        while continued && let Some((n, line)) = lines.next() {
            number = n + 1;
            continued = take(line, number, &mut characters);
        }
        let mut command = split(&characters, number);
        if continued {
            command.broken = Some((UNFINISHED, command.end.0, command.end.1));
        }
        if !command.words.is_empty() || command.broken.is_some() {
            all.push(command);
        }
    }
    all
}

/// A character and where it stands: line and column.
type Placed = (char, usize, usize);

/// Takes a line without its comment; returns whether it goes on in the next.
fn take(line: &str, number: usize, to: &mut Vec<Placed>) -> bool {
    let code = line.split('#').next().unwrap_or("");
    let continued = code.ends_with("\\\n");
    let code = if continued { &code[..code.len() - 2] } else { code };
    to.extend(code.chars().enumerate().map(|(c, ch)| (ch, number, c + 1)));
    continued
}

/// Words are apart by blanks; one that begins with a quote goes to the next such quote.
fn split(characters: &[Placed], number: usize) -> Command {
    let end = characters.iter().rfind(|(c, ..)| !blank(*c)).map_or((number, 1), |(_, l, c)| (*l, c + 1));
    let mut command = Command { number, end, ..Command::default() };
    let mut rest = characters;
    while let Some(from) = rest.iter().position(|(c, ..)| !blank(*c)) {
        rest = &rest[from..];
        let (first, line, column) = rest[0];
        if command.words.len() >= MAX_WORDS {
            command.broken = Some((TOO_MANY, line, column));
            return command;
        }
        let quoted = matches!(first, '\'' | '"');
        let body = if quoted { &rest[1..] } else { rest };
        let length = match quoted {
            true => body.iter().position(|(c, ..)| *c == first),
            false => Some(body.iter().position(|(c, ..)| blank(*c)).unwrap_or(body.len())),
        };
        let Some(length) = length else {
            command.broken = Some((UNTERMINATED, line, column));
            return command;
        };
        let text = body[..length].iter().map(|(c, ..)| *c).collect();
        command.words.push(Word { text, line, column });
        rest = body.get(length + usize::from(quoted)..).unwrap_or(&[]);
    }
    command
}

fn blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(text: &str) -> Vec<Vec<String>> {
        commands(text).into_iter().map(|c| c.words.into_iter().map(|w| w.text).collect()).collect()
    }

    #[test]
    fn comments_quotes_and_continued_lines_are_iproute2s() {
        let text = "# head\n\nlink add a type vti # tail\nxfrm state \\\n  list 'a b' \"\" c'd e\n";
        let wanted: [&[&str]; 2] =
            [&["link", "add", "a", "type", "vti"], &["xfrm", "state", "list", "a b", "", "c'd", "e"]];
        assert_eq!(texts(text), wanted);
        let second = &commands(text)[1];
        assert_eq!(second.number, 5);
        assert_eq!((second.words[0].line, second.words[0].column), (4, 1));
        assert_eq!((second.words[2].line, second.words[2].column), (5, 3));
    }

    #[test]
    fn an_open_quote_and_too_many_words_are_told_where_they_are() {
        assert_eq!(commands("link 'oops\n")[0].broken, Some((UNTERMINATED, 1, 6)));
        let long = "a ".repeat(MAX_WORDS + 1);
        assert_eq!(commands(&long)[0].broken, Some((TOO_MANY, 1, 2 * MAX_WORDS + 1)));
        assert_eq!(commands(&"a ".repeat(MAX_WORDS))[0].broken, None);
        assert_eq!(commands("link \\\n")[0].broken, Some((UNFINISHED, 1, 5)));
    }

    proptest! {
        #[test]
        fn any_text_is_split_and_positions_are_inside(text in "[a-z '\"#\\\\\n\t]{0,80}") {
            let lines = text.split('\n').count();
            for command in commands(&text) {
                prop_assert!(command.number >= 1 && command.number <= lines);
                prop_assert!(command.words.iter().all(|w| w.line <= command.number && w.column >= 1));
            }
        }
    }
}
