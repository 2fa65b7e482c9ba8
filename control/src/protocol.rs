//! The control socket: what `uvti ip`, `uvti stat` and the rest ask a running `uvti run`, and its answers.
//!
//! One JSON message a line each way, at most [`MAX_MESSAGE`] bytes. The socket is `<netns inode>.sock` in
//! `/run/uvti`, or in `$XDG_RUNTIME_DIR/uvti` for a user who may not write there; beside it is a read-only one
//! ([`read_only_path`]), which answers the same questions without keys and refuses every change.

mod drops;

pub use crate::breakdown::{Breakdown, By, Line, Subject};
use crate::explain::Query;
pub(crate) use drops::to_hex;
pub use drops::{DropHistory, DropRecord, DropsPage, DropsQuery, HistoryRow, OuterLabel};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use uvti_core::device::LinkInfo;
use uvti_core::reason::{LinkStats, Mib};
use uvti_core::tables::{Op, Refusal};
use uvti_core::vti::explain::Explanation;
use uvti_core::vti::ledger::Ledger;
use uvti_core::xfrm::{Action, PolicyId, PolicyInfo, SaId, StateInfo, StateSpec};
pub use uvti_dataplane::engine::{Notice, Queue, Topics};
use uvti_dataplane::inject::{Fault, Injected};

/// Longest message, bytes.
pub const MAX_MESSAGE: usize = 16 << 20;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Request {
    /// One transaction: all of it or nothing. Answered by [`Response::Done`] or [`Response::Refused`].
    Apply {
        /// The changes, in order.
        ops: Vec<Op>,
    },
    /// All devices, by interface index.
    Links,
    /// All states, newest first.
    States,
    /// One state.
    State(SaId),
    /// All policies, newest first.
    Policies,
    /// One policy.
    Policy(PolicyId),
    /// Sizes of the databases.
    Counts,
    /// Default policies.
    Defaults,
    /// Counters and drops of all devices.
    Stat,
    /// Drops by something.
    StatBy(By),
    /// Everything that waits, and what found no room.
    Queues,
    /// The XFRM MIB.
    XfrmStat,
    /// Does every packet add up?
    Check,
    /// What would become of a packet, and why.
    Explain(Query),
    /// Look at the host's links and routes now: a command of the system's `ip` has just changed them.
    Refresh,
    /// Replace the configuration by that of a batch file.
    Reload {
        /// The file's contents.
        text: String,
        /// Its name, for error messages.
        file: String,
    },
    /// Inject a fault. Answered by [`Response::Injected`].
    Inject(Fault),
    /// The faults in force. Answered by [`Response::Injected`].
    Injected,
    /// Take back the fault of this number, or all. Answered by [`Response::Cleared`].
    InjectClear(Option<u32>),
    /// A sysctl that the dataplane goes by.
    Sysctl {
        /// Its name.
        name: String,
        /// Its new value, if it is to be set.
        value: Option<String>,
    },
    /// Recorded drops.
    Recorded(DropsQuery),
    /// How many packets each reason dropped, over the last minutes.
    DropHistory,
    /// Where the bytes of each path's MTU go.
    Mtu,
    /// `ip xfrm state allocspi`. Answered by [`Response::State`] or [`Response::Refused`].
    Allocate {
        /// The state to come.
        spec: Box<StateSpec>,
        /// Lowest and highest SPI.
        range: (u32, u32),
    },
    /// Listen. Answered by [`Response::Done`], then by any number of [`Response::Notices`], until the client closes.
    Monitor(Topics),
    /// Is this the read-only socket? Answered by [`Response::ReadOnly`].
    ReadOnly,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Response {
    /// Applied.
    Done,
    /// Nothing was applied.
    Refused(Rejected),
    /// To `Links`.
    Links(Vec<LinkInfo>),
    /// To `States`.
    States(Vec<StateInfo>),
    /// To `State`; `None` when there is no such state.
    State(Option<Box<StateInfo>>),
    /// To `Policies`.
    Policies(Vec<PolicyInfo>),
    /// To `Policy`; `None` when there is no such policy.
    Policy(Option<Box<PolicyInfo>>),
    /// To `Counts`.
    Counts(Counts),
    /// To `Defaults`: in, out, fwd.
    Defaults([Action; 3]),
    /// To `Stat`.
    Stat(Totals),
    /// To `StatBy`.
    StatBy(Breakdown),
    /// To `Queues`.
    Queues(Vec<Queue>),
    /// To `XfrmStat`.
    XfrmStat(Vec<(Mib, u64)>),
    /// To `Check`.
    Check(CheckReport),
    /// To `Explain`.
    Explained(Box<Explanation>),
    /// To `Reload`.
    Reloaded(Reloaded),
    /// To `Inject` and `Injected`.
    Injected(Vec<Injected>),
    /// To `InjectClear`: what was done, a line a fault.
    Cleared(Vec<String>),
    /// To `Sysctl`: the value now in force, or why there is none.
    Sysctl(Result<String, String>),
    /// To `Recorded`.
    Recorded(DropsPage),
    /// To `DropHistory`.
    DropHistory(DropHistory),
    /// To `Mtu`.
    Mtu(Vec<Ledger>),
    /// To `Monitor`.
    Notices {
        /// What happened, in its order.
        notices: Vec<Notice>,
        /// Notices that this listener was too slow for, since it was last told.
        lost: u64,
    },
    /// To `ReadOnly`.
    ReadOnly(bool),
    /// The request was not understood or could not be answered.
    Error(String),
}

/// Which change of a transaction was refused, and why. Nothing of the transaction was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{refusal}")]
pub struct Rejected {
    /// Position in the transaction, from 0.
    pub index: usize,
    /// Why.
    pub refusal: Refusal,
}

/// Sizes of the databases, as `ip -s xfrm state count` and `ip -s xfrm policy count` show them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// States.
    pub states: u32,
    /// Hash buckets of the state table (the kernel starts with 8).
    pub state_buckets: u32,
    /// Most buckets it may grow to.
    pub state_buckets_max: u32,
    /// Policies by direction: in, out, fwd.
    pub policies: [u32; 3],
}

