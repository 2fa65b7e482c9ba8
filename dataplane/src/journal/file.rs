//! The file of the journal: lines are added behind one another and synced; now and then it is written anew.

use super::record::Record;
use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file's name in the state directory.
const NAME: &str = "sequence-numbers";
/// Its first line.
const HEADER: &str = "uvti sequence numbers, version 1";
/// What a file is that has another.
const WRONG: &str = "not a journal of sequence numbers of this version";
/// Longer ones are not read, bytes. Two million SAs fit.
const LONGEST: u64 = 1 << 30;

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused.
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Io(PathBuf, io::Error),
    /// Another process has it.
    #[error("{path}: another uvti uses this state directory", path = .0.display())]
    Taken(PathBuf),
    /// It is not what this program writes.
    #[error("{path}:{line}: {what}; to go on without it move it away, and give SAs new keys", path = .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Line, from 1; 0 is the file as a whole.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
}

/// The open file, which nobody else has.
pub(super) struct JournalFile {
    folder: PathBuf,
    /// Holds the lock.
    lock: File,
    file: File,
    /// Records in it.
    pub(super) lines: usize,
    /// Whether its name may still be another file's after a power cut.
    renamed: bool,
}

impl JournalFile {
    /// Opens or makes folder and file; the records, in the order in which they were written.
    pub(super) fn open(folder: &Path) -> Result<(Self, Vec<Record>), JournalError> {
        let path = folder.join(NAME);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| JournalError::Io(path, error)
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        let lock = made.and_then(|()| File::open(folder)).map_err(failed(folder))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| JournalError::Taken(folder.to_owned()))?;
        let mut file = open(&path, OpenOptions::new().append(true).create(true)).map_err(failed(&path))?;
        let text = read(&mut file, &path)?;
        let records = records(&text, &path)?;
        let mut new = Self { folder: folder.to_owned(), lock, file, lines: 0, renamed: false };
        // Without what a power cut left of a line.
        new.rewrite(records.iter()).map_err(failed(&path))?;
        Ok((new, records))
    }

    /// The file's path.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    /// Adds lines. They are on the disk when this returns.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        self.sync_name()?;
        let before = self.file.metadata()?.len();
        let written =
            self.file.write_all(lines(records.iter()).as_bytes()).and_then(|()| self.file.sync_data());
        if written.is_err() {
            // Half a line in the middle would spoil the file.
            self.file.set_len(before)?;
        }
        self.lines += records.len();
        written
    }

    fn sync_name(&mut self) -> io::Result<()> {
        if self.renamed {
            self.lock.sync_all()?;
            self.renamed = false;
        }
        Ok(())
    }

    /// From now on nothing can be written.
    #[cfg(test)]
    pub(super) fn break_for_test(&mut self, path: &Path) {
        self.file = File::open(path).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Replaces the file by one with these records, at one stroke.
    pub(super) fn rewrite<'a>(
        &mut self,
        records: impl ExactSizeIterator<Item = &'a Record>,
    ) -> io::Result<()> {
        let new = self.folder.join(format!("{NAME}.new"));
        let count = records.len();
        let mut file = open(&new, OpenOptions::new().append(true).create(true))?;
        file.set_len(0)?;
        file.write_all(format!("{HEADER}\n{}", lines(records)).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, self.path())?;
        // From here on the old file is nobody's: what is added to it would be lost.
        (self.file, self.lines, self.renamed) = (file, count, true);
        self.sync_name()
    }
}

/// Only a regular file, for its owner alone, and never by a symbolic link.
fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = options.read(true).mode(0o600).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

fn read(file: &mut File, path: &Path) -> Result<String, JournalError> {
    let mut bytes = Vec::new();
    let content = |what| JournalError::Content { path: path.to_owned(), line: 0, what };
    let failed = |error| JournalError::Io(path.to_owned(), error);
    if file.metadata().map_err(failed)?.len() > LONGEST {
        return Err(content("too long for a journal of sequence numbers"));
    }
    file.take(LONGEST).read_to_end(&mut bytes).map_err(failed)?;
    String::from_utf8(bytes).map_err(|_| content("not text"))
}

/// The records of a file. What stands behind the last end of a line was never synced, so that nothing was done on the
/// strength of it.
fn records(text: &str, path: &Path) -> Result<Vec<Record>, JournalError> {
    let content = |line, what| JournalError::Content { path: path.to_owned(), line, what };
    let Some(end) = text.rfind('\n') else {
        let cut_short = HEADER.starts_with(text).then(Vec::new);
        return cut_short.ok_or(content(1, WRONG));
    };
    let mut lines = text[..end].split('\n').enumerate();
    if lines.next().is_none_or(|(_, first)| first != HEADER) {
        return Err(content(1, WRONG));
    }
    let record =
        |(i, line)| Record::parse(line).ok_or(content(i + 1, "spoilt, or written by something else"));
    lines.map(record).collect()
}

fn lines<'a>(records: impl Iterator<Item = &'a Record>) -> String {
    records.map(|record| format!("{record}\n")).collect()
}
