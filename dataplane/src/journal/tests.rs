//! What a journal grants, and what it makes of files that somebody spoilt.

use super::*;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tempfile::TempDir;
use uvti_core::vti::testing::{IN, Lab, OUT};
use uvti_core::xfrm::{Key, Spi, StateFlags, StateSpec};

const FILE: &str = "sequence-numbers";

impl Journal {
    /// As a kill would, lets nothing more be noted.
    pub(crate) fn kill_for_test(&mut self) {
        self.entries.clear();
    }

    /// From now on the disk fails.
    pub(crate) fn break_for_test(&mut self) {
        let path = self.file.path();
        self.file.break_for_test(&path);
    }
}

fn sa(spec: &StateSpec) -> Arc<Sa> {
    let lab = Lab { states: vec![spec.clone()], policies: Vec::new(), ..Lab::vti() };
    let sa = lab.tables().states.named(&spec.id()).unwrap().clone();
    static SALT: AtomicU64 = AtomicU64::new(1);
    sa.run.resume(0, 0, SALT.fetch_add(1, Relaxed));
    sa
}

fn spec() -> StateSpec {
    Lab::vti().states[OUT].clone()
}

fn added(journal: &mut Journal, spec: &StateSpec) -> Arc<Sa> {
    let sa = sa(spec);
    journal.take_up(&sa);
    assert_eq!(sa.run.out.available(), 0, "nothing before it is on the disk");
    journal.commit().unwrap();
    sa
}

fn file(dir: &TempDir) -> PathBuf {
    dir.path().join(FILE)
}

fn refused(dir: &TempDir) -> String {
    Journal::open(dir.path()).err().expect("a refusal").to_string()
}

#[test]
fn a_killed_process_burns_what_it_had_reserved() {
    let dir = TempDir::new().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    let first = added(&mut journal, &spec());
    assert_eq!((first.run.out.available(), first.run.out.waits()), (CHUNK, true));
    assert_eq!(first.run.out.reserve(5).last(), Some(5));
    // As a kill does it: the lock goes, and nothing else happens.
    drop(journal);
    let mut journal = Journal::open(dir.path()).unwrap();
    let second = added(&mut journal, &spec());
    assert_eq!(second.run.out.reserve(1).last(), Some(CHUNK + 1));
    assert_eq!(second.run.salt(), first.run.salt());
}

#[test]
fn a_clean_stop_burns_nothing() {
    let dir = TempDir::new().unwrap();
    for round in 0..3 {
        let mut journal = Journal::open(dir.path()).unwrap();
        let sa = added(&mut journal, &spec());
        assert_eq!(sa.run.out.reserve(5).next(), Some(5 * round + 1));
        journal.close();
    }
}

#[test]
fn numbers_are_reserved_before_they_run_short_and_not_without_a_disk() {
    let dir = TempDir::new().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    let sa = added(&mut journal, &spec());
    let out = &sa.run.out;
    out.reserve(CHUNK as usize / 2);
    journal.keep(true);
    assert_eq!(out.available(), CHUNK / 2, "there are enough");
    out.reserve(1);
    journal.keep(false);
    assert_eq!(out.available(), CHUNK);
    // A file that takes nothing more.
    journal.break_for_test();
    out.reserve(CHUNK as usize);
    journal.keep(true);
    assert_eq!((out.available(), out.waits()), (0, true));
    let other = self::sa(&StateSpec { spi: Spi(0x777), ..spec() });
    journal.take_up(&other);
    assert!(journal.commit().is_err());
    assert_eq!(other.run.out.available(), 0);
}

#[test]
fn only_the_same_key_spi_and_destination_goes_on() {
    let dir = TempDir::new().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    added(&mut journal, &spec());
    let mut other = spec();
    other.algs.aead.as_mut().unwrap().key = Key::new(vec![9; 20]);
    let others = [other, StateSpec { spi: Spi(0x999), ..spec() }];
    for other in others {
        assert_eq!(added(&mut journal, &other).run.out.last(), 0);
    }
}

