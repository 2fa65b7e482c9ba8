//! What `uvti run` gives up: core dumps before it reads a key, and once it has started every right that forwarding
//! packets does not need.
//!
//! Rights belong to threads and are inherited by the threads that they start. So the workers are started by a thread
//! that has given them up ([`confined`]), while the main thread keeps them for the system's `ip` in a batch, and gives
//! them up ([`confine`]) before it starts all others.

use anyhow::Context;
use landlock::{ABI, Access, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities,
    set_no_new_privs,
};
use std::iter;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

/// Devices, routes, policies of sockets and sysctls; raw sockets; ports of `encap` below 1024.
const KEPT: CapabilitySet =
    CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW).union(CapabilitySet::NET_BIND_SERVICE);

/// What is written to besides the folders of the control socket and of the state: new devices, and the host's sysctls.
const WRITTEN: [&str; 2] = ["/dev/net", "/proc/sys/net"];

/// No core dump of this process, by a file or a pipe, and no look into its memory by others of its user.
pub(crate) fn seal_memory() -> anyhow::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).context("cannot forbid core dumps")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot forbid core dumps")
}

/// Gives up, for the calling thread and those that it will start: capabilities but [`KEPT`]; new privileges by
/// programs; and, where the kernel has Landlock, to run programs and to write files but below `folders` and [`WRITTEN`].
pub(crate) fn confine(folders: &[&Path]) -> anyhow::Result<()> {
    let kept = capabilities(None)?.permitted.intersection(KEPT);
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    clear_ambient_capability_set().context("cannot give capabilities up")?;
    set_capabilities(None, sets).context("cannot give capabilities up")?;
    set_no_new_privs(true).context("cannot set no_new_privs")?;
    landlock(folders).context("Landlock refuses")
}

fn landlock(folders: &[&Path]) -> anyhow::Result<()> {
    let all = AccessFs::from_all(ABI::V5);
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
    let folders = folders.iter().map(|folder| (*folder, all & !AccessFs::Execute));
    let written = WRITTEN.map(|path| (Path::new(path), write));
    let mut rules = Ruleset::default().handle_access(all)?.create()?;
    for (path, access) in iter::once((Path::new("/"), read)).chain(folders).chain(written) {
        // What does not exist now may not be written later, either.
        let Ok(fd) = PathFd::new(path) else { continue };
        rules = rules.add_rule(PathBeneath::new(&fd, access))?;
        // A rule is tied to an inode, and /proc/sys makes a new one of a folder that nobody holds.
        std::mem::forget(fd);
    }
    rules.restrict_self()?;
    Ok(())
}

/// Runs `work` on a thread that is [confined](confine), as are the threads that it starts.
pub(crate) fn confined<T: Send>(
    folders: &[&Path],
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    thread::scope(|scope| {
        let confined = || {
            confine(folders)?;
            work()
        };
        let thread = thread::Builder::new().spawn_scoped(scope, confined).context("cannot start a thread")?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confined_thread_cannot_get_more_and_others_keep_what_they_have() {
        let before = capabilities(None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let inside = confined(&[folder.path()], || {
            std::fs::write(folder.path().join("allowed"), "")?;
            std::fs::remove_file(folder.path().join("allowed"))?;
            // A thread that it starts is no freer.
            Ok(thread::spawn(|| (capabilities(None), rustix::thread::no_new_privs())).join().unwrap())
        });
        let (sets, no_new_privs) = inside.unwrap();
        let sets = sets.unwrap();
        assert_eq!(sets.permitted, before.permitted.intersection(KEPT));
        assert_eq!((sets.effective, sets.inheritable), (sets.permitted, CapabilitySet::empty()));
        assert!(no_new_privs.unwrap());
        assert_eq!(capabilities(None).unwrap(), before);
    }
}
