//! A connection to the dataplane that is made when it is first needed.

use super::parse::Names;
use crate::client::{Client, ClientError};
use crate::protocol::Namespace;
use std::cell::RefCell;
use std::path::Path;
use uvti_core::device::{LinkInfo, LinkSpec};
use uvti_dataplane::host::netlink::Netlink;
use uvti_dataplane::host::netns::Netns;

/// The dataplane of one namespace, and the host's names there.
pub(super) struct Session<'a> {
    control: Option<&'a Path>,
    namespace: Namespace,
    client: RefCell<Option<Client>>,
}

impl<'a> Session<'a> {
    pub(super) fn new(control: Option<&'a Path>, namespace: Option<&str>) -> Self {
        let namespace = namespace.map_or(Namespace::Own, |n| Namespace::Named(n.to_owned()));
        Self { control, namespace, client: RefCell::new(None) }
    }

    /// Asks something.
    pub(super) fn with<T>(
        &self,
        ask: impl FnOnce(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut slot = self.client.borrow_mut();
        if slot.is_none() {
            *slot = Some(Client::connect(self.control, &self.namespace)?);
        }
        match slot.as_mut() {
            Some(client) => ask(client),
            None => Err(ClientError::Closed),
        }
    }

    /// Devices of ours; none where no dataplane runs.
    pub(super) fn links(&self) -> Vec<LinkInfo> {
        self.with(Client::links).unwrap_or_default()
    }

    fn host_has(&self, name: &str) -> bool {
        let look = || Netlink::open().is_ok_and(|mut n| n.link_by_name(name).is_ok());
        match &self.namespace {
            Namespace::Own => look(),
            Namespace::Named(ns) => Netns::named(ns).and_then(|ns| ns.run(look)).unwrap_or(false),
        }
    }
}

impl Names for Session<'_> {
    fn device(&self, name: &str) -> bool {
        self.host_has(name)
    }

    fn link(&self, name: &str) -> Option<LinkSpec> {
        self.links().into_iter().map(|l| l.spec).find(|s| s.name == name)
    }
}
