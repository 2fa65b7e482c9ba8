//! The client's side of the control socket.

use crate::protocol::{
    Counts, MessageError, Namespace, Notice, Rejected, Request, Response, Topics, read_message,
    read_only_path, runtime_dir, socket_paths, write_message,
};
use std::io::{self, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use uvti_core::device::LinkInfo;
use uvti_core::tables::Op;
use uvti_core::xfrm::{Action, PolicyId, PolicyInfo, SaId, StateInfo, StateSpec};

/// Why a request could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no uvti runs in this network namespace (no socket {}): start `uvti run`", .0.display())]
    NotRunning(PathBuf),
    /// The socket is another user's.
    #[error("{}: permission denied: run as root, or as the user who started `uvti run`; the group uvti may look on", .0.display())]
    Denied(PathBuf),
    /// The named namespace does not exist; iproute2's text.
    #[error("Cannot open network namespace \"{name}\": {error}")]
    NoNamespace {
        /// As given.
        name: String,
        /// strerror(3).
        error: &'static str,
    },
    /// Connected, but the exchange failed.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// It closed instead of answering.
    #[error("uvti closed the control socket without an answer: look at its log")]
    Closed,
    /// It answered that it cannot.
    #[error("uvti: {0}")]
    Answer(String),
    /// What was wanted needs keys.
    #[error("the read-only control socket tells no keys: run as root, or as the user who started `uvti run`")]
    NoKeys,
    /// It answered something else than was asked.
    #[error("uvti answered something else than was asked: are client and dataplane of one version?")]
    Unexpected,
}

/// A connection to a running dataplane.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to `control` if given, otherwise to the socket of `namespace`; to the read-only one beside it where the
    /// other is not for this user.
    pub fn connect(control: Option<&Path>, namespace: &Namespace) -> Result<Self, ClientError> {
        let paths = match control {
            Some(path) => vec![path.to_owned()],
            None => {
                let inode = namespace.inode().map_err(|e| no_namespace(namespace, &e))?;
                socket_paths(inode, runtime_dir().as_deref())
            }
        };
        let mut denied = None;
        for path in &paths {
            match UnixStream::connect(path) {
                Ok(stream) => return Ok(Self { stream: BufReader::new(stream) }),
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    if let Ok(stream) = UnixStream::connect(read_only_path(path)) {
                        return Ok(Self { stream: BufReader::new(stream) });
                    }
                    denied = Some(path.clone());
                }
                Err(_) => {}
            }
        }
        Err(match denied {
            Some(path) => ClientError::Denied(path),
            None => ClientError::NotRunning(paths[0].clone()),
        })
    }

    /// Sends `request` and waits for the answer.
    pub fn ask(&mut self, request: &Request) -> Result<Response, ClientError> {
        write_message(self.stream.get_mut(), request)?;
        match read_message(&mut self.stream)? {
            Some(Response::Error(text)) => Err(ClientError::Answer(text)),
            Some(response) => Ok(response),
            None => Err(ClientError::Closed),
        }
    }

    /// Whether it is the read-only socket: what it tells has no keys.
    pub fn is_read_only(&mut self) -> Result<bool, ClientError> {
        match self.ask(&Request::ReadOnly)? {
            Response::ReadOnly(read_only) => Ok(read_only),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Applies a transaction; the inner result is the dataplane's verdict.
    pub fn apply(&mut self, ops: Vec<Op>) -> Result<Result<(), Rejected>, ClientError> {
        match self.ask(&Request::Apply { ops })? {
            Response::Done => Ok(Ok(())),
            Response::Refused(rejected) => Ok(Err(rejected)),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Devices.
    pub fn links(&mut self) -> Result<Vec<LinkInfo>, ClientError> {
        match self.ask(&Request::Links)? {
            Response::Links(links) => Ok(links),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// States, newest first.
    pub fn states(&mut self) -> Result<Vec<StateInfo>, ClientError> {
        match self.ask(&Request::States)? {
            Response::States(states) => Ok(states),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// One state.
    pub fn state(&mut self, id: SaId) -> Result<Option<StateInfo>, ClientError> {
        match self.ask(&Request::State(id))? {
            Response::State(state) => Ok(state.map(|s| *s)),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Reserves an SPI; the inner result is the dataplane's verdict.
    pub fn allocate(
        &mut self,
        spec: Box<StateSpec>,
        range: (u32, u32),
    ) -> Result<Result<StateInfo, Rejected>, ClientError> {
        match self.ask(&Request::Allocate { spec, range })? {
            Response::State(Some(state)) => Ok(Ok(*state)),
            Response::Refused(rejected) => Ok(Err(rejected)),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Listens: from now on [`Client::notices`] has what happens, and nothing else may be asked.
    pub fn monitor(&mut self, topics: Topics) -> Result<(), ClientError> {
        match self.ask(&Request::Monitor(topics))? {
            Response::Done => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Waits for what has happened, and how much of it is lost because this client was too slow.
    pub fn notices(&mut self) -> Result<(Vec<Notice>, u64), ClientError> {
        match read_message(&mut self.stream)? {
            Some(Response::Notices { notices, lost }) => Ok((notices, lost)),
            Some(_) => Err(ClientError::Unexpected),
            None => Err(ClientError::Closed),
        }
    }

    /// Policies, newest first.
    pub fn policies(&mut self) -> Result<Vec<PolicyInfo>, ClientError> {
        match self.ask(&Request::Policies)? {
            Response::Policies(policies) => Ok(policies),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// One policy.
    pub fn policy(&mut self, id: PolicyId) -> Result<Option<PolicyInfo>, ClientError> {
        match self.ask(&Request::Policy(id))? {
            Response::Policy(policy) => Ok(policy.map(|p| *p)),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Sizes of the databases.
    pub fn counts(&mut self) -> Result<Counts, ClientError> {
        match self.ask(&Request::Counts)? {
            Response::Counts(counts) => Ok(counts),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Default policies: in, out, fwd.
    pub fn defaults(&mut self) -> Result<[Action; 3], ClientError> {
        match self.ask(&Request::Defaults)? {
            Response::Defaults(actions) => Ok(actions),
            _ => Err(ClientError::Unexpected),
        }
    }
}

fn no_namespace(namespace: &Namespace, error: &io::Error) -> ClientError {
    let name = match namespace {
        Namespace::Own => "self".to_owned(),
        Namespace::Named(name) => name.clone(),
    };
    let error = match error.kind() {
        io::ErrorKind::PermissionDenied => "Permission denied",
        _ => "No such file or directory",
    };
    ClientError::NoNamespace { name, error }
}