/// Everything `uvti stat` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Devices, by interface index.
    pub devices: Vec<DeviceTotals>,
    /// The XFRM MIB in the kernel's order.
    pub xfrm: Vec<(Mib, u64)>,
}

/// Counters of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceTotals {
    /// Name.
    pub name: String,
    /// `vti`, `vti6` or `xfrm`.
    pub kind: String,
    /// As a kernel VTI would count.
    pub stats: LinkStats,
    /// Packets that left by a policy that applied before the device, and are not among those.
    #[serde(default)]
    pub tx_unmarked: u64,
    /// Packets dropped, by the name of the reason; reasons that did not occur are left out.
    pub drops: Vec<(String, u64)>,
}

/// Whether every packet that came in is accounted for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// One row for each device and worker.
    pub rows: Vec<CheckRow>,
}

/// One side of the identity `in + hop_in = out + consumed + drops + hop_out + held`, packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of the identity above")]
pub struct CheckRow {
    pub place: String,
    pub input: u64,
    pub hop_in: u64,
    pub output: u64,
    pub consumed: u64,
    pub drops: u64,
    pub hop_out: u64,
    pub held: i64,
}

impl CheckRow {
    /// Packets that came in and are nowhere (or, below zero, came from nowhere).
    pub fn missing(&self) -> i128 {
        let come = i128::from(self.input) + i128::from(self.hop_in);
        let gone = i128::from(self.output)
            + i128::from(self.consumed)
            + i128::from(self.drops)
            + i128::from(self.hop_out)
            + i128::from(self.held);
        come - gone
    }
}

/// What a reload did, or why it did nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Changes applied.
    pub changes: usize,
    /// Errors in the file as `file:line:column: text`; if there are any, nothing was applied.
    pub errors: Vec<String>,
}

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The socket failed, or timed out in the middle of a message.
    #[error("control socket: {0}")]
    Io(#[from] io::Error),
    /// The other side closed in the middle of a message.
    #[error("control socket: closed in the middle of a message")]
    Half,
    /// Longer than [`MAX_MESSAGE`].
    #[error("control socket: message longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// Not JSON, or no message we know.
    #[error("control socket: not a message of this version of uvti: {0}")]
    Garbage(#[from] serde_json::Error),
}

/// Writes one message and its line feed.
pub fn write_message<T: Serialize>(to: &mut impl Write, message: &T) -> Result<(), MessageError> {
    let mut line = serde_json::to_vec(message)?;
    if line.len() >= MAX_MESSAGE {
        return Err(MessageError::TooLong);
    }
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()?;
    Ok(())
}

/// Reads one message; `None` when the other side closed between messages.
pub fn read_message<T: DeserializeOwned>(from: &mut impl BufRead) -> Result<Option<T>, MessageError> {
    let mut line = Vec::new();
    from.take(MAX_MESSAGE as u64 + 1).read_until(b'\n', &mut line)?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        Some(_) if line.len() > MAX_MESSAGE => Err(MessageError::TooLong),
        Some(_) => Err(MessageError::Half),
    }
}

