//! What people and scripts write: command lines, batch files, scenarios.

use super::plant;
use uvti::ip::batch::{Kind, plan};
use uvti::ip::parse::{Command, Names, Options, parse};
use uvti_core::device::LinkSpec;
use uvti_core::tables::{Context, Op, Snapshot};

/// A host that has most devices, but not all: somewhere there is a name for a new one.
struct Anything;

impl Names for Anything {
    fn device(&self, name: &str) -> bool {
        !name.ends_with(['v', '7'])
    }

    fn link(&self, _: &str) -> Option<LinkSpec> {
        None
    }
}

/// Applies what can be, as the engine would.
pub(super) fn apply(ops: &[Op]) -> Snapshot {
    let (mut tables, mut salt) = (Snapshot::new(2), 0);
    let mut random = || {
        salt += 1;
        salt
    };
    for op in ops {
        let _ = tables.apply(op, &mut Context { now: 1, random: &mut random });
    }
    tables
}

/// The words of `uvti ip …`: a command, or a complaint with an exit code that names one of the words.
pub(super) fn ip_words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let (options, at) = match Options::parse(&words) {
        Ok(parsed) => parsed,
        Err(fail) => {
            assert!(fail.code != 0, "{fail:?}");
            return;
        }
    };
    let words = &words[at..];
    match parse(words, &options, &Anything) {
        Ok(Command::Apply(change)) => {
            let tables = apply(&change.ops);
            plant(tables.policies.newest_first().iter().any(|p| (6..10).contains(&p.spec.priority)));
        }
        Ok(_) => {}
        Err(fail) => {
            assert!(fail.code != 0 && fail.text.ends_with('\n'), "{fail:?}");
            assert!(fail.word.is_none_or(|w| w < words.len().max(1)), "{fail:?}");
        }
    }
}

/// A batch file: a plan whose lines are the file's, or errors that name places in it.
pub(super) fn batch(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines = text.split('\n').count();
    match plan("f", &text, &Anything) {
        Ok(planned) => {
            assert!(planned.iter().all(|line| (1..=lines).contains(&line.number)));
            let owned = planned.iter().filter_map(|line| match &line.kind {
                Kind::Owned(ops) => Some(ops.clone()),
                Kind::System(_) => None,
            });
            let tables = apply(&owned.flatten().collect::<Vec<_>>());
            plant(tables.states.iter().any(|sa| !matches!(sa.spec.spi.0, 0x1000 | 0x1001)));
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!((1..=lines).contains(&error.line) && error.column >= 1, "{error:?} of {lines} lines");
            }
        }
    }
}

/// A scenario file: scenarios, or where and why not.
pub(super) fn scenario(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match uvti::fuzzing::scenarios(&text) {
        Ok((scenarios, steps)) => {
            assert!(steps <= scenarios * 1000, "{steps} steps of {scenarios} scenarios");
            plant(scenarios == 2 && text.contains("block"));
        }
        Err(problem) => assert!(problem.contains(':'), "{problem}"),
    }
}
