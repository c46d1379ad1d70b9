//! The outside world as the engine sees it: a TUN queue, and UDP sockets.
//!
//! `tun` and `udp` have the real ones; tests bring their own.

use std::io::{self, ErrorKind, IoSlice};

use crate::endpoint::Endpoint;
use crate::offload::VirtioHeader;

/// The longest IP packet, and more than UDP can carry.
pub const MAX_PACKET_SIZE: usize = 65_535;

/// How many messages, each perhaps of many datagrams, are received at once.
pub const MESSAGES: usize = 8;

const SLOT_SIZE: usize = MAX_PACKET_SIZE + 1;

/// One queue of a TUN device. Calls return `WouldBlock` when nothing can be done now.
pub trait Tun: Send + Sync {
    /// Read one IP packet, or several of one flow that the kernel has put together.
    fn read(&self, packet: &mut [u8]) -> io::Result<(VirtioHeader, usize)>;

    /// Write what `header` says of the bytes in `parts`: all or nothing.
    fn write(&self, header: &VirtioHeader, parts: &[IoSlice<'_>]) -> io::Result<()>;

    /// Whether packets may be put together for `write`.
    fn has_virtio_header(&self) -> bool;

    /// Let the kernel put nothing together any more.
    fn switch_off_offloads(&self) -> io::Result<()>;
}

/// A UDP socket of one family. Calls return `WouldBlock` when nothing can be done now.
pub trait Socket: Send + Sync {
    /// Whether it speaks IPv6 (only).
    fn is_ipv6(&self) -> bool;

    /// How many datagrams `send_segments` takes at once; 1 if it cannot be used.
    fn max_segments(&self) -> usize;

    /// Send one datagram, from the endpoint's source if there is one, with this type of service or
    /// traffic class.
    fn send(&self, datagram: &[u8], endpoint: &Endpoint, traffic_class: u8) -> io::Result<()>;

    /// Send datagrams of `size` bytes that lie end to end, the last may be shorter (UDP GSO).
    fn send_segments(
        &self,
        datagrams: &[u8],
        size: usize,
        endpoint: &Endpoint,
        traffic_class: u8,
    ) -> io::Result<()>;

    /// Receive what is there, at most `MESSAGES` messages, but at least one.
    fn receive(&self, received: &mut Received) -> io::Result<()>;

    /// Let the kernel put nothing together any more.
    fn switch_off_gro(&self) -> io::Result<()>;
}

/// What a socket received: messages, each one datagram or several of one size (UDP GRO).
pub struct Received {
    /// The bytes of message `n` begin at `Received::start(n)`.
    pub bytes: Box<[u8]>,
    /// What is known of each message.
    pub messages: Vec<Message>,
}

/// One message: its datagrams lie end to end, and the last may be shorter.
#[derive(Clone, Copy)]
pub struct Message {
    /// Bytes altogether.
    pub length: usize,
    /// Bytes of each datagram but the last.
    pub segment_size: usize,
    /// Who sent it, and where to.
    pub source: Endpoint,
    /// The type of service or traffic class that all its datagrams came with; 0 if not known.
    pub traffic_class: u8,
    /// Whether it was longer than there was room for.
    pub is_truncated: bool,
}

impl Received {
    /// Room for messages. The memory is used only when messages come.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; MESSAGES * SLOT_SIZE].into_boxed_slice(),
            messages: Vec::with_capacity(MESSAGES),
        }
    }

    /// Where message `number` begins.
    pub const fn start(number: usize) -> usize {
        number * SLOT_SIZE
    }

    /// Room for each message.
    pub fn slots(&mut self) -> std::slice::ChunksExactMut<'_, u8> {
        self.bytes.chunks_exact_mut(SLOT_SIZE)
    }
}

impl Default for Received {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether an error says that the kernel, or the path, cannot do it with many packets at once; what
/// else may have failed says nothing about that.
pub fn is_lack_of_offload(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP)
    ) || error.kind() == ErrorKind::WriteZero
}
