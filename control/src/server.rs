//! The dataplane's side of the control sockets: the one that can do everything, and the read-only one beside it.

mod access;
mod stream;

use access::Access;

use crate::explain::Query;
use crate::protocol::{
    Breakdown, By, CheckReport, Counts, DropHistory, DropsPage, DropsQuery, MessageError, Queue, Rejected,
    Reloaded, Request, Response, Topics, Totals, read_message, read_only_path, runtime_dir, socket_paths,
    write_message,
};
use crate::stack;
use rustix::process::geteuid;
use std::fs::DirBuilder;
use std::io::{self, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use uvti_core::device::LinkInfo;
use uvti_core::reason::Mib;
use uvti_core::tables::{Op, Refusal};
use uvti_core::vti::explain::Explanation;
use uvti_core::vti::ledger::Ledger;
use uvti_core::xfrm::{Action, PolicyId, PolicyInfo, SaId, StateInfo, StateSpec};
use uvti_dataplane::engine::Monitor;
use uvti_dataplane::inject::{InjectError, Injector};

/// Most clients served at once; one more is told to come back.
pub const MAX_CLIENTS: usize = 64;

/// How long a client may take to finish a message it has begun, or to take an answer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What the server asks of the dataplane. Calls come from many threads.
pub trait Dataplane: Send + Sync {
    /// Applies all of `ops` or nothing.
    fn apply(&self, ops: &[Op]) -> Result<(), Rejected>;
    /// Devices, by interface index.
    fn links(&self) -> Vec<LinkInfo>;
    /// States, newest first.
    fn states(&self) -> Vec<StateInfo>;
    /// The state that `id` names, its mark looked up as the kernel does.
    fn state(&self, id: SaId) -> Option<StateInfo>;
    /// Policies, newest first.
    fn policies(&self) -> Vec<PolicyInfo>;
    /// The policy that `id` names.
    fn policy(&self, id: &PolicyId) -> Option<PolicyInfo>;
    /// Sizes of the databases.
    fn counts(&self) -> Counts;
    /// Default policies: in, out, fwd.
    fn policy_defaults(&self) -> [Action; 3];
    /// Counters and drops.
    fn totals(&self) -> Totals;
    /// Drops by something.
    fn drops(&self, by: By) -> Result<Breakdown, String>;
    /// Every queue.
    fn queues(&self) -> Result<Vec<Queue>, String>;
    /// The XFRM MIB in the kernel's order.
    fn xfrm_stat(&self) -> Vec<(Mib, u64)>;
    /// Does every packet add up?
    fn check(&self) -> CheckReport;
    /// What would become of a packet, or why that cannot be said.
    fn explain(&self, query: &Query) -> Result<Explanation, String>;
    /// Looks at the host's links and routes now, and at what routers have reported.
    fn refresh(&self);
    /// Replaces the configuration by that of a batch file.
    fn reload(&self, text: &str, file: &str) -> Reloaded;
    /// What injects faults, where it is allowed.
    fn injector(&self) -> Option<&Injector> {
        None
    }
    /// Reads a sysctl, or sets it.
    fn sysctl(&self, name: &str, value: Option<&str>) -> Result<String, String>;
    /// Recorded drops; waits for a moment if it is asked to and there are none.
    fn recorded(&self, query: &DropsQuery) -> DropsPage;
    /// How many packets each reason dropped, over the last minutes.
    fn drop_history(&self) -> DropHistory;
    /// Where the bytes of each path's MTU go.
    fn ledgers(&self) -> Vec<Ledger>;
    /// Reserves an SPI of a range for a state to come.
    fn allocate(&self, spec: &StateSpec, range: (u32, u32)) -> Result<StateInfo, Refusal>;
    /// Listens to what happens.
    fn monitor(&self, topics: Topics) -> Monitor;
}

/// Why the socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another uvti answers on it.
    #[error("this network namespace is served by a running uvti (socket {}): stop it first", .0.display())]
    Served(PathBuf),
    /// Something that is not a socket is in the way.
    #[error("{} exists and is not a socket: move it away", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen on {}: {error}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A bound control socket; its file is removed when this is dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    access: Access,
}

impl Server {
    /// Binds the socket of the network namespace with this inode: in /run/uvti, else in the runtime directory.
    pub fn bind_for(inode: u64) -> Result<Self, BindError> {
        let mut first = None;
        for path in socket_paths(inode, runtime_dir().as_deref()) {
            match Self::bind(&path) {
                Err(e @ BindError::Io { .. }) => first = first.or(Some(e)),
                done => return done,
            }
        }
        Err(first.expect("there is always the path in /run/uvti"))
    }

