//! Telling local senders that a packet has nowhere to go: ICMP "host unreachable" (RFC 792) and
//! ICMPv6 "address unreachable" (RFC 4443), written to the TUN the packet came from, as the kernel
//! does when no peer has the destination or the peer has no endpoint.
//!
//! The answer comes from the address that could not be reached. The interface's own would be more
//! usual, but Linux takes no packet from outside that has an address of its own as source, and
//! whoever is told looks at the quoted packet only.

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::io::Tun;
use crate::offload::{Sum, VirtioHeader};
use crate::packet::{destination, source};

/// Answers in a second, on average (the kernel's net.ipv4.icmp_msgs_per_sec).
pub const UNREACHABLES_PER_SECOND: u64 = 1000;
/// Answers at once (the kernel's net.ipv4.icmp_msgs_burst).
pub const UNREACHABLES_BURST: u64 = 50;

const INTERVAL_NS: u64 = 1_000_000_000 / UNREACHABLES_PER_SECOND;

const IPV4_HEADER_SIZE: usize = 20;
const IPV6_HEADER_SIZE: usize = 40;
const ICMP_HEADER_SIZE: usize = 8;
/// An ICMP error is at most that long (RFC 1812 section 4.3.2.3), in bytes.
const MAX_IPV4_SIZE: usize = 576;
/// And an ICMPv6 error (RFC 4443 section 2.4 c).
const MAX_IPV6_SIZE: usize = 1280;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const DESTINATION_UNREACHABLE: u8 = 3;
const HOST_UNREACHABLE: u8 = 1;
const DESTINATION_UNREACHABLE_6: u8 = 1;
const ADDRESS_UNREACHABLE_6: u8 = 3;
const REDIRECT_6: u8 = 137;
/// Precedence 6, internetwork control (RFC 1812 section 4.3.2.5).
const TYPE_OF_SERVICE: u8 = 0xc0;
const DO_NOT_FRAGMENT: u8 = 0x40;
const TIME_TO_LIVE: u8 = 64;

/// Answers, at a bounded rate, through one queue of the TUN.
#[derive(Default)]
pub struct Refusals {
    tun: RwLock<Option<Arc<dyn Tun>>>,
    /// When the answers given so far would have been due at an even rate.
    given_until_ns: Mutex<u64>,
}

impl Refusals {
    /// Write answers there from now on; to None, nowhere.
    pub fn set_tun(&self, tun: Option<Arc<dyn Tun>>) {
        let former = std::mem::replace(&mut *self.tun.write(), tun);
        drop(former); // not while the lock is held
    }

    /// Tell the sender of a packet that it cannot be delivered, unless it must not be told or
    /// others were told too often just now. That the answer cannot be written is no error.
    pub fn refuse(&self, packet: &[u8], now_ns: u64) {
        if !may_be_answered(packet) || !self.is_due(now_ns) {
            return;
        }
        if let Some(tun) = &*self.tun.read() {
            let answer = answer(packet);
            let _ = tun.write(&VirtioHeader::default(), &[IoSlice::new(&answer)]);
        }
    }

    fn is_due(&self, now_ns: u64) -> bool {
        let mut given_until_ns = self.given_until_ns.lock();
        let next_ns = (*given_until_ns).max(now_ns) + INTERVAL_NS;
        let is_due = next_ns <= now_ns + UNREACHABLES_BURST * INTERVAL_NS;
        if is_due {
            *given_until_ns = next_ns;
        }
        is_due
    }
}

/// Whether an error may be sent about an IP packet (RFC 1122 section 3.2.2, RFC 4443 section 2.4
/// e): not about ICMP errors, fragments but the first, or what does not come from one host and go to
/// one.
fn may_be_answered(packet: &[u8]) -> bool {
    let (Some(source), Some(destination)) = (source(packet), destination(packet)) else {
        return false;
    };
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else {
        return is_one_host_6(source)
            && is_one_host_6(destination)
            && !is_icmpv6_error_or_unknown(packet);
    };
    let header_size = usize::from(packet[0] & 15) * 4;
    let fragment_offset = u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff;
    is_one_host_4(source)
        && is_one_host_4(destination)
        && IPV4_HEADER_SIZE <= header_size
        && header_size <= packet.len()
        && fragment_offset == 0
        && (packet[9] != ICMP || packet.get(header_size).is_some_and(is_icmp_query))
}

