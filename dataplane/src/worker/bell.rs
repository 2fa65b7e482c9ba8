//! Waking a worker that sleeps, and only then.

use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst, fence};

/// A doorbell: ringing costs a system call only while the worker sleeps.
#[derive(Debug)]
pub(crate) struct Bell {
    asleep: AtomicBool,
    fd: OwnedFd,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            asleep: AtomicBool::new(false),
            fd: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        })
    }

    /// After putting something where the worker looks.
    pub(crate) fn ring(&self) {
        // Either this sees the worker asleep, or the worker, which looks once more after lying down, sees what was put.
        fence(SeqCst);
        if self.asleep.swap(false, SeqCst) {
            // A full counter means that it rings already.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    /// The worker lies down; it must look for work once more before it blocks.
    pub(crate) fn lie_down(&self) {
        self.asleep.store(true, SeqCst);
        fence(SeqCst);
    }

    /// The worker is up.
    pub(crate) fn get_up(&self) {
        if !self.asleep.swap(false, SeqCst) {
            let mut count = [0; 8];
            let _ = rustix::io::read(&self.fd, &mut count);
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
