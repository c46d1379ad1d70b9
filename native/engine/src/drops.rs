//! How many packets and datagrams were dropped, by reason.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! drops {
    ($($(#[$documentation:meta])* $name:ident,)*) => {
        /// Counters that only grow. The names are those of the portable engine's `Drops`.
        #[derive(Default)]
        pub struct Drops { $($(#[$documentation])* pub $name: Counter,)* }

        impl Drops {
            /// Every name and its present count.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

drops! {
    /// Out of the TUN: not IP, or a virtio-net header that does not fit.
    malformed_packet,
    /// No peer has the destination.
    no_route,
    /// The oldest staged packet made room.
    staged_full,
    /// The peer's endpoint is unknown.
    no_endpoint,
    /// There is no socket of the endpoint's family.
    no_socket,
    /// The kernel refused to send.
    send_failed,
    /// The kernel failed to receive.
    receive_failed,
    /// Out of a socket: not a WireGuard message.
    malformed_datagram,
    /// A handshake message of somebody who does not know our public key.
    wrong_mac1,
    /// A copy of a handshake message that was heard.
    repeated_handshake,
    /// A handshake message that was not heard under load: its sender may have got a cookie.
    under_load,
    /// The oldest handshake message made room.
    handshake_queue_full,
    /// No session, and for an answer no initiation of ours, has the receiver index.
    unknown_index,
    /// The session is too old, or its counter at the limit.
    expired_keypair,
    /// Forged or damaged.
    not_authentic,
    /// Seen before, or too late.
    replayed,
    /// What was inside is not an IP packet.
    malformed_inner_packet,
    /// The inner packet's source belongs to somebody else.
    wrong_source,
    /// Marked by a router, but its sender would not understand (RFC 6040).
    congested,
    /// The TUN failed, in either direction.
    tun_failed,
}

/// One counter, for all threads.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Count one more.
    pub fn count(&self) {
        self.add(1);
    }

    /// Count so many more.
    pub fn add(&self, number: usize) {
        self.0.fetch_add(number as u64, Relaxed);
    }

    /// The present count.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