fn is_one_host_4(address: Ipv4Addr) -> bool {
    // Not "this" network, loopback, multicast, class E and broadcast.
    !matches!(address.octets()[0], 0 | 127 | 224..)
}

fn is_one_host_6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if !v6.is_unspecified() && !v6.is_loopback() && !v6.is_multicast())
}

fn is_icmp_query(kind: &u8) -> bool {
    // Of the known ones; 3, 4, 5, 11 and 12 are errors.
    matches!(kind, 0 | 8 | 9 | 10 | 13..=18)
}

/// Whether an IPv6 packet is an ICMPv6 error or redirect, or this cannot be told.
fn is_icmpv6_error_or_unknown(packet: &[u8]) -> bool {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION_OPTIONS: u8 = 60;

    let mut protocol = packet[6];
    let mut offset = IPV6_HEADER_SIZE;
    // Each header takes 8 bytes at least, so this ends.
    loop {
        if !matches!(
            protocol,
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | ICMPV6
        ) {
            return false;
        }
        let Some(&[next, length, high, low]) =
            packet.get(offset..).and_then(|rest| rest.first_chunk())
        else {
            return true;
        };
        offset += match protocol {
            ICMPV6 => return next < 128 || next == REDIRECT_6,
            AUTHENTICATION => (usize::from(length) + 2) * 4,
            FRAGMENT if u16::from_be_bytes([high, low]) & 0xfff8 == 0 => 8,
            FRAGMENT => return true,
            _ => (usize::from(length) + 1) * 8,
        };
        protocol = next;
    }
}

/// The whole error about a packet that may be answered.
fn answer(packet: &[u8]) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        answer_4(packet)
    } else {
        answer_6(packet)
    }
}

fn answer_4(packet: &[u8]) -> Vec<u8> {
    let quoted = &packet[..packet
        .len()
        .min(MAX_IPV4_SIZE - IPV4_HEADER_SIZE - ICMP_HEADER_SIZE)];
    let size = (IPV4_HEADER_SIZE + ICMP_HEADER_SIZE + quoted.len()) as u16;
    let mut answer = vec![0x45, TYPE_OF_SERVICE];
    answer.extend(size.to_be_bytes());
    answer.extend([0, 0, DO_NOT_FRAGMENT, 0, TIME_TO_LIVE, ICMP, 0, 0]);
    answer.extend(&packet[16..20]);
    answer.extend(&packet[12..16]);
    put_checksum(&mut answer, 10, Sum::default(), 0);
    answer.extend([DESTINATION_UNREACHABLE, HOST_UNREACHABLE, 0, 0, 0, 0, 0, 0]);
    answer.extend(quoted);
    put_checksum(
        &mut answer,
        IPV4_HEADER_SIZE + 2,
        Sum::default(),
        IPV4_HEADER_SIZE,
    );
    answer
}

fn answer_6(packet: &[u8]) -> Vec<u8> {
    let quoted = &packet[..packet
        .len()
        .min(MAX_IPV6_SIZE - IPV6_HEADER_SIZE - ICMP_HEADER_SIZE)];
    let size = (ICMP_HEADER_SIZE + quoted.len()) as u16;
    let mut answer = vec![0x60, 0, 0, 0];
    answer.extend(size.to_be_bytes());
    answer.extend([ICMPV6, TIME_TO_LIVE]);
    answer.extend(&packet[24..40]);
    answer.extend(&packet[8..24]);
    let pseudo_header = Sum::of(&answer[8..40]).plus(size).plus(ICMPV6.into());
    answer.extend([
        DESTINATION_UNREACHABLE_6,
        ADDRESS_UNREACHABLE_6,
        0,
        0,
        0,
        0,
        0,
        0,
    ]);
    answer.extend(quoted);
    put_checksum(
        &mut answer,
        IPV6_HEADER_SIZE + 2,
        pseudo_header,
        IPV6_HEADER_SIZE,
    );
    answer
}

/// Put the checksum of what comes from `start` on, and of what was summed before, at `field`.
fn put_checksum(answer: &mut [u8], field: usize, before: Sum, start: usize) {
    let checksum = before.join(Sum::of(&answer[start..])).checksum();
    answer[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
}
