//! `ip -batch`, and files of commands that are checked as a whole before any is run.

use super::execute::{Session, report};
use super::lines::{self, Command as Written};
use super::parse::{Command, Names, Options, parse};
use super::system::Ended;
use super::words::{Fail, begins};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use uvti_core::device::LinkSpec;
use uvti_core::tables::Op;

/// Runs the commands of `file` (`-` is standard input) in order, as `ip -batch` does: it stops at the first that
/// fails, or goes on under `-force`; what was done stays.
pub(super) fn run(file: &str, session: &mut Session<'_>, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let text = match read(file) {
        Ok(text) => text,
        Err(error) => {
            let why = if error.kind() == std::io::ErrorKind::NotFound {
                "No such file or directory".to_owned()
            } else {
                error.to_string()
            };
            let _ = writeln!(err, "Cannot open file \"{file}\" for reading: {why}");
            return 1;
        }
    };
    let mut code = 0;
    for command in lines::commands(&text) {
        if let Some((why, ..)) = command.broken {
            let _ = writeln!(err, "{why}");
            return if why == lines::UNFINISHED { code } else { 1 };
        }
        let words: Vec<String> = command.words.iter().map(|w| w.text.clone()).collect();
        let ended = one(&words, session, out, err);
        if ended.at_once {
            return ended.code;
        }
        if ended.code != 0 {
            // Whatever the command's own code is; later lines that succeed do not make up for it.
            code = 1;
            let _ = out.flush();
            let _ = writeln!(err, "Command failed {file}:{}", command.number);
            if !session.options.force {
                return code;
            }
        }
    }
    code
}

fn read(file: &str) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    match file {
        "-" => std::io::stdin().lock().read_to_end(&mut bytes)?,
        _ => std::fs::File::open(file)?.read_to_end(&mut bytes)?,
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn one(words: &[String], session: &mut Session<'_>, out: &mut dyn Write, err: &mut dyn Write) -> Ended {
    let result = match unknown_object(words) {
        Some(fail) => Err(fail),
        None => session.command(words, out, err),
    };
    match result {
        Ok(code) => Ended { code, at_once: false },
        Err(fail) => Ended { code: report(&fail, err), at_once: leaves(words, &fail) },
    }
}

/// Whether iproute2 leaves at once. Measured: for every error of `xfrm`, of its parser or of the kernel; elsewhere
/// for words that it does not like, but not for devices that are missing and for what a kernel refused.
fn leaves(words: &[String], fail: &Fail) -> bool {
    let object = words.first().map_or("", String::as_str);
    // Without a text it is the system's `ip` that has said all and left.
    if fail.text.is_empty() || !object.is_empty() && begins(object, "xfrm") {
        return true;
    }
    let returned =
        ["Cannot find device", "Failed to get", "add tunnel", "delete tunnel", "Object ", "ttl != 0"];
    !(fail.code == 2 || returned.iter().any(|text| fail.text.starts_with(text)))
}

/// iproute2's objects.
const OBJECTS: [&str; 35] = [
    "address",
    "addrlabel",
    "amt",
    "maddress",
    "route",
    "rule",
    "neighbor",
    "neighbour",
    "ntable",
    "ntbl",
    "link",
    "l2tp",
    "fou",
    "ila",
    "macsec",
    "tunnel",
    "tunl",
    "tuntap",
    "tap",
    "token",
    "tcpmetrics",
    "tcp_metrics",
    "monitor",
    "xfrm",
    "mroute",
    "mrule",
    "netns",
    "netconf",
    "vrf",
    "sr",
    "nexthop",
    "mptcp",
    "ioam",
    "help",
    "stats",
];

/// Options are for the command line: in a line of a batch they are no object.
fn unknown_object(words: &[String]) -> Option<Fail> {
    let object = words.first()?;
    if OBJECTS.iter().any(|known| begins(object, known)) {
        return None;
    }
    Some(Fail { word: Some(0), ..Fail::plain(format!("Object \"{object}\" is unknown, try \"ip help\".\n")) })
}

/// One command of a checked file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its line in the file, from 1 (the last, if it goes over several).
    pub number: usize,
    /// Its words.
    pub words: Vec<String>,
    /// Who runs it.
    pub kind: Kind,
}

/// Who runs a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// uvti.
    Owned(Vec<Op>),
    /// The system's `ip`, with these words.
    System(Vec<String>),
}

