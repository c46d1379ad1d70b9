//! The packets' ways of wgd: TUN to UDP and back, in batches, without Python.
//!
//! `engine` is what the control plane calls; `outbound` and `inbound` open with the steps of a
//! packet's way; `workers` runs them in threads. The protocol's decisions are not here: no
//! handshakes, no timers, no configuration. Only who is heard under load is decided here (`gate`),
//! because that has to keep pace with a flood.
//!
//! ```text
//!     TUN -> outbound -> sender -> UDP          tun, udp      the real devices behind `io`
//!     UDP -> inbound  ---------> TUN            offload       TSO, USO and GRO for the TUN
//! ```

pub mod aead;
pub mod allowed_ips;
pub mod cookies;
pub mod drops;
pub mod ecn;
pub mod endpoint;
pub mod engine;
pub mod events;
pub mod faults;
pub mod gate;
pub mod handshakes;
pub mod inbound;
pub mod io;
pub mod offload;
pub mod offloads;
pub mod outbound;
pub mod packet;
pub mod peer;
pub mod rate_limiter;
mod recent;
mod reception;
pub mod replay;
pub mod routes;
pub mod sender;
pub mod session;
pub mod status;
pub mod tun;
pub mod udp;
pub mod unreachable;
pub mod workers;
