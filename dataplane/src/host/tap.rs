//! A TAP device: the other end of an Ethernet cable, in the hands of a tool.

use crate::sys;
use std::io;
use tun_tap::{Iface, Mode};

/// An Ethernet device of the calling thread's namespace; it goes with this handle.
pub struct Tap {
    iface: Iface,
}

impl Tap {
    /// Creates it, down.
    pub fn create(name: &str) -> io::Result<Self> {
        let iface = Iface::without_packet_info(name, Mode::Tap)?;
        rustix::io::ioctl_fionbio(sys::tun::borrow_fd(&iface), true)?;
        Ok(Self { iface })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.iface.name()
    }

    /// Lets the host receive a frame by the device. `EIO` while it is down.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.iface.send(frame).map(drop)
    }

    /// Takes the next frame that the host has sent by the device; `WouldBlock` if there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.iface.recv(buffer)
    }
}
