//! The youngest run of each flow in a batch: a small hash table that forgets rather than grows.
//!
//! A flow that is forgotten, or taken for another, begins a new run. That costs a merge, never
//! order, so the hash is not secret and stands for the whole flow.

use super::transport::{Transport, read_u32};

const SLOTS: usize = 1024;
/// How many slots a flow may be in, to bound a look-up.
const PROBES: usize = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// In any other batch the slot is empty.
    batch: u64,
    hash: u64,
    run: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Flows {
    slots: Box<[Slot; SLOTS]>,
    batch: u64,
}

impl Flows {
    pub(super) fn new() -> Self {
        Self {
            slots: Box::new([Slot::default(); SLOTS]),
            batch: 1,
        }
    }

    /// Forget all flows.
    pub(super) fn clear(&mut self) {
        self.batch += 1;
    }

    /// The number of the youngest run of the flow of this packet, to be read and written. The
    /// packet must have four bytes of ports.
    pub(super) fn youngest_run(&mut self, packet: &[u8], transport: Transport) -> &mut Option<u32> {
        let (hash, batch) = (hash(packet, transport), self.batch);
        let home = hash as usize % SLOTS;
        let own = (home..home + PROBES)
            .map(|place| place % SLOTS)
            .find(|place| {
                let slot = &self.slots[*place];
                slot.hash == hash || slot.batch != batch
            });
        let slot = &mut self.slots[own.unwrap_or(home)];
        if (slot.hash, slot.batch) != (hash, batch) {
            *slot = Slot {
                batch,
                hash,
                run: None,
            };
        }
        &mut slot.run
    }
}

fn hash(packet: &[u8], transport: Transport) -> u64 {
    const FACTOR: u128 = 0x9e37_79b9_7f4a_7c15;
    let ports = u64::from(read_u32(packet, transport.offset));
    let (words, _) = transport.addresses(packet).as_chunks::<8>();
    words
        .iter()
        .fold(u64::from(transport.protocol) << 32 | ports, |hash, word| {
            let product = u128::from(hash ^ u64::from_ne_bytes(*word)) * FACTOR;
            (product >> 64) as u64 ^ product as u64
        })
}

#[cfg(test)]
mod tests {
    use super::super::transport::Version;
    use super::*;

    const UDP: Transport = Transport {
        version: Version::V4,
        protocol: 17,
        offset: 20,
    };

    fn packet(flow: u32) -> Vec<u8> {
        let mut packet = vec![0; 28];
        packet[20..24].copy_from_slice(&flow.to_be_bytes());
        packet
    }

    #[test]
    fn remembers_flows_until_cleared() {
        let mut flows = Flows::new();
        for flow in 0..500 {
            assert_eq!(*flows.youngest_run(&packet(flow), UDP), None);
            *flows.youngest_run(&packet(flow), UDP) = Some(flow);
        }
        for flow in 0..500 {
            assert_eq!(*flows.youngest_run(&packet(flow), UDP), Some(flow));
        }
        flows.clear();
        assert_eq!(*flows.youngest_run(&packet(7), UDP), None);
    }

    #[test]
    fn forgets_rather_than_grows() {
        let mut flows = Flows::new();
        for flow in 0..5000 {
            *flows.youngest_run(&packet(flow), UDP) = Some(flow);
            assert_eq!(*flows.youngest_run(&packet(flow), UDP), Some(flow));
        }
        let known = (0..5000).filter(|flow| {
            let run = *flows.youngest_run(&packet(*flow), UDP);
            assert!(run.is_none() || run == Some(*flow));
            run.is_some()
        });
        assert!((1..=1024).contains(&known.count()));
    }
}
