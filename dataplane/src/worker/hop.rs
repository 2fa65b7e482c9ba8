//! Bursts between workers: to the one that hands out the numbers of their SA.

use super::bell::Bell;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::Arc;
use uvti_core::device::DeviceId;
use uvti_core::packet::{Buf, Outer};

/// Bursts that may wait for one worker.
pub(crate) const CAPACITY: usize = 32;

/// One message: packets of a burst whose SAs live on another worker.
#[derive(Debug)]
pub(crate) struct Hop {
    /// Who gets the buffers back.
    pub(crate) from: u16,
    /// What they are.
    pub(crate) load: Load,
    /// The packets.
    pub(crate) bufs: Vec<Buf>,
}

/// What hopped.
#[derive(Debug)]
pub(crate) enum Load {
    /// Inner packets of a device.
    Tx(DeviceId),
    /// Inner packets of a device that waited for an SA.
    Held(DeviceId),
    /// ESP packets with their outer headers, in the order of the buffers.
    Rx(Vec<Outer>),
}

impl Load {
    /// The outer header of the `i`-th packet, if it came with one.
    pub(crate) fn outer(&self, i: usize) -> Option<&Outer> {
        match self {
            Load::Tx(_) | Load::Held(_) => None,
            Load::Rx(outers) => outers.get(i),
        }
    }
}

/// How to reach one worker.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) hops: Sender<Hop>,
    pub(crate) returns: Sender<Vec<Buf>>,
    pub(crate) bell: Arc<Bell>,
}

/// One worker's side of its door.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) hops: Receiver<Hop>,
    pub(crate) returns: Receiver<Vec<Buf>>,
}

impl Inbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.hops.is_empty() && self.returns.is_empty()
    }

    pub(crate) fn next_hop(&self) -> Option<Hop> {
        self.hops.try_recv().ok()
    }
}

/// A door for each of `workers` workers. Buffers on their way back are as many as messages can be out.
pub(crate) fn doors(bells: &[Arc<Bell>]) -> (Vec<Door>, Vec<Inbox>) {
    let out = (CAPACITY + 1) * bells.len();
    bells
        .iter()
        .map(|bell| {
            let (hops, hops_in) = bounded(CAPACITY);
            let (returns, returns_in) = bounded(out);
            (Door { hops, returns, bell: bell.clone() }, Inbox { hops: hops_in, returns: returns_in })
        })
        .unzip()
}