/// Deleted and added again in one life, with the old one still in a snapshot or not.
#[test]
fn a_successor_never_uses_a_number_of_its_predecessor() {
    let dir = TempDir::new().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    let first = added(&mut journal, &spec());
    first.run.out.reserve(10);
    let second = added(&mut journal, &spec());
    assert_eq!(second.run.out.last(), CHUNK);
    journal.keep(true);
    assert_eq!(first.run.out.available(), CHUNK - 10, "no more than it had");
    second.run.out.reserve(10);
    drop(second);
    assert_eq!(added(&mut journal, &spec()).run.out.last(), CHUNK + 10);
    journal.keep(true);
    let record = *journal.entries.values().next().map(|e| &e.record).unwrap();
    assert_eq!(record.sent, CHUNK + 10, "exactly, once it is gone");
}

#[test]
fn what_was_received_is_not_received_again() {
    let dir = TempDir::new().unwrap();
    let spec = StateSpec { replay_window: 64, ..Lab::vti().states[IN].clone() };
    let mut journal = Journal::open(dir.path()).unwrap();
    let first = added(&mut journal, &spec);
    first.run.window.advance(1000);
    journal.keep(true);
    drop(journal);
    let mut journal = Journal::open(dir.path()).unwrap();
    let second = added(&mut journal, &spec);
    assert!((900..=1000).all(|seq| second.run.window.check(seq).is_err()));
    assert_eq!(second.run.window.check(1001), Ok(1001));
}

/// At the last number of 32 bits there is nothing to wait for.
#[test]
fn the_end_of_all_numbers_is_an_overflow() {
    let dir = TempDir::new().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    let mut near = spec();
    near.replay.oseq = u32::MAX - 3;
    let sa = added(&mut journal, &near);
    assert_eq!((sa.run.out.available(), sa.run.out.waits()), (3, false));
}

#[test]
fn a_file_has_one_user() {
    let dir = TempDir::new().unwrap();
    let _journal = Journal::open(dir.path()).unwrap();
    assert!(refused(&dir).ends_with("another uvti uses this state directory"));
}

#[test]
fn what_a_power_cut_left_of_a_line_counts_for_nothing() {
    let dir = TempDir::new().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    added(&mut journal, &spec());
    drop(journal);
    let whole = fs::read_to_string(file(&dir)).unwrap();
    for tail in [&whole[40..90], "\0\0\0\0", "uvti"] {
        fs::write(file(&dir), format!("{whole}{tail}")).unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        assert_eq!(journal.entries.len(), 1);
        assert_eq!(fs::read_to_string(file(&dir)).unwrap(), whole);
        journal.commit().unwrap();
    }
    for cut in 0..33 {
        fs::write(file(&dir), &whole[..cut]).unwrap();
        assert!(Journal::open(dir.path()).is_ok_and(|journal| journal.entries.is_empty()), "{cut}");
    }
}

#[test]
fn what_it_did_not_write_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    added(&mut journal, &spec());
    drop(journal);
    let whole = fs::read_to_string(file(&dir)).unwrap();
    let name = file(&dir).display().to_string();
    let cases: [(Vec<u8>, &str); 5] = [
        (
            whole.replace("version 1", "version 2").into(),
            ":1: not a journal of sequence numbers of this version",
        ),
        (whole.replacen(" 0x", " 0y", 1).into(), ":2: spoilt, or written by something else"),
        (format!("{whole}\n").into(), ":3: spoilt, or written by something else"),
        (b"\xff\xfe\n".to_vec(), ":0: not text"),
        (b"\n".to_vec(), ":1: not a journal of sequence numbers of this version"),
    ];
    for (bytes, complaint) in cases {
        fs::write(file(&dir), bytes).unwrap();
        let said = refused(&dir);
        assert!(said.starts_with(&format!("{name}{complaint}")), "{said}");
    }
    fs::File::options().write(true).open(file(&dir)).unwrap().set_len(1 << 40).unwrap();
    assert!(refused(&dir).starts_with(&format!("{name}:0: too long")));
    fs::remove_file(file(&dir)).unwrap();
    std::os::unix::fs::symlink("/dev/zero", file(&dir)).unwrap();
    assert!(refused(&dir).starts_with(&name));
    fs::remove_file(file(&dir)).unwrap();
    fs::create_dir(file(&dir)).unwrap();
    assert!(refused(&dir).starts_with(&name));
}

