//! A client that listens: notices go out as they come, until it closes.

use super::access::Access;
use crate::protocol::{MessageError, Response, write_message};
use crossbeam_channel::{Sender, bounded, select};
use std::io::{BufRead, BufReader};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;
use uvti_dataplane::engine::Monitor;

/// Most notices of one message.
const BATCH: usize = 64;

/// Writes what `monitor` is told. A client may read as slowly as it likes: what finds no room in its backlog is lost,
/// and it is told how much that was.
pub(super) fn run(
    monitor: &Monitor,
    access: Access,
    reader: BufReader<UnixStream>,
    mut writer: UnixStream,
) -> Result<(), MessageError> {
    writer.set_write_timeout(None)?;
    reader.get_ref().set_read_timeout(None)?;
    write_message(&mut writer, &Response::Done)?;
    let (gone, closed) = bounded(0);
    thread::scope(|scope| {
        scope.spawn(move || wait_for_end(reader, gone));
        let done = loop {
            let first = select! {
                recv(monitor.notices) -> notice => notice,
                recv(closed) -> _ => break Ok(()),
            };
            let Ok(first) = first else { break Ok(()) };
            let more = monitor.notices.try_iter().take(BATCH - 1);
            let notices = std::iter::once(first).chain(more).collect();
            let mut message = Response::Notices { notices, lost: monitor.take_lost() };
            access.cut(&mut message);
            if let Err(error) = write_message(&mut writer, &message) {
                break Err(error);
            }
        };
        // So that the other thread ends, too.
        let _ = writer.shutdown(Shutdown::Both);
        done
    })
}

/// Reads until the client closes; whatever it says is not listened to. Then drops `gone`.
fn wait_for_end(mut reader: BufReader<UnixStream>, gone: Sender<()>) {
    while let Ok(bytes) = reader.fill_buf() {
        let read = bytes.len();
        if read == 0 {
            break;
        }
        reader.consume(read);
    }
    drop(gone);
}