/// What is wrong with a line of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FileError {
    /// The file's name.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
    /// iproute2's complaint.
    pub text: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.text)
    }
}

/// Checks every line of a file that describes a configuration, before any of it is applied. A link that a line
/// adds is known to the lines behind it.
///
/// # Errors
/// All lines that are wrong, in the order of the file. A line that changes nothing (`xfrm state list`), or whose
/// effect depends on what is running (`deleteall`), is wrong too.
pub fn plan(file: &str, text: &str, names: &dyn Names) -> Result<Vec<Line>, Vec<FileError>> {
    let names = Overlay { base: names, links: RefCell::default() };
    let (mut planned, mut errors) = (Vec::new(), Vec::new());
    for command in lines::commands(text) {
        match check(&command, &names) {
            Ok(lines) => planned.extend(lines),
            Err(fail) => errors.push(place(file, &command, &fail)),
        }
    }
    if errors.is_empty() { Ok(planned) } else { Err(errors) }
}

fn check(command: &Written, names: &Overlay<'_>) -> Result<Vec<Line>, Fail> {
    if let Some((why, ..)) = command.broken {
        return Err(Fail::plain(why));
    }
    let words: Vec<String> = command.words.iter().map(|w| w.text.clone()).collect();
    if let Some(fail) = unknown_object(&words) {
        return Err(fail);
    }
    let line = |kind| Line { number: command.number, words: words.clone(), kind };
    match parse(&words, &Options::default(), names)? {
        Command::System(system) => {
            names.added_by_system(&system);
            Ok(vec![line(Kind::System(system))])
        }
        Command::Apply(change) => {
            change.ops.iter().for_each(|op| names.note(op));
            let then = change.then.into_iter().map(Kind::System);
            Ok([Kind::Owned(change.ops)].into_iter().chain(then).map(line).collect())
        }
        Command::StateDeleteAll(_) | Command::PolicyDeleteAll(_) => Err(Fail {
            word: Some(2),
            ..Fail::plain("uvti: deleteall depends on what is running: use flush in a configuration")
        }),
        _ => Err(Fail {
            word: Some(0),
            ..Fail::plain("uvti: this shows something and changes nothing: not a line of a configuration")
        }),
    }
}

fn place(file: &str, command: &Written, fail: &Fail) -> FileError {
    let word = fail.word.and_then(|w| command.words.get(w)).map(|w| (w.line, w.column));
    let broken = command.broken.map(|(_, line, column)| (line, column));
    let (line, column) = broken.or(word).unwrap_or(command.end);
    FileError { file: file.to_owned(), line, column, text: fail.text.trim_end().to_owned() }
}

/// The names that are known when the lines so far have been run.
struct Overlay<'a> {
    base: &'a dyn Names,
    links: RefCell<BTreeMap<String, Change>>,
}

/// What the lines so far did to a name.
enum Change {
    Ours(LinkSpec),
    System,
    Gone,
}

impl Overlay<'_> {
    fn note(&self, op: &Op) {
        let (name, change) = match op {
            Op::LinkAdd(spec) | Op::LinkChange(spec) => (spec.name.clone(), Change::Ours(spec.clone())),
            Op::LinkDel { name } => (name.clone(), Change::Gone),
            _ => return,
        };
        self.links.borrow_mut().insert(name, change);
    }

    /// `link add NAME type dummy` and the like: a name that `dev` may mention.
    fn added_by_system(&self, words: &[String]) {
        if let [object, verb, rest @ ..] = words
            && begins(object, "link")
            && begins(verb, "add")
        {
            let named = rest.iter().position(|w| w == "name").and_then(|at| rest.get(at + 1));
            if let Some(name) = named.or_else(|| rest.iter().find(|w| *w != "dev")) {
                self.links.borrow_mut().insert(name.clone(), Change::System);
            }
        }
    }
}

impl Names for Overlay<'_> {
    fn device(&self, name: &str) -> bool {
        match self.links.borrow().get(name) {
            Some(Change::Gone) => false,
            Some(_) => true,
            None => self.base.device(name),
        }
    }

    fn link(&self, name: &str) -> Option<LinkSpec> {
        match self.links.borrow().get(name) {
            Some(Change::Ours(spec)) => Some(spec.clone()),
            Some(_) => None,
            None => self.base.link(name),
        }
    }
}
