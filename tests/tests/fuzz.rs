//! Every committed input of the fuzz targets, and changes of it that need no coverage to be worth a try.

use std::path::{Path, PathBuf};
use uvti_tests::fuzz::{TARGETS, run};

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = folder.read_dir().unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Prints the input's name if `target` panics on it.
struct Named<'a>(&'a str, &'a Path, usize);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("target {}, input {}, change {}", self.0, self.1.display(), self.2);
        }
    }
}

#[test]
fn committed_inputs_are_fine() {
    for (target, _) in TARGETS {
        let inputs = corpus(target);
        assert!(!inputs.is_empty(), "{target} has no inputs");
        for (path, bytes) in &inputs {
            let _named = Named(target, path, 0);
            run(target, bytes);
        }
    }
}

/// The same changes every time: a byte replaced, an end cut off, a piece of another input put in.
#[test]
fn inputs_with_small_changes_are_fine() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as usize % below.max(1)
    };
    for (target, _) in TARGETS {
        let inputs = corpus(target);
        for (path, bytes) in &inputs {
            for change in 1..=60 {
                let mut changed = bytes.clone();
                for _ in 0..=random(3) {
                    let at = random(changed.len());
                    match random(4) {
                        0 => changed.truncate(at),
                        1 => {
                            let other = &inputs[random(inputs.len())].1;
                            let from = random(other.len());
                            let to = from + random(other.len() - from);
                            changed.splice(at..at, other[from..to].iter().copied());
                        }
                        _ => {
                            let value = [0, 1, 0x7f, 0xff, random(256) as u8][random(5)];
                            changed.get_mut(at).into_iter().for_each(|byte| *byte = value);
                        }
                    }
                }
                let _named = Named(target, path, change);
                run(target, &changed);
            }
        }
    }
}
