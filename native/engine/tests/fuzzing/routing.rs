//! Whose address it is, and which counters were seen: against a search of everything.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use wgd_engine::allowed_ips::{AllowedIps, Prefix};
use wgd_engine::peer::{Peer, PeerId};
use wgd_engine::replay::ReplayWindow;

use super::offload_support::Bytes;

/// Prefixes given and taken in any order; every lookup is as a search of all of them says.
pub fn allowed_ips(input: &[u8]) {
    let mut input = Bytes(input);
    let peers: Vec<_> = (0..4).map(|id| Arc::new(Peer::new(id))).collect();
    let mut table = AllowedIps::default();
    let mut naive: HashMap<Prefix, PeerId> = HashMap::new();
    for _ in 0..64 {
        if input.0.is_empty() {
            break;
        }
        let (action, owner) = (input.byte(), usize::from(input.byte() % 4));
        let (high, low) = (input.number(), input.byte());
        let is_ipv6 = action & 0x80 != 0;
        let asked = address(is_ipv6, high, low, 128);
        let length = input.byte() % if is_ipv6 { 129 } else { 33 };
        let prefix = Prefix {
            address: address(is_ipv6, high, low, length),
            length,
        };
        match action % 4 {
            0 | 1 => {
                table.insert(prefix, &peers[owner]);
                naive.insert(prefix, owner as PeerId);
            }
            2 => {
                table.remove(prefix, owner as PeerId);
                if naive.get(&prefix) == Some(&(owner as PeerId)) {
                    naive.remove(&prefix);
                }
            }
            _ => {
                table.remove_all(owner as PeerId);
                naive.retain(|_, who| *who != owner as PeerId);
            }
        }
        for address in [asked, prefix.address, address(is_ipv6, 0, 0, 128)] {
            let found = table.lookup(address).map(|peer| peer.id);
            assert_eq!(found, search(&naive, address));
        }
    }
}

/// An address of two bytes at the front and one at the end, without the bits after `length`.
fn address(is_ipv6: bool, high: u16, low: u8, length: u8) -> IpAddr {
    if is_ipv6 {
        let bits = u128::from(high) << 112 | u128::from(low);
        IpAddr::V6((bits & mask(length, 128)).into())
    } else {
        let bits = u128::from(high) << 16 | u128::from(low);
        IpAddr::V4(((bits & mask(length.min(32), 32)) as u32).into())
    }
}

fn mask(length: u8, bits: u8) -> u128 {
    let all = u128::MAX >> (128 - u32::from(bits));
    all & !all.checked_shr(length.into()).unwrap_or(0)
}

fn search(naive: &HashMap<Prefix, PeerId>, address: IpAddr) -> Option<PeerId> {
    let holds = |prefix: &Prefix| match (prefix.address, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            u128::from(address.to_bits()) & mask(prefix.length, 32) == network.to_bits().into()
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            address.to_bits() & mask(prefix.length, 128) == network.to_bits()
        }
        _ => false,
    };
    let holding = naive.iter().filter(|(prefix, _)| holds(prefix));
    holding
        .max_by_key(|(prefix, _)| prefix.length)
        .map(|(_, owner)| *owner)
}

/// Counters in any order; the window accepts what a set of all of them would.
pub fn replay(input: &[u8]) {
    let mut input = Bytes(input);
    let mut window = ReplayWindow::default();
    let mut seen = HashSet::new();
    let mut greatest: Option<u64> = None;
    for _ in 0..256 {
        if input.0.is_empty() {
            break;
        }
        let front = greatest.unwrap_or(0);
        let counter = match input.byte() % 5 {
            0 => front.saturating_add(input.byte().into()),
            1 => front.saturating_sub(u64::from(input.number()) % 8200),
            2 => front.saturating_add(input.number().into()),
            3 => u64::from_be_bytes(<[u8; 8]>::try_from(input.take(8)).unwrap_or_default()),
            _ => front.saturating_sub(8127 + u64::from(input.byte() % 3)),
        };
        let is_in_window = greatest.is_none_or(|front| front.saturating_sub(counter) <= 8128);
        let expected = is_in_window && !seen.contains(&counter);
        assert_eq!(window.accept(counter), expected, "counter {counter}");
        if expected {
            seen.insert(counter);
            greatest = Some(front.max(counter));
        }
    }
}
