//! `recvmmsg` and `sendmmsg`: many datagrams a system call.

use super::{check, cmsg::Control};
use rustix::io::Errno;
use socket2::{SockAddr, SockAddrStorage};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use uvti_core::packet::Buf;

/// Datagrams a system call. kernel: include/linux/socket.h allows UIO_MAXIOV (1024); more than 64 gains nothing.
pub(crate) const BATCH: usize = 64;

/// The arrays that both calls take, allocated once.
///
/// The pointers in `headers` and `vectors` (one for each message, or more) are written by each call right before it enters the kernel and are
/// never followed by this process, so that stale ones do no harm.
struct Arrays {
    headers: Box<[libc::mmsghdr]>,
    vectors: Vec<libc::iovec>,
    controls: Box<[Control]>,
}

// SAFETY: the raw pointers inside are only meaningful during one call of `Receiver::receive` or `Sender::send`,
// which hold `&mut self`; between calls they are dead values that may live in any thread.
unsafe impl Send for Arrays {}

impl Arrays {
    fn new() -> Self {
        // SAFETY: `mmsghdr` is plain data for which all zeroes (null pointers, zero lengths) is a valid value.
        let header = unsafe { std::mem::zeroed::<libc::mmsghdr>() };
        let vector = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        Self {
            headers: vec![header; BATCH].into(),
            vectors: vec![vector; BATCH],
            controls: vec![Control::new(); BATCH].into(),
        }
    }
}

/// Receives batches of datagrams.
pub(crate) struct Receiver {
    arrays: Arrays,
    names: Vec<SockAddrStorage>,
}

/// What `recvmmsg` says about one datagram; its bytes are in the buffer of the same position.
pub(crate) struct Datagram<'a> {
    /// Bytes received, at most the buffer's space.
    pub(crate) len: usize,
    /// Whether the datagram was longer than the buffer.
    pub(crate) truncated: bool,
    /// Sender.
    pub(crate) source: Option<SocketAddr>,
    /// Control messages.
    pub(crate) control: &'a Control,
}

impl Receiver {
    pub(crate) fn new() -> Self {
        let names = std::iter::repeat_with(SockAddrStorage::zeroed).take(BATCH).collect();
        Self { arrays: Arrays::new(), names }
    }

    /// Receives up to [`BATCH`] datagrams without blocking, each into the space of one of `bufs`; how many came.
    /// `flags` are added to `MSG_DONTWAIT` (`MSG_ERRQUEUE`).
    pub(crate) fn receive(
        &mut self,
        fd: BorrowedFd<'_>,
        bufs: &mut [Buf],
        flags: libc::c_int,
    ) -> Result<usize, Errno> {
        let n = bufs.len().min(BATCH);
        let Arrays { headers, vectors, controls } = &mut self.arrays;
        for (i, buf) in bufs.iter_mut().take(n).enumerate() {
            let space = buf.space_mut();
            vectors[i] = libc::iovec { iov_base: space.as_mut_ptr().cast(), iov_len: space.len() };
            let control = controls[i].space_mut();
            let header = &mut headers[i].msg_hdr;
            header.msg_name = ptr::from_mut(&mut self.names[i]).cast();
            header.msg_namelen = self.names[i].size_of();
            header.msg_iov = &mut vectors[i];
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = control.len() as _;
            header.msg_flags = 0;
        }
        // SAFETY: the first `n` headers point to one iovec, one name and one control buffer each, all owned by
        // `self` or borrowed from `bufs` and mutable until this function returns; lengths are those of the slices.
        let received = check(unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                headers.as_mut_ptr(),
                n as libc::c_uint,
                libc::MSG_DONTWAIT | flags,
                ptr::null_mut(),
            )
        })? as usize;
        for i in 0..received {
            #[allow(clippy::unnecessary_cast, reason = "another type with musl")]
            controls[i].set_len(headers[i].msg_hdr.msg_controllen as usize);
        }
        Ok(received)
    }

    /// Number `i` of the batch received last.
    pub(crate) fn datagram(&self, i: usize) -> Datagram<'_> {
        let header = &self.arrays.headers[i];
        // SAFETY: the kernel wrote `msg_namelen` bytes of an address into this storage (none if the length is 0),
        // and a zeroed storage is valid too.
        let name = unsafe { SockAddr::new(ptr::read(&self.names[i]), header.msg_hdr.msg_namelen) };
        Datagram {
            len: header.msg_len as usize,
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            source: if header.msg_hdr.msg_namelen == 0 { None } else { name.as_socket() },
            control: &self.arrays.controls[i],
        }
    }
}

/// The bytes of a message, piece by piece.
pub(crate) struct Pieces<'v, 'p> {
    vectors: &'v mut Vec<libc::iovec>,
    _bytes: PhantomData<&'p [u8]>,
}

impl<'p> Pieces<'_, 'p> {
    pub(crate) fn push(&mut self, bytes: &'p [u8]) {
        self.vectors.push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
    }
}

/// Sends batches of datagrams.
pub(crate) struct Sender {
    arrays: Arrays,
    names: Vec<SockAddr>,
}

impl Sender {
    pub(crate) fn new() -> Self {
        Self { arrays: Arrays::new(), names: Vec::with_capacity(BATCH) }
    }

    /// Sends the first [`BATCH`] of `messages` without blocking. `prepare` writes a message's control messages and its
    /// pieces, and says where it goes. Returns how many were taken; an error is about the first one.
    pub(crate) fn send<'p, M: 'p>(
        &mut self,
        fd: BorrowedFd<'_>,
        messages: &'p [M],
        mut prepare: impl FnMut(&'p M, &mut Control, &mut Pieces<'_, 'p>) -> SocketAddr,
    ) -> Result<usize, Errno> {
        let n = messages.len().min(BATCH);
        let Arrays { headers, vectors, controls } = &mut self.arrays;
        self.names.clear();
        vectors.clear();
        for (i, (message, control)) in messages[..n].iter().zip(controls.iter_mut()).enumerate() {
            control.clear();
            let start = vectors.len();
            let to = prepare(message, control, &mut Pieces { vectors, _bytes: PhantomData });
            self.names.push(to.into());
            headers[i].msg_hdr.msg_iovlen = (vectors.len() - start) as _;
        }
        // Only now does none of them move any more.
        let mut rest = vectors.as_mut_slice();
        for (i, name) in self.names.iter().enumerate() {
            let header = &mut headers[i].msg_hdr;
            let control = controls[i].bytes();
            #[allow(clippy::unnecessary_cast, reason = "another type with musl")]
            let pieces = rest.split_off_mut(..header.msg_iovlen as usize).unwrap_or_default();
            header.msg_name = name.as_ptr().cast_mut().cast();
            header.msg_namelen = name.len();
            header.msg_iov = pieces.as_mut_ptr();
            header.msg_control =
                if control.is_empty() { ptr::null_mut() } else { control.as_ptr().cast_mut().cast() };
            header.msg_controllen = control.len() as _;
            header.msg_flags = 0;
        }
        // SAFETY: the first `n` headers point to their iovecs, one name and one control buffer each. The bytes are
        // borrowed for `'p`, the rest is owned by `self` and not moved before this function returns. `sendmmsg`
        // reads all of it and writes only `msg_len` of `headers`.
        let sent = check(unsafe {
            libc::sendmmsg(
                fd.as_raw_fd(),
                headers.as_mut_ptr(),
                n as libc::c_uint,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        })?;
        Ok(sent as usize)
    }
}
