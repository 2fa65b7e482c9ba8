//! Network namespaces, held by file descriptor: a name under `/run/netns` is never needed.

use crate::sys::ns;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

/// Where iproute2 keeps named namespaces.
const NAMED: &str = "/run/netns";
/// The calling thread's own.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace; lives at least as long as this handle.
#[derive(Debug)]
pub struct Netns {
    file: File,
}

impl Netns {
    /// A new one without a name. `EPERM` without CAP_SYS_ADMIN.
    pub fn new() -> io::Result<Self> {
        on_scratch_thread(|| {
            ns::unshare_net()?;
            Self::current()
        })
    }

    /// The calling thread's.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new(OWN))
    }

    /// The one that `ip netns` calls `name`. `NotFound` if there is none; `InvalidInput` for a name with a slash.
    pub fn named(name: &str) -> io::Result<Self> {
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{name:?} is not a namespace name"),
            ));
        }
        Self::open(&Path::new(NAMED).join(name))
    }

    /// The one of process `pid`.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)? })
    }

    /// Number that tells this namespace from all others while it lives.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.ino())
    }

    /// Moves the calling thread into it, for good.
    pub fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Runs `work` inside it on a thread of its own; sockets opened there stay in it. A panic of `work` goes on here.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_scratch_thread(|| {
            self.enter()?;
            Ok(work())
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Makes a plain user root of a new user and network namespace, for the whole process.
///
/// The process must still have one thread (`EINVAL` otherwise); `EPERM` where the host forbids user namespaces.
pub fn become_root_in_own_namespaces() -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    ns::unshare_user_and_net()?;
    // man 7 user_namespaces: an unprivileged process may map its group only after giving up setgroups().
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// A thread's namespace cannot be left for one that it does not hold, so changes happen on threads that end.
fn on_scratch_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let scratch = thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        scratch.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::require_netns;

    #[test]
    fn work_happens_inside_and_only_there() {
        if !require_netns("work_happens_inside_and_only_there") {
            return;
        }
        let own = Netns::current().unwrap().inode().unwrap();
        let netns = Netns::new().unwrap();
        let inside = netns.run(|| Netns::current().unwrap().inode().unwrap()).unwrap();
        assert_eq!(inside, netns.inode().unwrap());
        assert_ne!(inside, own);
        assert_eq!(Netns::current().unwrap().inode().unwrap(), own);
        assert_eq!(Netns::of_process(std::process::id()).unwrap().inode().unwrap(), own);
    }

    #[test]
    fn names_stay_in_their_directory() {
        for name in ["", ".", "..", "../../proc/1/ns/net"] {
            assert_eq!(Netns::named(name).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        assert_eq!(Netns::named("uvti-no-such-namespace").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
