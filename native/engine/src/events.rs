//! What the control plane has to hear: a queue, and a descriptor to wait on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

use crate::endpoint::Endpoint;
use crate::handshakes::{Handshakes, Lane, Message};
use crate::peer::PeerId;

/// Something that happened. Each is reported once until the control plane acts, so they stay few.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// There are packets to send and no keypair to send them with, or one that is due for renewal.
    NeedsHandshake(PeerId),
    /// A "first data packet" stamp was set while no check was armed.
    BecameActive(PeerId),
    /// The first packet under the responder's new keypair arrived.
    KeypairConfirmed {
        /// Whose.
        peer: PeerId,
        /// The receiver index of the keypair.
        local_index: u32,
        /// The receiver indices of those it pushed out.
        freed_indices: Vec<u32>,
    },
    /// The TUN device is gone, or nobody serves it any more.
    TunClosed(String),
    /// The kernel, or the path to a peer, cannot do what it promised; it is not asked again.
    OffloadOff {
        /// What was switched off.
        name: &'static str,
        /// Why.
        reason: String,
    },
}

/// A descriptor that is readable while a flag is set.
pub struct Wakeup(OwnedFd);

impl Wakeup {
    /// An eventfd with the flag not set.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(
            0,
            EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC,
        )?))
    }

    /// Set the flag. Only a counter at 2^64 - 2 could refuse, and it is readable then, too.
    pub fn set(&self) {
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Clear the flag; that it was not set is no error.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Wakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Events and handshake messages that wait for the control plane.
pub struct Inbox {
    waiting: Mutex<Waiting>,
    wakeup: Wakeup,
}

#[derive(Default)]
struct Waiting {
    events: Vec<Event>,
    handshakes: Handshakes,
    is_signalled: bool,
}

impl Inbox {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            waiting: Mutex::default(),
            wakeup: Wakeup::new()?,
        })
    }

    /// The descriptor to wait on.
    pub fn fd(&self) -> RawFd {
        self.wakeup.0.as_raw_fd()
    }

    /// Queue an event.
    pub fn emit(&self, event: Event) {
        let mut waiting = self.waiting.lock();
        waiting.events.push(event);
        self.signal(&mut waiting);
    }

    /// Queue a copy of a handshake message; return whether the oldest of its lane made room, and how
    /// many initiations and responses wait now.
    pub fn push(&self, lane: Lane, datagram: &[u8], source: &Endpoint) -> (bool, usize) {
        let mut waiting = self.waiting.lock();
        let was_full = waiting.handshakes.push(lane, datagram, source);
        self.signal(&mut waiting);
        (was_full, waiting.handshakes.load())
    }

    /// Take all events, oldest first.
    pub fn drain(&self) -> Vec<Event> {
        let mut waiting = self.waiting.lock();
        let events = std::mem::take(&mut waiting.events);
        self.settle(&mut waiting);
        events
    }

    /// Take at most `limit` handshake messages, oldest first.
    pub fn take_handshakes(&self, limit: usize) -> Vec<Message> {
        let mut waiting = self.waiting.lock();
        let taken = waiting.handshakes.take(limit);
        self.settle(&mut waiting);
        taken
    }

    /// How many handshake messages wait.
    pub fn queued_handshakes(&self) -> usize {
        self.waiting.lock().handshakes.len()
    }

    /// Forget all that waits.
    pub fn clear(&self) {
        let mut waiting = self.waiting.lock();
        waiting.events.clear();
        waiting.handshakes = Handshakes::default();
        self.settle(&mut waiting);
    }

    fn signal(&self, waiting: &mut Waiting) {
        if !waiting.is_signalled {
            waiting.is_signalled = true;
            self.wakeup.set();
        }
    }

    fn settle(&self, waiting: &mut Waiting) {
        if waiting.is_signalled && waiting.events.is_empty() && waiting.handshakes.is_empty() {
            waiting.is_signalled = false;
            self.wakeup.clear();
        }
    }
}
