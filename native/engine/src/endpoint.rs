//! Where a peer is, and from which of our addresses it is answered.

use std::net::{IpAddr, SocketAddr};

/// The local address a peer reached us at, pinned for the answers (a "sticky" source).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// An address of this host.
    pub address: IpAddr,
    /// The interface the peer's datagrams arrive at.
    pub interface_index: u32,
}

/// A UDP address of a peer. Without a `source` the kernel chooses what the answers leave from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address and port; for a link-local IPv6 address also its zone.
    pub address: SocketAddr,
    /// What the answers leave from.
    pub source: Option<Source>,
}

impl Endpoint {
    /// The same place, answered from whatever address the kernel chooses.
    pub fn without_source(self) -> Self {
        Self {
            source: None,
            ..self
        }
    }
}