/// Which network namespace's dataplane is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// That of the calling thread.
    Own,
    /// A named one (`ip -n NAME`).
    Named(String),
}

impl Namespace {
    /// Its inode, which names the socket. Tries /run/netns and /var/run/netns.
    pub fn inode(&self) -> io::Result<u64> {
        let name = match self {
            Namespace::Own => return Ok(std::fs::metadata("/proc/thread-self/ns/net")?.ino()),
            Namespace::Named(name) => name,
        };
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(io::ErrorKind::NotFound.into());
        }
        std::fs::metadata(Path::new("/run/netns").join(name))
            .or_else(|_| std::fs::metadata(Path::new("/var/run/netns").join(name)))
            .map(|m| m.ino())
    }
}

/// Where the socket of a namespace may be, best first.
pub fn socket_paths(inode: u64, runtime_dir: Option<&Path>) -> Vec<PathBuf> {
    let file = format!("{inode}.sock");
    let mut paths = vec![Path::new("/run/uvti").join(&file)];
    if let Some(dir) = runtime_dir.filter(|d| d.is_absolute()) {
        paths.push(dir.join("uvti").join(file));
    }
    paths
}

/// The read-only socket beside the one at `path`: `x.ro.sock` for `x.sock`.
pub fn read_only_path(path: &Path) -> PathBuf {
    if path.extension().is_some_and(|extension| extension == "sock") {
        return path.with_extension("ro.sock");
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".ro");
    beside.into()
}

/// `$XDG_RUNTIME_DIR`.
pub fn runtime_dir() -> Option<PathBuf> {
    std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_survives_the_wire_and_half_a_message_is_told_from_the_end() {
        let mut wire = Vec::new();
        write_message(&mut wire, &Request::Apply { ops: vec![Op::PolicyFlush] }).unwrap();
        write_message(&mut wire, &Request::Links).unwrap();
        let mut from = &wire[..];
        assert_eq!(read_message(&mut from).unwrap(), Some(Request::Apply { ops: vec![Op::PolicyFlush] }));
        assert_eq!(read_message(&mut from).unwrap(), Some(Request::Links));
        assert_eq!(read_message::<Request>(&mut from).unwrap(), None);
        let half = &wire[..wire.len() - 1];
        let mut from = &half[half.len() - 4..];
        assert!(matches!(read_message::<Request>(&mut from), Err(MessageError::Half)));
    }

    #[test]
    fn an_endless_line_is_cut() {
        let endless = std::io::repeat(b'[');
        let mut from = std::io::BufReader::new(endless);
        assert!(matches!(read_message::<Request>(&mut from), Err(MessageError::TooLong)));
    }

    #[test]
    fn the_runtime_directory_is_the_second_choice() {
        let paths = socket_paths(4026531840, Some(Path::new("/run/user/7")));
        assert_eq!(paths[0], Path::new("/run/uvti/4026531840.sock"));
        assert_eq!(paths[1], Path::new("/run/user/7/uvti/4026531840.sock"));
        assert_eq!(socket_paths(1, Some(Path::new("relative"))).len(), 1);
        assert_eq!(read_only_path(&paths[0]), Path::new("/run/uvti/4026531840.ro.sock"));
        assert_eq!(read_only_path(Path::new("/tmp/a.b")), Path::new("/tmp/a.b.ro"));
    }

    #[test]
    fn a_namespace_name_cannot_leave_its_directory() {
        for name in ["", ".", "..", "../../proc/1/ns/net", "a/b"] {
            assert!(Namespace::Named(name.into()).inode().is_err(), "{name}");
        }
        assert!(Namespace::Own.inode().unwrap() > 0);
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_never_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            bytes.push(b'\n');
            let _ = read_message::<Request>(&mut &bytes[..]);
        }
    }
}
