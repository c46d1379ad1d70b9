//! What the kernel does for many packets at once, until it fails.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::events::{Event, Inbox};

/// One of them.
pub struct Offload {
    name: &'static str,
    is_on: AtomicBool,
}

impl Offload {
    const fn new(name: &'static str) -> Self {
        Self {
            name,
            is_on: AtomicBool::new(true),
        }
    }

    /// Whether it may be used.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Do without it, because it failed; report it the first time.
    pub fn switch_off(&self, reason: &io::Error, inbox: &Inbox) {
        if self.is_on.swap(false, Ordering::Relaxed) {
            inbox.emit(Event::OffloadOff {
                name: self.name,
                reason: reason.to_string(),
            });
        }
    }

    /// Try it again.
    pub fn switch_on(&self) {
        self.is_on.store(true, Ordering::Relaxed);
    }
}

/// All of them but UDP GSO, which each peer's path has or has not.
pub struct Offloads {
    /// The TUN hands over packets that it has put together.
    pub tun_tso: Offload,
    /// The TUN takes TCP packets that were put together.
    pub tun_tcp_gro: Offload,
    /// The TUN takes UDP packets that were put together.
    pub tun_udp_gro: Offload,
    /// Sockets hand over datagrams that they have put together.
    pub udp_gro: Offload,
}

impl Default for Offloads {
    fn default() -> Self {
        Self {
            tun_tso: Offload::new("tun_tso"),
            tun_tcp_gro: Offload::new("tun_tcp_gro"),
            tun_udp_gro: Offload::new("tun_udp_gro"),
            udp_gro: Offload::new("udp_gro"),
        }
    }
}
