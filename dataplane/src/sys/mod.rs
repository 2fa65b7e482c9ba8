//! Thin safe wrappers of the system calls that no safe crate offers: the only unsafe code that talks to the
//! kernel. Errors are plain errno values; meaning is added by the callers.
#![allow(unsafe_code, reason = "system calls; every block says why it is sound")]

pub(crate) mod cmsg;
pub(crate) mod mmsg;
pub(crate) mod ns;
pub(crate) mod packet;
pub(crate) mod sockopt;
pub(crate) mod tun;

use rustix::io::Errno;

/// The errno of the call that just failed in this thread.
fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// The return value of a system call, or its errno.
fn check(returned: libc::c_int) -> Result<libc::c_int, Errno> {
    if returned < 0 { Err(last_errno()) } else { Ok(returned) }
}
