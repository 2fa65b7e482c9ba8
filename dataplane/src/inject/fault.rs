//! The faults by name.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use uvti_core::tables::Refusal;
use uvti_core::xfrm::Spi;

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// The SA is removed.
    DropSa {
        /// Its destination.
        dst: IpAddr,
        /// Its SPI.
        spi: Spi,
    },
    /// The SA is replaced by the same in transport mode.
    WrongMode {
        /// Its destination.
        dst: IpAddr,
        /// Its SPI.
        spi: Spi,
    },
    /// The SA has reached a hard limit.
    Expire {
        /// Its destination.
        dst: IpAddr,
        /// Its SPI.
        spi: Spi,
    },
    /// Received packets have a bit of their ICV flipped.
    Icv {
        /// How many.
        n: u64,
        /// Only those with this SPI.
        spi: Option<Spi>,
    },
    /// Received packets carry sequence number 1.
    OldSequence {
        /// How many.
        n: u64,
        /// Only those with this SPI.
        spi: Option<Spi>,
    },
    /// Received packets arrive twice.
    Duplicate {
        /// How many.
        n: u64,
        /// Only those with this SPI.
        spi: Option<Spi>,
    },
    /// Received packets are cut.
    Truncate {
        /// How many.
        n: u64,
        /// Only those with this SPI.
        spi: Option<Spi>,
        /// To so many bytes of ESP.
        bytes: usize,
    },
    /// The route to the tunnel's far end leads into the tunnel's own device.
    LoopRoute {
        /// Only this device's tunnel.
        dev: Option<String>,
    },
    /// There is no route to the tunnel's far end.
    NoRoute {
        /// Only this device's tunnel.
        dev: Option<String>,
    },
    /// The route to the tunnel's far end has a smaller MTU.
    SmallMtu {
        /// Bytes.
        mtu: u32,
        /// Only this device's tunnel.
        dev: Option<String>,
    },
    /// The socket answers that the queue below is full.
    FullQueue {
        /// To how many packets.
        n: u64,
    },
    /// The clock by which SAs age goes ahead.
    Clock {
        /// Seconds.
        seconds: u64,
    },
}

impl Fault {
    /// The device it is about, if about one.
    pub(super) fn device(&self) -> Option<&str> {
        match self {
            Fault::LoopRoute { dev } | Fault::NoRoute { dev } | Fault::SmallMtu { dev, .. } => dev.as_deref(),
            _ => None,
        }
    }
}

impl fmt::Display for Fault {
    /// As it is written on the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spi = |spi: &Option<Spi>| spi.map(|s| format!(" --spi {:#x}", s.0)).unwrap_or_default();
        let on = |dev: &Option<String>| dev.as_ref().map(|d| format!(" --dev {d}")).unwrap_or_default();
        match self {
            Fault::DropSa { dst, spi } => write!(f, "drop-sa {dst} {:#x}", spi.0),
            Fault::WrongMode { dst, spi } => write!(f, "wrong-mode {dst} {:#x}", spi.0),
            Fault::Expire { dst, spi } => write!(f, "expire {dst} {:#x}", spi.0),
            Fault::Icv { n, spi: s } => write!(f, "icv {n}{}", spi(s)),
            Fault::OldSequence { n, spi: s } => write!(f, "old-seq {n}{}", spi(s)),
            Fault::Duplicate { n, spi: s } => write!(f, "duplicate {n}{}", spi(s)),
            Fault::Truncate { n, spi: s, bytes } => write!(f, "truncate {n} --to {bytes}{}", spi(s)),
            Fault::LoopRoute { dev } => write!(f, "loop-route{}", on(dev)),
            Fault::NoRoute { dev } => write!(f, "no-route{}", on(dev)),
            Fault::SmallMtu { mtu, dev } => write!(f, "small-mtu {mtu}{}", on(dev)),
            Fault::FullQueue { n } => write!(f, "full-queue {n}"),
            Fault::Clock { seconds } => write!(f, "clock +{seconds}"),
        }
    }
}

/// A fault in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injected {
    /// By which it is cleared; never used again.
    pub number: u32,
    /// The fault.
    pub fault: Fault,
    /// What it is doing, in words.
    pub effect: String,
}

/// Why a fault was not injected or cleared.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// No such SA.
    #[error("there is no SA to {dst} with SPI {spi}: look at `uvti ip xfrm state`")]
    NoSa {
        /// Destination.
        dst: IpAddr,
        /// SPI.
        spi: Spi,
    },
    /// No such device, or none at all.
    #[error("there is no VTI{}: look at `uvti ip tunnel show`", .0.as_ref().map(|d| format!(" {d}")).unwrap_or_default())]
    NoDevice(Option<String>),
    /// The tables refused the change.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// No such fault is in force.
    #[error("no fault {0} is in force: look at `uvti inject list`")]
    NoSuchFault(u32),
}
