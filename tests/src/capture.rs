//! Captures one interface: every frame in the order it passed, both ways.

use crate::frame::{ESP, ETH_IPV4, Ipv4, UDP};
use crate::netns::Namespace;
use crate::sys::{self, Way};
use anyhow::{Context, Result, ensure};
use rustix::net::netdevice::name_to_index;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, Socket, Type};

/// Room for what passes between two drains. The kernel counts a small packet as 2 KiB.
const BUFFER: usize = 96 << 20;

/// An open capture. It also injects frames into the interface's wire.
#[derive(Debug)]
pub struct Capture {
    socket: Socket,
}

/// One frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Which way it went.
    pub way: Way,
    /// EtherType.
    pub kind: u16,
    /// What follows the Ethernet header.
    pub packet: Vec<u8>,
}

impl Capture {
    /// Starts to capture an interface.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Capture> {
        namespace.run(|| {
            // Protocol 0 until it is bound: nothing of other interfaces gets in.
            let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
            set_socket_recv_buffer_size_force(&socket, BUFFER)?;
            let index = name_to_index(&socket, interface).with_context(|| format!("no {interface}"))?;
            socket.bind(&sys::packet_address(index)?)?;
            socket.set_nonblocking(true)?;
            Ok(Capture { socket })
        })
    }

    /// Sends a frame out of the interface.
    pub fn inject(&self, frame: &[u8]) -> Result<()> {
        let sent = self.socket.send(frame).context("cannot inject a frame")?;
        ensure!(sent == frame.len(), "a frame of {} bytes was cut to {sent}", frame.len());
        Ok(())
    }

    /// All frames since the last drain. That some were lost is an error.
    pub fn drain(&self) -> Result<Vec<Frame>> {
        let mut frames = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match sys::receive_frame(&self.socket, &mut buffer) {
                Ok((length, way)) => {
                    if let Some((header, packet)) = buffer[..length].split_first_chunk::<14>() {
                        let kind = u16::from_be_bytes([header[12], header[13]]);
                        frames.push(Frame { way, kind, packet: packet.to_vec() });
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("cannot read a capture"),
            }
        }
        let lost = sys::packet_losses(&self.socket)?;
        ensure!(lost == 0, "the capture lost {lost} frames");
        Ok(frames)
    }
}

/// An ESP packet on the wire.
#[derive(Clone, Debug)]
pub struct EspPacket {
    /// The outer IPv4 header.
    pub outer: Ipv4,
    /// The UDP ports, when it came in UDP.
    pub ports: Option<(u16, u16)>,
    /// From the SPI to the ICV.
    pub esp: Vec<u8>,
}

impl EspPacket {
    /// Reads a frame; `None` when it is not whole ESP over IPv4, bare or in UDP.
    pub fn parse(frame: &Frame) -> Option<EspPacket> {
        if frame.kind != ETH_IPV4 {
            return None;
        }
        let (outer, payload) = Ipv4::parse(&frame.packet)?;
        match outer.protocol {
            _ if outer.fragment => None,
            ESP => Some(EspPacket { outer, ports: None, esp: payload.to_vec() }),
            UDP => {
                let (header, esp) = payload.split_first_chunk::<8>()?;
                let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
                let whole = usize::from(word(4)) == payload.len();
                whole.then(|| EspPacket { outer, ports: Some((word(0), word(2))), esp: esp.to_vec() })
            }
            _ => None,
        }
    }

    /// The SPI; 0 when there is none.
    pub fn spi(&self) -> u32 {
        self.esp.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }

    /// The sequence number; 0 when there is none.
    pub fn sequence(&self) -> u32 {
        self.esp.get(4..8).map_or(0, |bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}