    /// Binds `path` for its owner alone. A socket that nobody answers on any more is replaced.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        Self::bind_as(path, Access::Full)
    }

    /// Binds the read-only socket beside this one, for the group `uvti` if the host has it, else for the owner alone.
    pub fn read_only(&self) -> Result<Self, BindError> {
        Self::bind_as(&read_only_path(&self.path), Access::ReadOnly)
    }

    fn bind_as(path: &Path, access: Access) -> Result<Self, BindError> {
        let failed = |error| BindError::Io { path: path.to_owned(), error };
        if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty() && !d.exists()) {
            // Others pass through to the read-only socket; what else is there they cannot list.
            DirBuilder::new().mode(0o711).recursive(true).create(dir).map_err(failed)?;
        }
        clear_stale(path)?;
        // Bound under a name of our own, closed to others, then moved into place: there is no moment at which
        // somebody else could connect, and none at which two servers both believe the name is theirs.
        let mut private = path.as_os_str().to_owned();
        private.push(format!(".{}", std::process::id()));
        let private = PathBuf::from(private);
        let _ = std::fs::remove_file(&private);
        let listener = UnixListener::bind(&private).map_err(failed)?;
        let placed = access.open_to(&private).and_then(|()| std::fs::hard_link(&private, path));
        let _ = std::fs::remove_file(&private);
        match placed {
            Ok(()) => Ok(Self { listener, path: path.to_owned(), access }),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(BindError::Served(path.to_owned())),
            Err(e) => Err(failed(e)),
        }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves clients until `stop` is set and [`wake`] is called.
    pub fn run(&self, dataplane: &Arc<dyn Dataplane>, stop: &AtomicBool) {
        let clients = Arc::new(AtomicUsize::new(0));
        for stream in self.listener.incoming() {
            if stop.load(Ordering::Acquire) {
                return;
            }
            match stream {
                Ok(stream) => admit(stream, self.access, dataplane, &clients),
                // Out of descriptors or the like: let the present clients finish.
                Err(e) => {
                    tracing::warn!("control socket: accept: {e}");
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Wakes a server that waits for clients, so that it sees its `stop` flag.
pub fn wake(path: &Path) {
    let _ = UnixStream::connect(path);
}

fn clear_stale(path: &Path) -> Result<(), BindError> {
    use std::os::unix::fs::FileTypeExt;
    let failed = |error| BindError::Io { path: path.to_owned(), error };
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
        Ok(meta) if !meta.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(BindError::Served(path.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(failed),
        Err(e) => Err(failed(e)),
    }
}

fn admit(stream: UnixStream, access: Access, dataplane: &Arc<dyn Dataplane>, clients: &Arc<AtomicUsize>) {
    let refuse = |mut stream: UnixStream, text: &str| {
        let _ = stream.set_write_timeout(Some(PATIENCE));
        let _ = write_message(&mut stream, &Response::Error(text.to_owned()));
    };
    // Whom the read-only socket is for its mode says.
    if access == Access::Full && !same_user(&stream) {
        return refuse(stream, "only root and the user who started `uvti run` may use the control socket");
    }
    if clients.fetch_add(1, Ordering::AcqRel) >= MAX_CLIENTS {
        clients.fetch_sub(1, Ordering::AcqRel);
        return refuse(stream, "too many clients: try again");
    }
    let (dataplane, seat) = (Arc::clone(dataplane), Seat(Arc::clone(clients)));
    let spawned = std::thread::Builder::new().name("uvti-control".into()).spawn(move || {
        let _seat = seat;
        if let Err(e) = serve(stream, access, &*dataplane) {
            tracing::debug!("{e}");
        }
    });
    if let Err(e) = spawned {
        tracing::warn!("control socket: no thread for a client: {e}");
    }
}

/// One client's place; free again when dropped, also when its thread could not start.
struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn same_user(stream: &UnixStream) -> bool {
    match rustix::net::sockopt::socket_peercred(stream) {
        Ok(peer) => peer.uid.is_root() || peer.uid == geteuid(),
        Err(_) => false,
    }
}

/// Answers one client until it closes. A message that is not understood is answered with an error and ends it,
/// for nothing says where the next one would start.
fn serve(stream: UnixStream, access: Access, dataplane: &dyn Dataplane) -> Result<(), MessageError> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        // Between messages a client may be idle as long as it likes; inside one it may not.
        reader.get_ref().set_read_timeout(None)?;
        if io::BufRead::fill_buf(&mut reader)?.is_empty() {
            return Ok(());
        }
        reader.get_ref().set_read_timeout(Some(PATIENCE))?;
        match stack::erased(|| serve_one(&mut reader, &mut writer, access, dataplane))? {
            Next::Request => {}
            Next::Listen(topics) => return stream::run(&dataplane.monitor(topics), access, reader, writer),
            Next::End => return Ok(()),
        }
    }
}

/// What follows a request.
enum Next {
    Request,
    Listen(Topics),
    End,
}

fn serve_one(
    reader: &mut BufReader<UnixStream>,
    writer: &mut UnixStream,
    access: Access,
    dataplane: &dyn Dataplane,
) -> Result<Next, MessageError> {
    let request = match read_message(reader) {
        Ok(Some(request)) => request,
        Ok(None) => return Ok(Next::End),
        Err(e) => {
            write_message(writer, &Response::Error(e.to_string()))?;
            return Err(e);
        }
    };
    let mut response = match (access.refusal(&request), request) {
        (Some(text), _) => Response::Error(text),
        (None, Request::Monitor(topics)) => return Ok(Next::Listen(topics)),
        (None, Request::ReadOnly) => Response::ReadOnly(access == Access::ReadOnly),
        (None, request) => answer(dataplane, request),
    };
    access.cut(&mut response);
    answer_to(writer, &response)?;
    Ok(Next::Request)
}

fn answer_to(writer: &mut UnixStream, response: &Response) -> Result<(), MessageError> {
    match write_message(writer, response) {
        Err(MessageError::TooLong) => {
            let text = "the answer is longer than a message may be: ask for less".to_owned();
            write_message(writer, &Response::Error(text))
        }
        done => done,
    }
}

fn answer(dataplane: &dyn Dataplane, request: Request) -> Response {
    match request {
        Request::Apply { ops } => match dataplane.apply(&ops) {
            Ok(()) => Response::Done,
            Err(rejected) => Response::Refused(rejected),
        },
        Request::Links => Response::Links(dataplane.links()),
        Request::States => Response::States(dataplane.states()),
        Request::State(id) => Response::State(dataplane.state(id).map(Box::new)),
        Request::Policies => Response::Policies(dataplane.policies()),
        Request::Policy(id) => Response::Policy(dataplane.policy(&id).map(Box::new)),
        Request::Counts => Response::Counts(dataplane.counts()),
        Request::Defaults => Response::Defaults(dataplane.policy_defaults()),
        Request::Stat => Response::Stat(dataplane.totals()),
        Request::StatBy(by) => dataplane.drops(by).map_or_else(Response::Error, Response::StatBy),
        Request::Queues => dataplane.queues().map_or_else(Response::Error, Response::Queues),
        Request::XfrmStat => Response::XfrmStat(dataplane.xfrm_stat()),
        Request::Refresh => {
            dataplane.refresh();
            Response::Done
        }
        Request::Explain(query) => match dataplane.explain(&query) {
            Ok(explanation) => Response::Explained(Box::new(explanation)),
            Err(text) => Response::Error(text),
        },
        Request::Check => Response::Check(dataplane.check()),
        Request::Reload { text, file } => Response::Reloaded(dataplane.reload(&text, &file)),
        Request::Inject(_) | Request::Injected | Request::InjectClear(_) => match dataplane.injector() {
            Some(injector) => faults(injector, request).unwrap_or_else(|e| Response::Error(e.to_string())),
            None => Response::Error(NO_FAULTS.to_owned()),
        },
        Request::Sysctl { name, value } => Response::Sysctl(dataplane.sysctl(&name, value.as_deref())),
        Request::Recorded(query) => Response::Recorded(dataplane.recorded(&query)),
        Request::DropHistory => Response::DropHistory(dataplane.drop_history()),
        Request::Mtu => Response::Mtu(dataplane.ledgers()),
        Request::Allocate { spec, range } => match dataplane.allocate(&spec, range) {
            Ok(state) => Response::State(Some(Box::new(state))),
            Err(refusal) => Response::Refused(Rejected { index: 0, refusal }),
        },
        Request::Monitor(_) | Request::ReadOnly => {
            Response::Error("to listen takes a connection of its own".to_owned())
        }
    }
}

const NO_FAULTS: &str =
    "this dataplane takes no faults: `uvti inject` needs one that was started by `uvti run --allow-inject`";

fn faults(injector: &Injector, request: Request) -> Result<Response, InjectError> {
    Ok(match request {
        Request::Inject(fault) => Response::Injected(vec![injector.inject(fault)?]),
        Request::InjectClear(number) => Response::Cleared(injector.clear(number)?),
        _ => Response::Injected(injector.list()),
    })
}
