//! What a kernel does for its sockets with large packets, done for a TUN device.
//!
//! Outbound, the TUN hands over super-packets of up to 64 KiB with a `VirtioHeader`; `split` cuts
//! one into packets that fit the MTU, with right lengths and checksums. Inbound, a `Coalescer`
//! finds neighbours of one flow among decrypted packets, so that one write carries them all.
//! `checksum` and `transport` are what both need. Nothing here trusts a packet.

mod checksum;
mod coalesce;
mod flows;
mod split;
mod transport;
mod virtio;

use std::fmt;

pub use checksum::Sum;
pub use coalesce::{Coalescer, Kind, Run};
pub use split::{Split, split};
pub use virtio::{
    GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP, GSO_UDP_L4, NEEDS_CSUM, VIRTIO_HEADER_SIZE,
    VirtioHeader,
};

/// Why a packet cannot be what its headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}
