//! Handshake messages at the gate and in the queue, and what a handful of bytes says is done.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;

use blake2::digest::{Mac, consts::U16};
use wgd_engine::drops::Drops;
use wgd_engine::endpoint::Endpoint;
use wgd_engine::gate::{Gate, Keys, Verdict};
use wgd_engine::handshakes::{Handshakes, Lane};
use zeroize::Zeroizing;

use super::offload_support::Bytes;

const KEY: [u8; 32] = [7; 32];
const LANES: [(Lane, usize); 4] = [
    (Lane::Strangers, 1024),
    (Lane::Expected, 1024),
    (Lane::Proven, 1024),
    (Lane::CookieReplies, 64),
];

/// Who does not know our key is never heard, nor answered; without load everybody else is, but for
/// a copy; under load nobody is taken for proven who has no cookie, and an answer is a cookie reply
/// to this message. What is heard waits in plain lanes, and leaves as it came.
pub fn handshakes(input: &[u8]) {
    let mut input = Bytes(input);
    let drops = Drops::default();
    let gate = Gate::default();
    gate.set_keys(Some(Keys {
        mac1: Zeroizing::new(KEY),
        reply: Zeroizing::new([8; 32]),
    }));
    let mut queue = Handshakes::default();
    let mut lanes: [VecDeque<(u64, Vec<u8>)>; 4] = Default::default();
    let (mut now_ns, mut arrival) = (1_000_000_000, 0);
    let (mut answered, mut judged) = (0, 0);
    for _ in 0..64 {
        if input.0.is_empty() {
            break;
        }
        let (action, argument) = (input.byte(), input.byte());
        match action % 8 {
            6 => {
                now_ns += u64::from(argument) * 10_000_000;
                gate.note_queued(queue.load(), now_ns);
                continue;
            }
            7 => {
                let messages = queue.take(argument.into());
                let taken: Vec<_> = messages.iter().map(|each| each.datagram.to_vec()).collect();
                assert_eq!(taken, take(&mut lanes, argument.into()));
                continue;
            }
            _ => {}
        }
        let copies = if action & 0x80 == 0 {
            1
        } else {
            1 + u32::from(argument)
        };
        for copy in 0..copies {
            let datagram = message(action, argument, copy, &mut input);
            let is_load = gate.is_under_load(now_ns);
            let answers = (action % 3 == 0).then_some(copy);
            let source = endpoint(argument % 8).address;
            let verdict = gate.judge(&datagram, source, answers, HashSet::new, now_ns, &drops);
            judged += 1;
            let lane = match verdict {
                Verdict::Hear(lane) => lane,
                Verdict::Answer(reply) => {
                    assert!(is_load && has_mac1(&datagram));
                    assert_eq!(reply[..4], [3, 0, 0, 0]);
                    assert_eq!(reply[4..8], datagram[4..8]);
                    answered += 1;
                    continue;
                }
                Verdict::Drop => continue,
            };
            assert!(has_mac1(&datagram));
            assert_ne!(lane, Lane::Proven);
            assert!(is_load || lane == Lane::Strangers);
            let again = gate.judge(&datagram, source, answers, HashSet::new, now_ns, &drops);
            assert!(matches!(again, Verdict::Drop), "a copy was heard");
            let lane = LANES[usize::from(argument % 4)].0; // whichever: the queue takes all
            push(&mut queue, &mut lanes, lane, &datagram, &mut arrival);
        }
        gate.note_queued(queue.load(), now_ns);
        let waiting: usize = lanes.iter().map(VecDeque::len).sum();
        assert_eq!(queue.len(), waiting);
        assert_eq!(queue.load(), waiting - lanes[3].len());
        assert_eq!(queue.is_empty(), waiting == 0);
        assert!(answered <= judged && gate.cookies_sent() == answered);
    }
}

fn push(
    queue: &mut Handshakes,
    lanes: &mut [VecDeque<(u64, Vec<u8>)>; 4],
    lane: Lane,
    datagram: &[u8],
    arrival: &mut u64,
) {
    let place = LANES
        .iter()
        .position(|each| each.0 == lane)
        .expect("a lane");
    let is_full = lanes[place].len() == LANES[place].1;
    if is_full {
        lanes[place].pop_front();
    }
    *arrival += 1;
    lanes[place].push_back((*arrival, datagram.to_vec()));
    assert_eq!(queue.push(lane, datagram, &endpoint(0)), is_full);
}

fn take(lanes: &mut [VecDeque<(u64, Vec<u8>)>; 4], limit: usize) -> Vec<Vec<u8>> {
    let mut taken = Vec::new();
    while taken.len() < limit {
        let waiting = lanes.iter_mut().filter(|lane| !lane.is_empty());
        let oldest = waiting.min_by_key(|lane| lane[0].0);
        match oldest.and_then(VecDeque::pop_front) {
            Some((_, datagram)) => taken.push(datagram),
            None => break,
        }
    }
    taken
}

/// An initiation or response, with noise at some place, and a MAC1 that is right or not.
fn message(action: u8, argument: u8, copy: u32, input: &mut Bytes<'_>) -> Vec<u8> {
    let is_initiation = action.is_multiple_of(2);
    let mut datagram = vec![argument; if is_initiation { 148 } else { 92 }];
    datagram[..4].copy_from_slice(&[if is_initiation { 1 } else { 2 }, 0, 0, 0]);
    datagram[8..12].copy_from_slice(&copy.to_le_bytes());
    let content = input.take(usize::from(argument % 32));
    let start = 4 + usize::from(action >> 3 & 7) * 16;
    for (byte, new) in datagram.iter_mut().skip(start).zip(content) {
        *byte = *new;
    }
    if action & 0x40 != 0 {
        let start = datagram.len() - 32;
        let mac = mac1(&datagram[..start]);
        datagram[start..start + 16].copy_from_slice(&mac);
    }
    datagram
}

fn mac1(covered: &[u8]) -> [u8; 16] {
    let mut mac = blake2::Blake2sMac::<U16>::new_from_slice(&KEY).expect("a key");
    mac.update(covered);
    mac.finalize().into_bytes().into()
}

fn has_mac1(datagram: &[u8]) -> bool {
    let start = datagram.len() - 32;
    datagram[start..start + 16] == mac1(&datagram[..start])
}

fn endpoint(number: u8) -> Endpoint {
    Endpoint {
        address: SocketAddr::from(([192, 0, 2, number], 51820)),
        source: None,
    }
}
