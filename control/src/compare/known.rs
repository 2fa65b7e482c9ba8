//! The file `known-differences` beside scenarios: differences that are explained, with both values. A difference of
//! other values is a difference, and one that has gone is told, so that the file stays true.

use super::cursor::{Cursor, Line, Problem};
use super::folder;
use crate::ip::lines::commands;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

const FILE: &str = "known-differences";

/// One explained difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) scenario: String,
    /// The counter's name, as in [`super::scenario::Counts`].
    pub(crate) field: String,
    pub(crate) kernel: u64,
    pub(crate) uvti: u64,
    /// The mechanism.
    pub(crate) why: String,
}

/// What is known in the folders of these files.
pub(crate) fn read_all(files: &[PathBuf]) -> Result<Vec<Known>> {
    let mut folders: Vec<PathBuf> = files.iter().map(|f| folder(f)).collect();
    folders.dedup();
    let mut all = Vec::new();
    for path in folders.iter().map(|f| f.join(FILE)).filter(|p| p.is_file()) {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        all.extend(parse(&path, &text)?);
    }
    Ok(all)
}

/// `SCENARIO FIELD… kernel N uvti N because MECHANISM…`
fn parse(path: &Path, text: &str) -> Result<Vec<Known>, Problem> {
    let mut all = Vec::new();
    for command in commands(text) {
        let line = Line { file: path.display().to_string(), words: command.words, end: command.end };
        let mut words = Cursor::new(&line, 0);
        let scenario = words.need("a scenario's name")?.to_owned();
        let mut field = Vec::new();
        loop {
            match words.need("`kernel N`")? {
                "kernel" => break,
                word => field.push(word),
            }
        }
        let kernel = words.number("a count", 0, u64::MAX)?;
        if words.need("`uvti N`")? != "uvti" {
            return Err(words.wrong("`uvti N` is expected"));
        }
        let uvti = words.number("a count", 0, u64::MAX)?;
        if words.need("`because …`")? != "because" {
            return Err(words.wrong("`because MECHANISM` is expected"));
        }
        let why = words.rest().join(" ");
        all.push(Known { scenario, field: field.join(" "), kernel, uvti, why });
    }
    Ok(all)
}
