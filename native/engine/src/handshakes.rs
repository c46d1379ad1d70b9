//! Handshake messages on their way to the control plane: filtered, then queued within bounds.
//!
//! Initiations and responses without a right MAC1 go no further (paper, section 5.4.4): a sender
//! who does not know our public key costs one BLAKE2s and no memory. Cookie replies have no MAC1,
//! so they queue apart, where a flood of them can push out nothing else.

use std::collections::VecDeque;

use blake2::digest::{Mac, consts::U16};
use zeroize::Zeroizing;

use crate::drops::Drops;
use crate::endpoint::Endpoint;

/// Initiations and responses that wait at most.
pub const MAX_QUEUED_HANDSHAKES: usize = 1024;
/// Cookie replies that wait at most.
pub const MAX_QUEUED_COOKIE_REPLIES: usize = 64;

const MAC_SIZE: usize = 16;
const INITIATION: (u32, usize) = (1, 148);
const RESPONSE: (u32, usize) = (2, 92);
const COOKIE_REPLY: (u32, usize) = (3, 64);

type Blake2sMac = blake2::Blake2sMac<U16>;

/// A message of the right length; an initiation or response has a right MAC1.
pub struct Message {
    /// As it was received.
    pub datagram: Box<[u8]>,
    /// Who sent it, and where to.
    pub source: Endpoint,
    arrival: u64,
}

/// Two bounded queues, read as one; each drops its oldest. Without a key no MAC1 is right.
#[derive(Default)]
pub struct Handshakes {
    mac1_key: Option<Zeroizing<[u8; 32]>>,
    handshakes: VecDeque<Message>,
    cookie_replies: VecDeque<Message>,
    arrivals: u64,
}

impl Handshakes {
    /// Check MAC1 with this key from now on.
    pub fn set_mac1_key(&mut self, key: Option<Zeroizing<[u8; 32]>>) {
        self.mac1_key = key;
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.handshakes.is_empty() && self.cookie_replies.is_empty()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.handshakes.len() + self.cookie_replies.len()
    }

    /// Queue a copy of a datagram of at least 4 bytes if it may be a handshake message; false if
    /// it was dropped.
    pub fn offer(&mut self, datagram: &[u8], source: &Endpoint, drops: &Drops) -> bool {
        let kind = u32::from_le_bytes([datagram[0], datagram[1], datagram[2], datagram[3]]);
        let (queue, limit) = match (kind, datagram.len()) {
            INITIATION | RESPONSE => {
                if !self.has_mac1(datagram) {
                    drops.wrong_mac1.count();
                    return false;
                }
                (&mut self.handshakes, MAX_QUEUED_HANDSHAKES)
            }
            COOKIE_REPLY => (&mut self.cookie_replies, MAX_QUEUED_COOKIE_REPLIES),
            _ => {
                drops.malformed_datagram.count();
                return false;
            }
        };
        if queue.len() == limit {
            queue.pop_front();
            drops.handshake_queue_full.count();
        }
        self.arrivals += 1;
        queue.push_back(Message {
            datagram: datagram.into(),
            source: *source,
            arrival: self.arrivals,
        });
        true
    }

    fn has_mac1(&self, datagram: &[u8]) -> bool {
        let Some(key) = &self.mac1_key else {
            return false;
        };
        let (covered, macs) = datagram.split_at(datagram.len() - 2 * MAC_SIZE);
        let mut mac = Blake2sMac::new_from_slice(&key[..]).expect("32 bytes are a key");
        mac.update(covered);
        mac.verify_slice(&macs[..MAC_SIZE]).is_ok() // in constant time
    }

    /// Take at most `limit` messages, oldest first; also return how many initiations and responses
    /// there were before.
    pub fn take(&mut self, limit: usize) -> (Vec<Message>, usize) {
        let queued = self.handshakes.len();
        let mut messages = Vec::with_capacity(limit.min(queued + self.cookie_replies.len()));
        while messages.len() < limit {
            let queue = match (self.handshakes.front(), self.cookie_replies.front()) {
                (Some(handshake), Some(reply)) if reply.arrival < handshake.arrival => {
                    &mut self.cookie_replies
                }
                (None, Some(_)) => &mut self.cookie_replies,
                _ => &mut self.handshakes,
            };
            match queue.pop_front() {
                Some(message) => messages.push(message),
                None => break,
            }
        }
        (messages, queued)
    }
}
