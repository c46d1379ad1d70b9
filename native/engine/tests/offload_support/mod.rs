//! Shared by the offloads' tests and fuzz targets: packets, traffic, and what must become of them.
//!
//! It knows the formats by itself: no constant and no parser is taken from the code under test.

#![allow(dead_code, unused_imports)] // Each program uses a part.

mod oracle;
mod packet;
mod traffic;

pub use oracle::{check_coalescing, check_split, coalesce, cut, cut_again, is_right, merged};
pub use packet::{Packet, TCP, UDP, internet_sum, pseudo_sum};
pub use traffic::{Bytes, super_packet, traffic};
