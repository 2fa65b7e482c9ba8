//! Namespaces of the calling thread.

use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves the calling thread into a new network namespace.
pub(crate) fn unshare_net() -> Result<(), Errno> {
    // SAFETY: only CLONE_FILES can invalidate what other threads hold (file descriptors); it is not used.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
}

/// Moves the calling process into a new user and a new network namespace. `EINVAL` if it has several threads.
pub(crate) fn unshare_user_and_net() -> Result<(), Errno> {
    // SAFETY: as above.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET) }
}
