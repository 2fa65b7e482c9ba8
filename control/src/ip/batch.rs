//! `ip -batch FILE`, and the plan that `uvti run --batch` and `uvti reload` make of such a file.

use super::execute::execute;
use super::parse::{Command, Names, Options, parse};
use super::session::Session;
use super::words::Fail;
use std::fmt;
use std::io::{self, Read, Write};
use uvti_core::device::{LinkInfo, LinkSpec};
use uvti_core::tables::Op;

/// A logical line: what a backslash at the end continued is one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    /// Number of its first line, from 1.
    number: usize,
    text: String,
}

/// A word and the column where it begins, from 1.
type Placed = (usize, String);

fn lines(text: &str) -> Vec<Source> {
    let mut lines: Vec<Source> = Vec::new();
    let mut open = false;
    for (i, line) in text.lines().enumerate() {
        let (part, goes_on) = match line.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (line, false),
        };
        match lines.last_mut().filter(|_| open) {
            Some(last) => last.text.push_str(part),
            None => lines.push(Source { number: i + 1, text: part.to_owned() }),
        }
        open = goes_on;
    }
    lines
}

/// iproute2's rules: blanks between words, quotes of both kinds around them, a `#` ends the line.
fn split(text: &str) -> Result<Vec<Placed>, Fail> {
    let text = text.split('#').next().unwrap_or("");
    let mut words = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c.is_whitespace() {
            continue;
        }
        let column = text[..at].chars().count() + 1;
        if c == '"' || c == '\'' {
            let start = at + 1;
            let Some((end, _)) = chars.by_ref().find(|(_, d)| *d == c) else {
                return Err(Fail::plain("Unterminated quoted string\n"));
            };
            words.push((column, text[start..end].to_owned()));
            continue;
        }
        let mut end = at + c.len_utf8();
        while let Some((i, d)) = chars.peek().copied() {
            if d.is_whitespace() {
                break;
            }
            chars.next();
            end = i + d.len_utf8();
        }
        words.push((column, text[at..end].to_owned()));
    }
    Ok(words)
}

fn read(file: &str) -> io::Result<String> {
    if file == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
}

/// `ip -batch FILE`: in order, ends at the first error unless `-force`; what went before stays.
pub(super) fn run(
    file: &str,
    options: &Options,
    session: &Session<'_>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let text = match read(file) {
        Ok(text) => text,
        Err(error) => {
            let _ = writeln!(err, "Cannot open file \"{file}\" for reading: {}", os_text(&error));
            return 1;
        }
    };
    let mut code = 0;
    for line in lines(&text) {
        let placed = match split(&line.text) {
            Ok(words) if words.is_empty() => continue,
            Ok(words) => words,
            Err(fail) => {
                let _ = err.write_all(fail.text.as_bytes());
                return fail.code;
            }
        };
        let words: Vec<String> = placed.into_iter().map(|(_, w)| w).collect();
        let _ = out.flush();
        code = match execute(&words, options, session, out, err) {
            Ok(code) => code,
            Err(fail) => {
                let _ = err.write_all(fail.text.as_bytes());
                // iproute2's xfrm exits where it stands, whatever -force says.
                if super::words::begins(&words[0], "xfrm") {
                    return fail.code;
                }
                fail.code
            }
        };
        if code != 0 {
            let _ = writeln!(err, "Command failed {file}:{}", line.number);
            if !options.force {
                return code;
            }
        }
    }
    if options.force { 0 } else { code }
}

/// strerror(3) without Rust's addition.
fn os_text(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Line number, from 1.
    pub number: usize,
    /// What it is.
    pub kind: Kind,
}

/// Who carries a line out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// uvti: these changes, then these commands of the system's `ip`.
    Owned(Vec<Op>),
    /// The system's `ip`, with these words.
    System(Vec<String>),
}

impl Line {
    /// Its changes, if it is uvti's.
    pub fn ops(self) -> Vec<Op> {
        match self.kind {
            Kind::Owned(ops) => ops,
            Kind::System(_) => Vec::new(),
        }
    }
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// File name, as given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column of the offending word, from 1.
    pub column: usize,
    /// iproute2's text.
    pub text: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.text)
    }
}

/// Checks every line of a batch file, and says who is to do what. Nothing is done yet.
pub fn plan(file: &str, text: &str, links: &[LinkInfo]) -> Result<Vec<Line>, Vec<FileError>> {
    let mut known = Known(links.iter().map(|l| l.spec.clone()).collect());
    let (mut plan, mut errors) = (Vec::new(), Vec::new());
    for source in lines(text) {
        match plan_line(&source, &mut known) {
            Ok(lines) => plan.extend(lines),
            Err((column, fail)) => errors.push(FileError {
                file: file.to_owned(),
                line: source.number,
                column,
                text: fail.text.trim_end().to_owned(),
            }),
        }
    }
    if errors.is_empty() { Ok(plan) } else { Err(errors) }
}

fn plan_line(source: &Source, known: &mut Known) -> Result<Vec<Line>, (usize, Fail)> {
    let placed = split(&source.text).map_err(|fail| (1, fail))?;
    let words: Vec<String> = placed.iter().map(|(_, w)| w.clone()).collect();
    let end = source.text.trim_end().chars().count() + 1;
    let column = |word: Option<usize>| word.and_then(|w| placed.get(w)).map_or(end, |(column, _)| *column);
    if words.is_empty() {
        return Ok(Vec::new());
    }
    let (options, used) = Options::parse(&words).map_err(|f| (column(f.word), f))?;
    if used > 0 && (options.namespace.is_some() || options.batch.is_some() || options.foreign) {
        let text = format!("uvti: option \"{}\" has no place in this file", words[0]);
        return Err((column(Some(0)), Fail::plain(text)));
    }
    let command =
        parse(&words[used..], &options, known).map_err(|f| (column(f.word.map(|w| w + used)), f))?;
    let line = |kind| Line { number: source.number, kind };
    Ok(match command {
        Command::Apply(change) => {
            change.ops.iter().for_each(|op| known.note(op));
            let mut lines = vec![line(Kind::Owned(change.ops))];
            lines.extend(change.then.into_iter().map(|w| line(Kind::System(w))));
            lines
        }
        Command::System(system) => {
            let words = words[..used].iter().cloned().chain(system).collect();
            vec![line(Kind::System(words))]
        }
        _ => {
            return Err((1, Fail::plain("uvti: only lines that change something have a place in this file")));
        }
    })
}

/// Links that there are, or will be by the time a line is reached.
struct Known(Vec<LinkSpec>);

impl Known {
    fn note(&mut self, op: &Op) {
        match op {
            Op::LinkAdd(spec) => self.0.push(spec.clone()),
            Op::LinkDel { name } => self.0.retain(|l| l.name != *name),
            _ => {}
        }
    }
}

impl Names for Known {
    /// A device may be made by an earlier line of the system's: it is not checked here.
    fn device(&self, _name: &str) -> bool {
        true
    }

    fn link(&self, name: &str) -> Option<LinkSpec> {
        self.0.iter().find(|l| l.name == name).cloned()
    }

    fn free_name(&self, prefix: &str) -> String {
        (0..u32::MAX)
            .map(|n| format!("{prefix}{n}"))
            .find(|name| self.link(name).is_none())
            .unwrap_or_else(|| prefix.to_owned())
    }
}
