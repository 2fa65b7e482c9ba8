//! rtnetlink: routes, links and addresses of a network namespace, without iproute2.

mod address;
mod events;
#[doc(hidden)]
pub mod fuzzing;
mod link;
mod onward;
mod route;
mod stats;
#[cfg(test)]
mod tests;

pub use events::{Changes, Events};
pub use link::Link;
pub use route::{OuterRoute, RouteError, RouteKind, RouteSpec, Scope};

use link::indexed;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::io::Errno;
use std::io;

/// How often a dump is begun again when the kernel says that the list changed under it.
const DUMP_RETRIES: usize = 8;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel refused it.
    #[error("{request}: {errno}")]
    Refused {
        /// What was asked.
        request: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The netlink socket failed.
    #[error("{request}: netlink socket: {source}")]
    Socket {
        /// What was asked.
        request: String,
        /// The socket's error.
        source: io::Error,
    },
    /// The answer could not be read.
    #[error("{request}: netlink answer not understood: {why}")]
    Answer {
        /// What was asked.
        request: String,
        /// What is wrong with it.
        why: String,
    },
}

impl NetlinkError {
    /// The kernel's errno, if it answered with one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            NetlinkError::Refused { errno, .. } => Some(*errno),
            NetlinkError::Socket { source, .. } => Errno::from_io_error(source),
            NetlinkError::Answer { .. } => None,
        }
    }
}

/// A netlink socket for requests, in the namespace of the thread that opened it.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || {
            let socket = Socket::new(NETLINK_ROUTE)?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        let failed = |source| NetlinkError::Socket { request: "opening netlink".into(), source };
        Ok(Self { socket: open().map_err(failed)?, sequence: 0 })
    }

    /// Asks for a change, and waits until it is made.
    fn change(&mut self, message: RouteNetlinkMessage, flags: u16, what: &str) -> Result<(), NetlinkError> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags, what).map(drop)
    }

    /// Asks for one object.
    fn query(
        &mut self,
        message: RouteNetlinkMessage,
        what: &str,
    ) -> Result<RouteNetlinkMessage, NetlinkError> {
        let (answers, _) = self.exchange(message, NLM_F_REQUEST, what)?;
        answers.into_iter().next().ok_or_else(|| Self::misread(what, "it is empty"))
    }

    /// Asks for a list, until one arrives that did not change on the way.
    fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        what: &str,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 0..DUMP_RETRIES {
            let (answers, interrupted) = self.exchange(message.clone(), NLM_F_REQUEST | NLM_F_DUMP, what)?;
            if !interrupted {
                return Ok(answers);
            }
        }
        Err(Self::misread(what, "the list kept changing while it was read"))
    }

    /// Sends one request and reads its answers; also whether a dump was interrupted.
    fn exchange(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: &str,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);

        let failed = |source| NetlinkError::Socket { request: what.to_owned(), source };
        retry_interrupted(|| self.socket.send(&bytes, 0)).map_err(failed)?;
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            let (datagram, _) = retry_interrupted(|| self.socket.recv_from_full()).map_err(failed)?;
            for bytes in messages(&datagram) {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes)
                    .map_err(|error| Self::misread(what, &error.to_string()))?;
                if answer.header.sequence_number != self.sequence {
                    continue; // the late answer to a request that failed half-way
                }
                interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
                match answer.payload {
                    NetlinkPayload::Error(error) => match error.raw_code() {
                        0 => return Ok((answers, interrupted)),
                        code => {
                            let errno = Errno::from_raw_os_error(code.saturating_abs());
                            return Err(NetlinkError::Refused { request: what.to_owned(), errno });
                        }
                    },
                    NetlinkPayload::Done(_) => return Ok((answers, interrupted)),
                    NetlinkPayload::InnerMessage(inner) => {
                        answers.push(inner);
                        if flags & (NLM_F_ACK | NLM_F_DUMP) == 0 {
                            return Ok((answers, interrupted));
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn misread(what: &str, why: &str) -> NetlinkError {
        NetlinkError::Answer { request: what.to_owned(), why: why.to_owned() }
    }
}

fn retry_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The netlink messages in a datagram, header included. Ends at the first one that is cut.
fn messages(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    const HEADER: usize = 16;
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        let message = rest.get(..len).filter(|m| m.len() >= HEADER)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}
