//! A keypair at work, and the three places a peer has for them.
//!
//! ```text
//!                 install (initiator)                    install (responder)
//!     previous <- an unconfirmed next, or the current    erased
//!     current  <- the new one                            as it was
//!     next     <- nothing                                the new one
//!
//!     confirm: previous <- current <- next, when the first packet under `next` was authenticated.
//! ```
//!
//! Whatever falls out is forgotten at once: its receiver index is returned so that it can be
//! reused. The limits are those of the paper, section 6.1.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::aead::Cipher;
use crate::replay::ReplayWindow;

const SECOND_NS: u64 = 1_000_000_000;

/// How many messages may be sent before a keypair is renewed.
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// The first counter that is neither sent nor accepted.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// The age at which the initiator renews a keypair when it sends.
pub const REKEY_AFTER_TIME_NS: u64 = 120 * SECOND_NS;
/// The age from which a keypair neither sends nor opens.
pub const REJECT_AFTER_TIME_NS: u64 = 180 * SECOND_NS;
/// The age at which the initiator renews a keypair when it receives: KEEPALIVE_TIMEOUT and
/// REKEY_TIMEOUT before it is rejected.
pub const REKEY_ON_RECEIVE_AFTER_TIME_NS: u64 = REJECT_AFTER_TIME_NS - (10 + 5) * SECOND_NS;

/// What the control plane derived in a handshake.
pub struct Keypair {
    /// The receiver index in what we get.
    pub local_index: u32,
    /// The receiver index in what we send.
    pub remote_index: u32,
    /// Seals what we send.
    pub sealer: Cipher,
    /// Opens what we get.
    pub opener: Cipher,
    /// Whether we sent the initiation.
    pub is_initiator: bool,
    /// Boot nanoseconds.
    pub created_ns: u64,
}

/// A keypair, the next counter to send with, and the counters received. Shared by the threads.
pub struct Session {
    /// What it was made of.
    pub keypair: Keypair,
    /// Which counters were received.
    pub replay: Mutex<ReplayWindow>,
    /// Whether a received packet has already asked for the renewal of this keypair.
    pub rekey_reported: AtomicBool,
    send_counter: AtomicU64,
    is_expired: AtomicBool,
}

impl Session {
    /// A session that has sent and received nothing.
    pub fn new(keypair: Keypair) -> Self {
        Self {
            keypair,
            replay: Mutex::new(ReplayWindow::new()),
            rekey_reported: AtomicBool::new(false),
            send_counter: AtomicU64::new(0),
            is_expired: AtomicBool::new(false),
        }
    }

    /// Take at most `count` counters to send with: none when the keypair may not send any more.
    pub fn reserve(&self, count: usize, now_ns: u64) -> Range<u64> {
        if self.is_expired.load(Relaxed)
            || now_ns >= self.keypair.created_ns.saturating_add(REJECT_AFTER_TIME_NS)
        {
            return 0..0;
        }
        let mut start = self.send_counter.load(Relaxed);
        loop {
            let end = start
                .saturating_add(count as u64)
                .min(REJECT_AFTER_MESSAGES);
            if start >= end {
                return 0..0;
            }
            match self
                .send_counter
                .compare_exchange_weak(start, end, Relaxed, Relaxed)
            {
                Ok(_) => return start..end,
                Err(moved) => start = moved,
            }
        }
    }

    /// Whether `reserve` would give a counter.
    pub fn can_send(&self, now_ns: u64) -> bool {
        !self.is_expired.load(Relaxed)
            && now_ns < self.keypair.created_ns.saturating_add(REJECT_AFTER_TIME_NS)
            && self.send_counter.load(Relaxed) < REJECT_AFTER_MESSAGES
    }

    /// Whether the counters just reserved ask for a new keypair: by time that is the initiator's
    /// task, by their number it is everybody's.
    pub fn is_due_for_renewal(&self, reserved: &Range<u64>, now_ns: u64) -> bool {
        reserved.end > REKEY_AFTER_MESSAGES
            || self.keypair.is_initiator
                && now_ns >= self.keypair.created_ns.saturating_add(REKEY_AFTER_TIME_NS)
    }

    /// Whether it may still open this counter.
    pub fn may_open(&self, counter: u64, now_ns: u64) -> bool {
        now_ns < self.keypair.created_ns.saturating_add(REJECT_AFTER_TIME_NS)
            && counter < REJECT_AFTER_MESSAGES
    }

    /// Whether receiving now asks for a new keypair; true once.
    pub fn asks_for_renewal_on_receive(&self, now_ns: u64) -> bool {
        self.keypair.is_initiator
            && now_ns
                >= self
                    .keypair
                    .created_ns
                    .saturating_add(REKEY_ON_RECEIVE_AFTER_TIME_NS)
            && !self.rekey_reported.swap(true, Relaxed)
    }

    /// Never send under it again.
    pub fn expire(&self) {
        self.is_expired.store(true, Relaxed);
    }

    /// Go on sending with this counter: for tests of the limits.
    pub fn set_send_counter(&self, counter: u64) {
        self.send_counter.store(counter, Relaxed);
    }
}

/// The previous, current and next session of one peer.
#[derive(Default)]
pub struct Keypairs {
    previous: Option<Arc<Session>>,
    current: Option<Arc<Session>>,
    next: Option<Arc<Session>>,
}

impl Keypairs {
    /// What to send under.
    pub fn current(&self) -> Option<&Arc<Session>> {
        self.current.as_ref()
    }

    /// Whether a packet under this session confirms it.
    pub fn is_next(&self, session: &Arc<Session>) -> bool {
        self.next
            .as_ref()
            .is_some_and(|next| Arc::ptr_eq(next, session))
    }

    /// Add a session; return the receiver indices of those it pushed out.
    pub fn install(&mut self, session: Arc<Session>) -> Vec<u32> {
        let pushed_out;
        if !session.keypair.is_initiator {
            pushed_out = [self.next.replace(session), self.previous.take()];
        } else if let Some(next) = self.next.take() {
            // The other side completed a handshake since `current` was made: it uses `next`.
            pushed_out = [self.current.replace(session), self.previous.replace(next)];
        } else {
            let former = self.current.replace(session);
            pushed_out = [std::mem::replace(&mut self.previous, former), None];
        }
        indices(pushed_out)
    }

    /// Make `next` the current one; return the receiver indices of those it pushed out.
    pub fn confirm(&mut self) -> Vec<u32> {
        let former = std::mem::replace(&mut self.current, self.next.take());
        indices([std::mem::replace(&mut self.previous, former)])
    }

    /// Never send under the sessions that are here now.
    pub fn expire(&self) {
        for session in [&self.previous, &self.current, &self.next]
            .into_iter()
            .flatten()
        {
            session.expire();
        }
    }

    /// Forget all sessions; return their receiver indices.
    pub fn clear(&mut self) -> Vec<u32> {
        indices([self.previous.take(), self.current.take(), self.next.take()])
    }
}

fn indices<const N: usize>(sessions: [Option<Arc<Session>>; N]) -> Vec<u32> {
    sessions
        .into_iter()
        .flatten()
        .map(|session| session.keypair.local_index)
        .collect()
}
