//! Handshake messages that wait for the control plane, within bounds.

use std::collections::VecDeque;

use crate::endpoint::Endpoint;

/// Initiations and responses that wait at most in each lane.
pub const MAX_QUEUED_HANDSHAKES: usize = 1024;
/// Cookie replies that wait at most.
pub const MAX_QUEUED_COOKIE_REPLIES: usize = 64;

/// Who waits with whom: a flood in one lane pushes out nothing in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Whose source address nothing proves, or needs to.
    Strangers,
    /// What answers us, or comes from where a peer is.
    Expected,
    /// Whose MAC2 was right.
    Proven,
    /// Cookie replies, which nobody proves anything about.
    CookieReplies,
}

const LANES: usize = 4;

impl Lane {
    const fn limit(self) -> usize {
        match self {
            Self::CookieReplies => MAX_QUEUED_COOKIE_REPLIES,
            _ => MAX_QUEUED_HANDSHAKES,
        }
    }
}

/// A message that the gate let in.
pub struct Message {
    /// As it was received.
    pub datagram: Box<[u8]>,
    /// Who sent it, and where to.
    pub source: Endpoint,
    arrival: u64,
}

/// Bounded lanes, read as one queue; each drops its oldest.
#[derive(Default)]
pub struct Handshakes {
    lanes: [VecDeque<Message>; LANES],
    arrivals: u64,
}

impl Handshakes {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }

    /// How many initiations and responses wait: the measure of load.
    pub fn load(&self) -> usize {
        self.len() - self.lanes[Lane::CookieReplies as usize].len()
    }

    /// Queue a copy of a datagram; true if the oldest in its lane made room for it.
    pub fn push(&mut self, lane: Lane, datagram: &[u8], source: &Endpoint) -> bool {
        let queue = &mut self.lanes[lane as usize];
        let is_full = queue.len() == lane.limit();
        if is_full {
            queue.pop_front();
        }
        self.arrivals += 1;
        queue.push_back(Message {
            datagram: datagram.into(),
            source: *source,
            arrival: self.arrivals,
        });
        is_full
    }

    /// Take at most `limit` messages, oldest first.
    pub fn take(&mut self, limit: usize) -> Vec<Message> {
        let mut messages = Vec::with_capacity(limit.min(self.len()));
        while messages.len() < limit {
            let oldest = (self.lanes.iter_mut())
                .filter(|lane| !lane.is_empty())
                .min_by_key(|lane| lane[0].arrival);
            match oldest.and_then(VecDeque::pop_front) {
                Some(message) => messages.push(message),
                None => break,
            }
        }
        messages
    }
}
