//! What a worker waits for.

use super::Bell;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;
use uvti_core::device::DeviceId;

/// Most sources reported at once; the others are ready the next time.
const EVENTS: usize = 64;

/// A source of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Bell,
    Underlay,
    Device(DeviceId),
}

impl Token {
    fn data(self) -> EventData {
        EventData::new_u64(match self {
            Token::Bell => 0,
            Token::Underlay => 1,
            Token::Device(id) => 2 + u64::from(id.0),
        })
    }

    fn from_data(data: EventData) -> Self {
        match data.u64() {
            0 => Token::Bell,
            1 => Token::Underlay,
            n => Token::Device(DeviceId((n - 2) as u32)),
        }
    }
}

pub(super) struct Poll {
    epoll: OwnedFd,
    ready: Vec<Token>,
}

impl Poll {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, ready: Vec::with_capacity(EVENTS) })
    }

    /// Watches these, and nothing else.
    pub(super) fn watch<'a>(
        &mut self,
        bell: &Bell,
        underlay: &[BorrowedFd<'_>],
        devices: impl Iterator<Item = (DeviceId, BorrowedFd<'a>)>,
    ) -> io::Result<()> {
        let fresh = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&fresh, bell.as_fd(), Token::Bell.data(), EventFlags::IN)?;
        for fd in underlay {
            epoll::add(&fresh, fd, Token::Underlay.data(), EventFlags::IN)?;
        }
        for (id, fd) in devices {
            epoll::add(&fresh, fd, Token::Device(id).data(), EventFlags::IN)?;
        }
        self.epoll = fresh;
        self.ready.clear();
        Ok(())
    }

    /// What is ready now.
    pub(super) fn look(&mut self) -> io::Result<()> {
        self.wait(Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }))
    }

    /// Blocks until something is, or it is `due`.
    pub(super) fn sleep(&mut self, due: Option<Instant>) -> io::Result<()> {
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        // Rounded up by epoll to milliseconds.
        self.wait(left.and_then(|left| rustix::event::Timespec::try_from(left).ok()).as_ref())
    }

    /// Waits for the bell alone, and not for long.
    pub(super) fn nap(&mut self, bell: &Bell) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        self.ready.clear();
        let soon = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        match poll(&mut [PollFd::new(bell, PollFlags::IN)], Some(&soon)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn wait(&mut self, timeout: Option<&rustix::event::Timespec>) -> io::Result<()> {
        self.ready.clear();
        let mut events = [const { MaybeUninit::<Event>::uninit() }; EVENTS];
        match epoll::wait(&self.epoll, &mut events, timeout) {
            Ok((events, _)) => {
                self.ready.extend(events.iter().map(|e| Token::from_data(e.data)));
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// How many sources are ready, by the last look.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn token(&self, i: usize) -> Token {
        self.ready.get(i).copied().unwrap_or(Token::Bell)
    }
}
