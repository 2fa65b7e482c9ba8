//! Messages of sockets: the control socket's clients, and the kernel's netlink.

use super::{plant, text};
use uvti::protocol::{MessageError, Request, read_message, write_message};
use uvti_dataplane::host::netlink;

/// A client's bytes: requests that read the same when written again, and then the end or an error.
pub(super) fn control(data: &[u8]) {
    let mut from = data;
    loop {
        match read_message::<Request>(&mut from) {
            Ok(Some(request)) => {
                let mut wire = Vec::new();
                write_message(&mut wire, &request).expect("what was read can be written");
                let again = read_message::<Request>(&mut &wire[..]).expect("what was written can be read");
                assert_eq!(again.as_ref(), Some(&request));
                plant(matches!(&request, Request::Reload { file, .. } if file.is_empty()));
                if let Request::Apply { ops } = &request {
                    text::apply(ops);
                }
            }
            Ok(None) => return assert!(from.is_empty()),
            Err(MessageError::Half) => return assert!(!data.ends_with(b"\n")),
            Err(_) => return,
        }
    }
}

/// A datagram of rtnetlink, as an answer and as an event.
pub(super) fn netlink(data: &[u8]) {
    let seen = netlink::fuzzing::read(data);
    assert!(seen.messages <= data.len() / 16, "a message has a header");
    assert!(seen.links.len() + seen.addresses <= seen.messages);
    plant(seen.links.iter().any(|link| link.mtu == 1481));
}
