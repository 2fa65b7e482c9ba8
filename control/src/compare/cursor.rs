//! Walking over the words of a line, and complaints that name their place.

use crate::ip::lines::Word;
use std::net::IpAddr;

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {text}")]
pub(crate) struct Problem {
    pub(crate) file: String,
    /// From 1.
    pub(crate) line: usize,
    /// From 1.
    pub(crate) column: usize,
    pub(crate) text: String,
}

/// A line of a file, as words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) file: String,
    pub(crate) words: Vec<Word>,
    /// Where it ends: line and column.
    pub(crate) end: (usize, usize),
}

impl Line {
    /// A complaint about one of its words, or about its end.
    pub(crate) fn problem(&self, word: usize, text: impl Into<String>) -> Problem {
        let (line, column) = self.words.get(word).map_or(self.end, |w| (w.line, w.column));
        Problem { file: self.file.clone(), line, column, text: text.into() }
    }
}

/// Walks over a line.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    line: &'a Line,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Behind the first `skip` words.
    pub(crate) fn new(line: &'a Line, skip: usize) -> Self {
        Self { line, at: skip }
    }

    /// The next word, if there is one.
    pub(crate) fn next(&mut self) -> Option<&'a str> {
        let word = self.line.words.get(self.at)?;
        self.at += 1;
        Some(&word.text)
    }

    pub(crate) fn peek(&self) -> Option<&'a str> {
        self.line.words.get(self.at).map(|w| w.text.as_str())
    }

    /// The next word; `what` is missing where there is none.
    pub(crate) fn need(&mut self, what: &str) -> Result<&'a str, Problem> {
        self.next().ok_or_else(|| self.line.problem(usize::MAX, format!("{what} is missing")))
    }

    /// A complaint about the word taken last.
    pub(crate) fn wrong(&self, why: &str) -> Problem {
        let at = self.at.saturating_sub(1);
        let word = self.line.words.get(at).map_or("", |w| w.text.as_str());
        self.line.problem(at, format!("\"{word}\": {why}"))
    }

    /// A complaint about the line as a whole.
    pub(crate) fn problem(&self, text: &str) -> Problem {
        self.line.problem(0, text)
    }

    /// The words that are left.
    pub(crate) fn rest(&self) -> Vec<String> {
        self.line.words.iter().skip(self.at).map(|w| w.text.clone()).collect()
    }

    /// Nothing may be left.
    pub(crate) fn end(&mut self) -> Result<(), Problem> {
        match self.next() {
            Some(_) => Err(self.wrong("nothing is expected here")),
            None => Ok(()),
        }
    }

    /// A number from `least` to `most`.
    pub(crate) fn number<T: TryFrom<u64>>(
        &mut self,
        what: &str,
        least: u64,
        most: u64,
    ) -> Result<T, Problem> {
        let word = self.need(what)?;
        let number = number(word).filter(|n| (least..=most).contains(n));
        number
            .and_then(|n| T::try_from(n).ok())
            .ok_or_else(|| self.wrong(&format!("{what} is a number from {least} to {most}")))
    }

    pub(crate) fn address(&mut self) -> Result<IpAddr, Problem> {
        self.need("an address")?.parse().map_err(|_| self.wrong("not an IP address"))
    }

    /// Bytes in hexadecimal, with or without `0x`.
    pub(crate) fn hex(&mut self, what: &str, most: usize) -> Result<Vec<u8>, Problem> {
        let word = self.need(what)?;
        hex(word.strip_prefix("0x").unwrap_or(word))
            .filter(|bytes| bytes.len() <= most)
            .ok_or_else(|| self.wrong(&format!("{what}: at most {most} bytes in hexadecimal")))
    }
}

/// A number as C writes it.
pub(crate) fn number(word: &str) -> Option<u64> {
    crate::ip::words::number(word)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits.filter(|d| d.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
