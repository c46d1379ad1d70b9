//! Cryptokey routing: which peer has the longest prefix that holds an address (paper, section 2).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use prefix_trie::{Prefix as PrefixTrait, PrefixMap};

use crate::peer::{Peer, PeerId};

/// An address with its host bits zero, and a length in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The network's address.
    pub address: IpAddr,
    /// At most 32 for IPv4, 128 for IPv6.
    pub length: u8,
}

/// The prefixes of all peers.
#[derive(Default)]
pub struct AllowedIps {
    v4: PrefixMap<(u32, u8), Arc<Peer>>,
    v6: PrefixMap<(u128, u8), Arc<Peer>>,
    /// How many each peer has. Not which: a set of a million would stop everybody when it grows.
    counts: HashMap<PeerId, usize>,
}

impl AllowedIps {
    /// The peer that an address belongs to.
    pub fn lookup(&self, address: IpAddr) -> Option<&Arc<Peer>> {
        match address {
            IpAddr::V4(v4) => self.v4.get_lpm(&(v4.to_bits(), 32)).map(|found| found.1),
            IpAddr::V6(v6) => self.v6.get_lpm(&(v6.to_bits(), 128)).map(|found| found.1),
        }
    }

    /// Give a prefix to a peer, taking it from any other.
    pub fn insert(&mut self, prefix: Prefix, peer: &Arc<Peer>) {
        let former = match prefix.address {
            IpAddr::V4(v4) => self.v4.insert((v4.to_bits(), prefix.length), peer.clone()),
            IpAddr::V6(v6) => self.v6.insert((v6.to_bits(), prefix.length), peer.clone()),
        };
        if let Some(former) = former {
            self.has_one_less(former.id);
        }
        *self.counts.entry(peer.id).or_default() += 1;
    }

    /// Take exactly this prefix from a peer; nothing if another one has it.
    pub fn remove(&mut self, prefix: Prefix, peer: PeerId) {
        let was_removed = match prefix.address {
            IpAddr::V4(v4) => remove_from(&mut self.v4, &(v4.to_bits(), prefix.length), peer),
            IpAddr::V6(v6) => remove_from(&mut self.v6, &(v6.to_bits(), prefix.length), peer),
        };
        if was_removed {
            self.has_one_less(peer);
        }
    }

    /// Take all prefixes from a peer. Only while it has any, all of everybody's are searched.
    pub fn remove_all(&mut self, peer: PeerId) {
        if self.counts.remove(&peer).is_some() {
            self.v4.retain(|_, owner| owner.id != peer);
            self.v6.retain(|_, owner| owner.id != peer);
        }
    }

    fn has_one_less(&mut self, peer: PeerId) {
        if let Entry::Occupied(mut count) = self.counts.entry(peer) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Whether the peer had it.
fn remove_from<P: PrefixTrait>(
    map: &mut PrefixMap<P, Arc<Peer>>,
    prefix: &P,
    peer: PeerId,
) -> bool {
    let has_it = map.get(prefix).is_some_and(|owner| owner.id == peer);
    if has_it {
        map.remove(prefix);
    }
    has_it
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owner(table: &AllowedIps, address: &str) -> Option<PeerId> {
        table
            .lookup(address.parse().expect("an address"))
            .map(|peer| peer.id)
    }

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').expect("a slash");
        Prefix {
            address: address.parse().expect("an address"),
            length: length.parse().expect("a length"),
        }
    }

    #[test]
    fn the_longest_prefix_wins_and_families_are_apart() {
        let (a, b) = (Arc::new(Peer::new(1)), Arc::new(Peer::new(2)));
        let mut table = AllowedIps::default();
        for text in ["0.0.0.0/0", "10.0.0.0/8", "fd00::/8"] {
            table.insert(prefix(text), &a);
        }
        table.insert(prefix("10.1.0.0/16"), &b);
        assert_eq!(owner(&table, "10.1.2.3"), Some(2));
        assert_eq!(owner(&table, "10.2.2.3"), Some(1));
        assert_eq!(owner(&table, "192.0.2.1"), Some(1));
        assert_eq!(owner(&table, "fd12::1"), Some(1));
        assert_eq!(owner(&table, "2001:db8::1"), None);
    }

    #[test]
    fn a_prefix_has_one_owner() {
        let (a, b) = (Arc::new(Peer::new(1)), Arc::new(Peer::new(2)));
        let mut table = AllowedIps::default();
        table.insert(prefix("10.0.0.0/8"), &a);
        table.insert(prefix("10.0.0.0/8"), &b);
        table.remove(prefix("10.0.0.0/8"), 1);
        table.remove_all(1);
        assert_eq!(owner(&table, "10.0.0.1"), Some(2));
        table.remove(prefix("10.0.0.0/8"), 2);
        assert_eq!(owner(&table, "10.0.0.1"), None);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_search_of_all_prefixes(
            changes in prop::collection::vec((any::<u32>(), 0_u8..=32, 0_u64..4, any::<bool>()), 1..60),
            questions in prop::collection::vec(any::<u32>(), 1..40),
        ) {
            let peers: Vec<_> = (0..4).map(|id| Arc::new(Peer::new(id))).collect();
            let mut table = AllowedIps::default();
            let mut naive: HashMap<(u32, u8), PeerId> = HashMap::new();
            for (bits, length, peer, adds) in changes {
                // Few bits, so that prefixes hold one another.
                let masked = (bits & 0xe000_0003).checked_shr(u32::from(32 - length)).unwrap_or(0)
                    .checked_shl(u32::from(32 - length)).unwrap_or(0);
                let address = IpAddr::V4(masked.into());
                if adds {
                    table.insert(Prefix { address, length }, &peers[peer as usize]);
                    naive.insert((masked, length), peer);
                } else {
                    table.remove(Prefix { address, length }, peer);
                    if naive.get(&(masked, length)) == Some(&peer) {
                        naive.remove(&(masked, length));
                    }
                }
            }
            for bits in questions {
                let bits = bits & 0xe000_0003;
                let expected = naive.iter()
                    .filter(|((network, length), _)| {
                        bits.checked_shr(u32::from(32 - length)).unwrap_or(0)
                            == network.checked_shr(u32::from(32 - length)).unwrap_or(0)
                    })
                    .max_by_key(|((_, length), _)| *length)
                    .map(|(_, peer)| *peer);
                let found = table.lookup(IpAddr::V4(bits.into())).map(|peer| peer.id);
                prop_assert_eq!(found, expected);
            }
        }
    }
}
