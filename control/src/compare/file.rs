//! Reads scenario files: sections, blocks, and lines. docs/scenarios.md describes them.
//!
//! What a file may do is bounded: it includes only its neighbours, and no block, however nested, makes a scenario
//! longer than [`MAX_LINES`].

use super::cursor::{Cursor, Line, Problem};
use super::scenario::{Place, Scenario};
use super::statement::{self, Statement};
use crate::ip::lines::{Word, commands};
use std::collections::BTreeMap;
use std::path::Path;

/// Longest file, bytes.
const MAX_FILE: u64 = 1 << 20;
/// Most lines of a scenario, its blocks expanded.
const MAX_LINES: usize = 1000;
/// Most words of a line, its parameters expanded.
const MAX_WORDS: usize = 200;
/// Longest word, its parameters expanded, bytes.
const MAX_WORD: usize = 10_000;
/// Blocks within blocks.
const MAX_DEPTH: usize = 8;

/// Reads the scenarios of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<Scenario>, Problem> {
    let name = path.display().to_string();
    let text = load(path).map_err(|text| Problem { file: name.clone(), line: 1, column: 1, text })?;
    parse(&name, &text, &|neighbour| load(&path.with_file_name(neighbour)))
}

fn load(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if length > MAX_FILE {
        return Err(format!("longer than {MAX_FILE} bytes"));
    }
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Parses the text of a file; `include` gives the text of a neighbour.
pub(crate) fn parse(
    file: &str,
    text: &str,
    include: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Vec<Scenario>, Problem> {
    let mut reader = Reader::default();
    reader.file(file, text, Some(include))?;
    reader.finish()?;
    Ok(reader.scenarios)
}

/// Lines under a name, with parameters.
#[derive(Clone, Debug)]
struct Block {
    parameters: BTreeMap<String, Vec<String>>,
    lines: Vec<Line>,
}

#[derive(Debug, Default)]
struct Reader {
    blocks: BTreeMap<String, Block>,
    /// The block that is being defined: its `block` line and name.
    open: Option<(Line, String)>,
    /// Lines before the first section: every section begins with them.
    common: Vec<Line>,
    section: Option<(Scenario, Vec<Line>)>,
    scenarios: Vec<Scenario>,
}

type Include<'a> = &'a dyn Fn(&str) -> Result<String, String>;

impl Reader {
    fn file(&mut self, file: &str, text: &str, include: Option<Include<'_>>) -> Result<(), Problem> {
        for command in commands(text) {
            let line = Line { file: file.to_owned(), words: command.words, end: command.end };
            if let Some((why, line, column)) = command.broken {
                return Err(Problem { file: file.to_owned(), line, column, text: why.to_owned() });
            }
            let first = line.words.first().map_or("", |w| w.text.as_str());
            match (first, &self.open) {
                ("end", Some(_)) => self.open = None,
                ("end", None) => return Err(line.problem(0, "no block is open")),
                ("block" | "include", Some(_)) => return Err(line.problem(0, "a block is open")),
                (_, Some((_, name))) => {
                    if let Some(block) = self.blocks.get_mut(name) {
                        block.lines.push(line);
                    }
                }
                ("block", None) => self.block(line)?,
                ("include", None) => self.include(&line, include)?,
                (head, None) if head.starts_with('[') => self.begin(&line, command.number)?,
                _ => match &mut self.section {
                    Some((scenario, lines)) => {
                        note_place(&mut scenario.place, &line, command.number);
                        lines.push(line);
                    }
                    None => self.common.push(line),
                },
            }
        }
        match self.open.take() {
            Some((line, name)) => Err(line.problem(0, format!("block {name} has no `end`"))),
            None => Ok(()),
        }
    }

    fn include(&mut self, line: &Line, include: Option<Include<'_>>) -> Result<(), Problem> {
        let mut words = Cursor::new(line, 1);
        let name = words.need("a file's name")?;
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if !plain || name.starts_with('.') {
            return Err(words.wrong("only a file of the same folder can be included"));
        }
        let Some(include) = include else { return Err(words.wrong("an included file cannot include")) };
        if self.section.is_some() {
            return Err(line.problem(0, "`include` comes before the first section"));
        }
        let text = include(name).map_err(|why| words.wrong(&why))?;
        words.end()?;
        self.file(name, &text, None)
    }

    fn block(&mut self, line: Line) -> Result<(), Problem> {
        let mut words = Cursor::new(&line, 1);
        let name = words.need("the block's name")?.to_owned();
        let mut parameters = BTreeMap::from([("more".to_owned(), Vec::new())]);
        while let Some(word) = words.next() {
            let (name, value) = word.split_once('=').ok_or_else(|| words.wrong("NAME=VALUE is expected"))?;
            parameters.insert(name.to_owned(), split(value));
        }
        if self.blocks.insert(name.clone(), Block { parameters, lines: Vec::new() }).is_some() {
            return Err(line.problem(1, format!("there is a block {name} already")));
        }
        self.open = Some((line, name));
        Ok(())
    }

    /// `[name] title`
    fn begin(&mut self, line: &Line, number: usize) -> Result<(), Problem> {
        self.finish()?;
        let mut words = Cursor::new(line, 0);
        let head = words.need("a name")?;
        let name = head.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or("");
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || !name.chars().all(plain) {
            return Err(words.wrong("a section begins with [name]: letters, digits, _ and -"));
        }
        if self.scenarios.iter().any(|s| s.name == name) {
            return Err(words.wrong("there is a scenario of this name already"));
        }
        let scenario = Scenario {
            name: name.to_owned(),
            title: words.rest().join(" "),
            file: line.file.clone(),
            place: Place { after: number, expect: Vec::new() },
            recorded: false,
            steps: Vec::new(),
            expected: BTreeMap::new(),
        };
        self.section = Some((scenario, Vec::new()));
        Ok(())
    }

    /// Ends the open section.
    fn finish(&mut self) -> Result<(), Problem> {
        let Some((mut scenario, lines)) = self.section.take() else { return Ok(()) };
        let mut expanded = Expanded::default();
        for line in self.common.iter().chain(&lines) {
            self.expand(line, &[], 0, &mut expanded)?;
        }
        for line in &expanded.lines {
            match statement::parse(line)? {
                Statement::Step(step) => scenario.steps.push(step),
                Statement::Recorded => scenario.recorded = true,
                Statement::Expect(counts) => {
                    for (name, n) in counts {
                        if scenario.expected.insert(name.clone(), n).is_some() {
                            return Err(line.problem(0, format!("{name} is expected twice")));
                        }
                    }
                }
            }
        }
        self.scenarios.push(scenario);
        Ok(())
    }

    /// The line, or the lines of the block that it uses.
    fn expand(
        &self,
        line: &Line,
        without: &[String],
        depth: usize,
        to: &mut Expanded,
    ) -> Result<(), Problem> {
        // Lines that only use blocks count as well: empty blocks in empty blocks would take for ever.
        to.looked_at += 1;
        if to.looked_at > MAX_LINES {
            return Err(line.problem(0, format!("a scenario of more than {MAX_LINES} lines")));
        }
        let mut words = Cursor::new(line, 1);
        if line.words.first().is_none_or(|w| w.text != "use") {
            to.lines.push(line.clone());
            return Ok(());
        }
        if depth >= MAX_DEPTH {
            return Err(line.problem(0, format!("blocks nested deeper than {MAX_DEPTH}")));
        }
        let name = words.need("a block's name")?;
        let block = self.blocks.get(name).ok_or_else(|| words.wrong("there is no such block"))?;
        if without.iter().any(|w| w == name) {
            return Ok(());
        }
        let (mut values, mut without) = (block.parameters.clone(), without.to_vec());
        while let Some(word) = words.next() {
            match (word, word.split_once('=')) {
                ("without", _) => {
                    without.extend(words.rest());
                    break;
                }
                ("+", _) => {
                    values.insert("more".to_owned(), words.rest());
                    break;
                }
                (_, Some((name, value))) if block.parameters.contains_key(name) => {
                    values.insert(name.to_owned(), split(value));
                }
                _ => return Err(words.wrong("the block has no such parameter")),
            }
        }
        for inner in &block.lines {
            self.expand(&substitute(inner, &values)?, &without, depth + 1, to)?;
        }
        Ok(())
    }
}

/// The lines of a scenario without its blocks.
#[derive(Debug, Default)]
struct Expanded {
    lines: Vec<Line>,
    looked_at: usize,
}

fn note_place(place: &mut Place, line: &Line, number: usize) {
    let first = line.words.first();
    match first {
        Some(word) if word.text == "expect" => place.expect.extend(word.line..=number),
        _ => place.after = number,
    }
}

fn split(value: &str) -> Vec<String> {
    value.split_whitespace().map(str::to_owned).collect()
}

/// Puts values for `$name`: a word that is nothing else becomes the words of the value.
fn substitute(line: &Line, values: &BTreeMap<String, Vec<String>>) -> Result<Line, Problem> {
    let mut words: Vec<Word> = Vec::new();
    for word in &line.words {
        let name: String = match word.text.split_once('$') {
            Some((_, name)) => name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect(),
            None => String::new(),
        };
        match values.get(&name) {
            Some(value) if word.text.len() == name.len() + 1 => {
                words.extend(value.iter().map(|text| Word { text: text.clone(), ..word.clone() }));
            }
            Some(value) => {
                let text = word.text.replacen(&format!("${name}"), &value.join(" "), 1);
                words.push(Word { text, ..word.clone() });
            }
            None => words.push(word.clone()),
        }
    }
    if words.len() > MAX_WORDS || words.iter().any(|w| w.text.len() > MAX_WORD) {
        return Err(line.problem(0, "too long with the values of its parameters"));
    }
    Ok(Line { file: line.file.clone(), words, end: line.end })
}
