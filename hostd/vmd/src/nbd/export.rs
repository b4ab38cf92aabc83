//! One disk as clients see it.
//!
//! Owns a volume, what clients are told about it, and its counters. It must not know connections. Flow: made
//! when hostd attaches a disk, shared by the threads of its connections, taken apart at detach.

use super::budget::Budget;
use super::fault::FaultLog;
use super::handshake::Offer;
use super::proto::transmission::Shape;
use cryptfs::volume::{Volume, VolumeError};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// A disk that is served.
pub struct Export {
    name: String,
    description: String,
    shape: Shape,
    volume: Volume,
    payloads: Payloads,
    budget: Budget,
    stopping: AtomicBool,
    refusing: AtomicBool,
    /// What has gone on since the attach.
    pub counters: Counters,
    /// Where errors of the volume are logged and squeezed into codes.
    pub faults: FaultLog,
}

/// What has gone on since the attach.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections now, in whatever phase.
    pub clients: AtomicU32,
    /// Bytes read by clients.
    pub bytes_read: AtomicU64,
    /// Bytes written by clients.
    pub bytes_written: AtomicU64,
}

impl Export {
    /// An export of `volume` under the name `name`.
    pub fn new(name: &str, vm: &str, volume: Volume) -> Self {
        let shape = Shape {
            size: volume.size(),
            read_only: volume.read_only(),
            fast_zero: volume.zeroes_fast(),
        };
        Self {
            name: name.to_owned(),
            description: format!("disk {name} of VM {vm}"),
            shape,
            volume,
            payloads: Payloads::default(),
            budget: Budget::default(),
            stopping: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            counters: Counters::default(),
            faults: FaultLog::new(vm, name),
        }
    }

    /// The same, with threads that look for requests within `budget`.
    #[must_use]
    pub fn within(self, budget: Budget) -> Self {
        Self { budget, ..self }
    }

    /// Name of the export.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Size and access.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The payloads of long requests that are being worked on.
    pub(super) fn payloads(&self) -> &Payloads {
        &self.payloads
    }

    /// Bytes of long payloads in the hands of threads, and of buffers that they keep for the next one.
    pub fn payload_bytes(&self) -> u64 {
        self.payloads.0.load(Ordering::Relaxed)
    }

    /// Where a thread asks before it looks for requests instead of sleeping.
    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The volume.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// What the handshake tells.
    pub fn offer(&self) -> Offer<'_> {
        Offer {
            name: &self.name,
            description: &self.description,
            shape: self.shape,
            stopping: self.stopping.load(Ordering::Relaxed),
        }
    }

    /// From now on the handshake turns clients away.
    pub fn begin_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// From now on requests are answered with ESHUTDOWN; those in the storage finish.
    pub fn begin_refusing(&self) {
        self.refusing.store(true, Ordering::Relaxed);
    }

    /// Whether requests are still carried out.
    pub fn refuses(&self) -> bool {
        self.refusing.load(Ordering::Relaxed)
    }

    /// Ends the export: the last flush, after which the volume and its keys are gone.
    ///
    /// # Errors
    /// When the flush fails; what clients wrote since their last flush may be lost then.
    pub fn close(self) -> Result<(), VolumeError> {
        if self.shape.read_only { Ok(()) } else { self.volume.flush() }
    }
}

/// Bytes of the payloads of one export that several threads of a connection may have in their hands, two of the largest
/// allowed: what is beyond waits its turn. An answer counts until the client has taken it, and so do the buffers that
/// threads keep for what comes next. Beside these a connection has what is at its desk (one payload that comes in, one
/// answer), and each thread buffers for small requests.
const MAX_PAYLOADS: u64 = 64 * 1024 * 1024;

/// Counts such bytes, so that no client makes the host's memory its own.
#[derive(Debug, Default)]
pub(super) struct Payloads(AtomicU64);

/// Bytes in a thread's hands.
#[derive(Debug)]
pub(super) struct InHand<'a> {
    payloads: &'a Payloads,
    bytes: u64,
}

impl Payloads {
    /// Takes `bytes` into a thread's hands, unless that is too much.
    pub(super) fn take(&self, bytes: u64) -> Option<InHand<'_>> {
        let taken = self.0.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let in_hand = InHand { payloads: self, bytes };
        (taken <= MAX_PAYLOADS).then_some(in_hand)
    }
}

impl InHand<'_> {
    /// How many.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.payloads.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
