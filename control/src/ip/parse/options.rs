//! The options in front of the object.

use crate::ip::words::{Fail, begins};
use uvti_core::xfrm::Family;

/// `ip [OPTIONS] …`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `-n NS`.
    pub namespace: Option<String>,
    /// How often `-s` was given.
    pub stats: u8,
    /// `-d`.
    pub details: bool,
    /// `-j`.
    pub json: bool,
    /// `-p`.
    pub pretty: bool,
    /// `-o`.
    pub oneline: bool,
    /// `-br`.
    pub brief: bool,
    /// `-4`, `-6`, `-f`.
    pub family: Option<Family>,
    /// `-b FILE`.
    pub batch: Option<String>,
    /// `-force`.
    pub force: bool,
    /// All of them but `-b` and `-force`, for the system's `ip`.
    pub words: Vec<String>,
    /// One that only the system's `ip` serves, such as `-V` or `-h`.
    pub foreign: bool,
}

impl Options {
    /// Takes the options off the front of `words`; returns them and how many words they were.
    pub fn parse(words: &[String]) -> Result<(Self, usize), Fail> {
        let mut options = Self::default();
        let mut at = 0;
        while let Some(word) = words.get(at).filter(|w| w.starts_with('-')) {
            if word == "--" {
                return Ok((options, at + 1));
            }
            let name = if word.starts_with("--") { &word[1..] } else { word.as_str() };
            let used = options.one(name, words, at)?;
            if !(is(name, "-batch", 2) || is(name, "-force", 3)) {
                options.words.extend(words[at..at + used].iter().cloned());
            }
            at += used;
        }
        Ok((options, at))
    }

    /// Takes one option; returns how many words it was.
    fn one(&mut self, name: &str, words: &[String], at: usize) -> Result<usize, Fail> {
        let argument = || {
            let missing = || Fail::usage("Command line is not complete. Try option \"help\"\n", None);
            words.get(at + 1).ok_or_else(missing)
        };
        match name {
            "-4" => self.family = Some(Family::V4),
            "-6" => self.family = Some(Family::V6),
            "-0" | "-M" | "-B" | "-N" | "-iec" | "-ts" => self.foreign = true,
            _ if is(name, "-family", 2) => {
                self.family = match argument()?.as_str() {
                    "inet" => Some(Family::V4),
                    "inet6" => Some(Family::V6),
                    _ => {
                        self.foreign = true;
                        None
                    }
                };
                return Ok(2);
            }
            _ if is(name, "-stats", 2) || is(name, "-statistics", 2) => {
                self.stats = self.stats.saturating_add(1)
            }
            _ if is(name, "-details", 2) => self.details = true,
            _ if is(name, "-oneline", 2) => self.oneline = true,
            _ if is(name, "-force", 3) => self.force = true,
            _ if is(name, "-batch", 2) => {
                // Without a name iproute2 prints its whole usage; the system's own `ip` does that for us.
                match words.get(at + 1) {
                    Some(file) => self.batch = Some(file.clone()),
                    None => {
                        self.foreign = true;
                        self.words.push(words[at].clone());
                        return Ok(1);
                    }
                }
                return Ok(2);
            }
            _ if is(name, "-brief", 3) => self.brief = true,
            _ if is(name, "-json", 2) => self.json = true,
            _ if is(name, "-pretty", 2) => self.pretty = true,
            _ if is(name, "-netns", 2) => {
                self.namespace = Some(argument()?.clone());
                return Ok(2);
            }
            _ if is(name, "-loops", 2) || is(name, "-rcvbuf", 3) => {
                argument()?;
                self.foreign = true;
                return Ok(2);
            }
            // Colours and name resolution change nothing in what uvti prints.
            _ if is(name.split('=').next().unwrap_or(name), "-color", 2) || is(name, "-resolve", 2) => {}
            _ if ["-human-readable", "-timestamp", "-tshort", "-all", "-Version", "-help", "-Numeric"]
                .iter()
                .any(|o| is(name, o, 2)) =>
            {
                self.foreign = true;
            }
            _ => {
                let text = format!("Option \"{name}\" is unknown, try \"ip -help\".\n");
                return Err(Fail::usage(text, Some(at)));
            }
        }
        Ok(1)
    }
}

/// Whether `word` is a beginning of `option` of at least `least` bytes.
fn is(word: &str, option: &str, least: usize) -> bool {
    word.len() >= least && begins(word, option)
}