#[test]
fn neither_keys_nor_others_eyes() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let mut journal = Journal::open(&dir.path().join("new/folder")).unwrap();
    added(&mut journal, &spec());
    let folder = dir.path().join("new/folder");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join(FILE))), (0o700, 0o600));
    // The key is 00 01 02 …
    assert!(!fs::read_to_string(folder.join(FILE)).unwrap().contains("0001020304"));
}

/// So much traffic that each look has something to note; the numbers of 32 bits would come to their end.
fn busy(journal: &mut Journal) -> (StateSpec, Arc<Sa>) {
    let mut spec = StateSpec { replay_window: 64, ..spec() };
    spec.flags.0 |= StateFlags::ESN;
    let sa = added(journal, &spec);
    for _ in 0..STALE + 100 {
        sa.run.out.reserve(CHUNK as usize - 1);
        journal.keep(true);
    }
    (spec, sa)
}

#[test]
fn a_long_file_is_shortened() {
    let dir = TempDir::new().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    let (spec, sa) = busy(&mut journal);
    assert!(journal.file.lines < 110, "{}", journal.file.lines);
    let last = sa.run.out.last();
    drop(journal);
    let next = added(&mut Journal::open(dir.path()).unwrap(), &spec);
    assert!((last..=last + CHUNK).contains(&next.run.out.last()));
}

/// Where it cannot be shortened it grows, and is right.
#[test]
fn a_file_that_cannot_be_shortened_goes_on() {
    let dir = TempDir::new().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    fs::create_dir(dir.path().join("sequence-numbers.new")).unwrap();
    let (spec, sa) = busy(&mut journal);
    assert_eq!(journal.file.lines, STALE + 101);
    let last = sa.run.out.last();
    drop(journal);
    fs::remove_dir(dir.path().join("sequence-numbers.new")).unwrap();
    let next = added(&mut Journal::open(dir.path()).unwrap(), &spec);
    assert!((last..=last + CHUNK).contains(&next.run.out.last()));
}

#[test]
fn of_deleted_sas_the_last_are_remembered() {
    let dir = TempDir::new().unwrap();
    let mut journal = Journal::open(dir.path()).unwrap();
    let one = sa(&spec());
    let spis = 1..=2 * REMEMBERED as u32 + STALE as u32 + 2;
    // As many SAs as it takes, without their ciphers: only the fingerprint tells them apart.
    for spi in spis.clone() {
        let (mut record, mut fingerprint) = (template(&one), [0; 32]);
        fingerprint[..4].copy_from_slice(&spi.to_be_bytes());
        record.fingerprint = Fingerprint(fingerprint);
        journal.clock += 1;
        journal.entries.insert(record.fingerprint, Entry { record, live: None, changed: journal.clock });
    }
    journal.file.lines = 3 * spis.clone().count() + STALE;
    journal.compact();
    assert_eq!(journal.entries.len(), REMEMBERED);
    let kept = |spi: u32| journal.entries.keys().any(|print| print.0[..4] == spi.to_be_bytes());
    assert_eq!((kept(*spis.start()), kept(*spis.end())), (false, true));
}

fn template(sa: &Sa) -> Record {
    let spec = &sa.spec;
    Record { fingerprint: spec.fingerprint(), dst: spec.dst, spi: spec.spi, sent: 1, received: 0, salt: 2 }
}
