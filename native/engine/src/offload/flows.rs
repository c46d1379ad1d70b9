//! The youngest run of each flow in a batch: a small hash table that forgets rather than grows.
//!
//! A flow that is forgotten, or taken for another, begins a new run. That costs a merge, never
//! order, so the hash is not secret and stands for the whole flow.

use super::transport::{Transport, read_u32};

const SLOTS: usize = 1024;
/// How many slots a flow may be in, to bound a look-up.
const PROBES: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u64,
    run: Option<u32>,
}

const EMPTY: Slot = Slot { hash: 0, run: None };

#[derive(Debug)]
pub(super) struct Flows(Box<[Slot; SLOTS]>);

impl Flows {
    pub(super) fn new() -> Self {
        Self(Box::new([EMPTY; SLOTS]))
    }

    pub(super) fn clear(&mut self) {
        self.0.fill(EMPTY);
    }

    /// The number of the youngest run of the flow of this packet, to be read and written. The
    /// packet must have four bytes of ports.
    pub(super) fn youngest_run(&mut self, packet: &[u8], transport: Transport) -> &mut Option<u32> {
        let hash = hash(packet, transport);
        let home = hash as usize % SLOTS;
        let mut places = (home..home + PROBES).map(|place| place % SLOTS);
        let own = places.find(|place| {
            let slot = &self.0[*place];
            slot.hash == hash || slot.run.is_none()
        });
        let slot = &mut self.0[own.unwrap_or(home)];
        if slot.hash != hash {
            *slot = Slot { hash, run: None };
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
