//! Times the engine's table of allowed IPs; benchmarks/lookup does the same with wireguard-go's.
//!
//! Arguments: the family, 4 or 6; how many prefixes; a seed. It prints nanoseconds per prefix put in
//! and per address looked up, each as the engine does it, with the lock on its tables.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use wgd_engine::allowed_ips::Prefix;
use wgd_engine::engine::Engine;

const PEERS: u64 = 100;
const LOOKUPS: usize = 1 << 20;

/// splitmix64, so that both programs see the same addresses.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// The first of so many bits are those of `like`, the others are random.
    fn address(&mut self, like: u128, length: u8) -> u128 {
        let bits = u128::from(self.next()) << 64 | u128::from(self.next());
        let mask = mask(length);
        like & mask | bits & !mask
    }
}

fn mask(length: u8) -> u128 {
    !u128::MAX.checked_shr(length.into()).unwrap_or(0)
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse());
    let mut number = || numbers.next().expect("three arguments").expect("numbers");
    let (family, count, seed): (u64, u64, u64) = (number(), number(), number());
    let (bits, shortest) = if family == 6 { (128, 32) } else { (32, 16) };
    // All addresses are at the front of 128 bits.
    let to_address = |address: u128| match bits {
        32 => IpAddr::V4(((address >> 96) as u32).into()),
        _ => IpAddr::V6(address.into()),
    };
    let mut random = Random(seed);
    let engine = Engine::new().expect("an engine");
    (0..PEERS).for_each(|peer| engine.add_peer(peer));
    let prefixes: Vec<_> = (0..count)
        .map(|_| {
            let address = random.address(0, 0);
            let length = shortest + (random.next() % u64::from(bits - shortest + 1)) as u8;
            (address & mask(length), length)
        })
        .collect();
    let started = Instant::now();
    for (number, &(address, length)) in prefixes.iter().enumerate() {
        let address = to_address(address);
        let prefix = Prefix { address, length };
        let result = engine.add_allowed_ip(number as u64 % PEERS, prefix);
        assert!(result.is_ok());
    }
    let inserted = started.elapsed();
    let addresses: Vec<_> = (0..LOOKUPS)
        .map(|_| {
            let (address, length) = prefixes[(random.next() % count) as usize];
            to_address(random.address(address, length))
        })
        .collect();
    let started = Instant::now();
    let found = addresses
        .iter()
        .filter(|address| engine.route(**address).is_some())
        .count();
    let looked = started.elapsed();
    assert_eq!(found, LOOKUPS, "an address was not found");
    println!(
        "{:.1} {:.1}",
        per(inserted, count),
        per(looked, LOOKUPS as u64)
    );
}

fn per(all: Duration, count: u64) -> f64 {
    all.as_nanos() as f64 / count as f64
}
