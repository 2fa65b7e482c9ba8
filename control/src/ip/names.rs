//! The names that a command may mention: devices of the system, links of ours.

use super::execute::Session;
use super::parse::{Names, Options};
use crate::client::ClientError;
use std::cell::{OnceCell, RefCell};
use uvti_core::device::{LinkInfo, LinkSpec};

/// Looks names up in the running dataplane and in the system, when they are first asked for.
pub(super) struct Known<'s, 'a> {
    session: RefCell<&'s mut Session<'a>>,
    options: &'a Options,
    links: OnceCell<Vec<LinkInfo>>,
    failed: RefCell<Option<ClientError>>,
}

impl<'s, 'a> Known<'s, 'a> {
    pub(super) fn new(session: &'s mut Session<'a>) -> Self {
        let options = session.options;
        Self { session: RefCell::new(session), options, links: OnceCell::new(), failed: RefCell::new(None) }
    }

    pub(super) fn options(&self) -> &'a Options {
        self.options
    }

    /// Why a look-up failed, if one did.
    pub(super) fn failed(&self) -> Option<ClientError> {
        self.failed.take()
    }

    fn links(&self) -> &[LinkInfo] {
        self.links.get_or_init(|| {
            links(&mut self.session.borrow_mut()).unwrap_or_else(|error| {
                self.failed.replace(Some(error));
                Vec::new()
            })
        })
    }
}

/// Our links; none where no dataplane runs, or where the namespace is missing, of which the system's `ip` tells.
pub(super) fn links(session: &mut Session<'_>) -> Result<Vec<LinkInfo>, ClientError> {
    match session.connect() {
        Ok(client) => client.links(),
        Err(ClientError::NotRunning(_) | ClientError::NoNamespace { .. }) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

impl Names for Known<'_, '_> {
    fn device(&self, name: &str) -> bool {
        if self.links().iter().any(|l| l.spec.name == name) {
            return true;
        }
        let session = self.session.borrow();
        match &self.options.namespace {
            None => session.system.device(name),
            Some(_) => {
                let words = ["link", "show", "dev", name].map(str::to_owned);
                session.system.capture(&session.with_options(&words)).is_some_and(|o| o.code == 0)
            }
        }
    }

    fn link(&self, name: &str) -> Option<LinkSpec> {
        self.links().iter().find(|l| l.spec.name == name).map(|l| l.spec.clone())
    }
}
