//! Who is heard: initiations and responses on their way from the sockets to the control plane.
//!
//! Whoever does not know our public key (MAC1) is never heard, and a copy of what was heard is not
//! heard again. While many messages wait, and for a second after ("under load"; paper, section
//! 5.3), a message is heard if
//!
//! 1 its MAC2 proves its source address, within a rate for each;
//! 2 or it is expected: a response to an open initiation of ours, whose index only somebody on the
//!   way can know, or anything from where a peer is, within a rate for each;
//! 3 or its source, which nothing proves, has sent little: within a rate for each and one for all,
//!   most of which is for those that had been quiet for a minute, as whoever wants to join has.
//!
//! Anything else is answered by a cookie, at a bounded rate and at no cost to the control plane; most
//! cookies are for who had been quiet, and some are spare, so that who forges a source does not use
//! up what its owner gets. The three have queues of their own (`handshakes`), so that none can push
//! out another's, and what is merely claimed never takes what was proven. No memory here grows with
//! the number of senders.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock};
use zeroize::Zeroizing;

use crate::cookies::{COOKIE_REPLY_SIZE, Cookies, MAC_SIZE, has_mac1, mac1};
use crate::drops::Drops;
use crate::handshakes::{Lane, MAX_QUEUED_HANDSHAKES};
use crate::rate_limiter::{Rate, RateLimiter, TokenBucket};
use crate::recent::RecentSources;

/// So many waiting messages are load.
pub const UNDER_LOAD_QUEUE_DEPTH: usize = MAX_QUEUED_HANDSHAKES / 8;
const UNDER_LOAD_STICKY_NS: u64 = 1_000_000_000;

const HANDSHAKES_PER_SECOND_PER_SOURCE: u64 = 20;
const HANDSHAKE_BURST_PER_SOURCE: u64 = 5;
const MAX_RATE_LIMITED_SOURCES: usize = 65_536;
const UNPROVEN_HANDSHAKES_PER_SECOND_PER_SOURCE: u64 = 1;
const UNPROVEN_HANDSHAKE_BURST_PER_SOURCE: u64 = 5;
const QUIET_STRANGER_HANDSHAKES_PER_SECOND: u64 = 192;
const QUIET_STRANGER_HANDSHAKE_BURST: u64 = 48;
const STRANGER_HANDSHAKES_PER_SECOND: u64 = 64;
const STRANGER_HANDSHAKE_BURST: u64 = 16;
const MAX_STRANGERS: usize = 4_096;
const QUIET_COOKIE_REPLIES_PER_SECOND: u64 = 32_000;
const QUIET_COOKIE_REPLY_BURST: u64 = 3_200;
const COOKIE_REPLIES_PER_SECOND: u64 = 8_000;
const COOKIE_REPLY_BURST: u64 = 800;
const SPARE_COOKIE_REPLIES_PER_SECOND: u64 = 2_000;
const SPARE_COOKIE_REPLY_BURST: u64 = 200;
const MAX_COOKIE_REPLY_SOURCES: usize = 16_384;
const MAX_HEARD_HANDSHAKES: usize = 1_024;
const PEER_ENDPOINTS_LIFETIME_NS: u64 = 1_000_000_000;

/// Of a proven source; so many cookie replies a source gets, too, before it takes spare ones.
const PROVEN: Rate = Rate {
    per_second: HANDSHAKES_PER_SECOND_PER_SOURCE,
    burst: HANDSHAKE_BURST_PER_SOURCE,
};
const UNPROVEN: Rate = Rate {
    per_second: UNPROVEN_HANDSHAKES_PER_SECOND_PER_SOURCE,
    burst: UNPROVEN_HANDSHAKE_BURST_PER_SOURCE,
};
/// Of all that had been quiet; they have a share in the others' as well.
const QUIET_STRANGERS: Rate = Rate {
    per_second: QUIET_STRANGER_HANDSHAKES_PER_SECOND,
    burst: QUIET_STRANGER_HANDSHAKE_BURST,
};
const QUIET_COOKIE_REPLIES: Rate = Rate {
    per_second: QUIET_COOKIE_REPLIES_PER_SECOND,
    burst: QUIET_COOKIE_REPLY_BURST,
};
const ALL_STRANGERS: Rate = Rate {
    per_second: STRANGER_HANDSHAKES_PER_SECOND,
    burst: STRANGER_HANDSHAKE_BURST,
};
const ALL_COOKIE_REPLIES: Rate = Rate {
    per_second: COOKIE_REPLIES_PER_SECOND,
    burst: COOKIE_REPLY_BURST,
};
/// Beyond either rate, to anybody: who floods in a peer's name must not use up what the peer gets.
const SPARE_COOKIE_REPLIES: Rate = Rate {
    per_second: SPARE_COOKIE_REPLIES_PER_SECOND,
    burst: SPARE_COOKIE_REPLY_BURST,
};

/// What MAC1 and cookie replies are made with: both follow from our public key (section 5.4.4).
pub struct Keys {
    /// Of MAC1.
    pub mac1: Zeroizing<[u8; 32]>,
    /// Of cookie replies.
    pub reply: Zeroizing<[u8; 32]>,
}

/// What becomes of a message.
pub enum Verdict {
    /// The control plane gets it.
    Hear(Lane),
    /// Its sender gets a cookie reply.
    Answer([u8; COOKIE_REPLY_SIZE]),
    /// Nothing.
    Drop,
}

/// The gate of one device. Without keys nobody is heard.
#[derive(Default)]
pub struct Gate {
    keys: RwLock<Option<Keys>>,
    state: Mutex<State>,
    under_load_until_ns: AtomicU64,
    cookies_sent: AtomicU64,
}

/// The source of a datagram as rates see it: an IPv6 user commonly holds a whole /64.
#[derive(PartialEq, Eq, Hash)]
enum Unit {
    V4([u8; 4]),
    V6([u8; 8]),
}

/// Why a message is expected.
#[derive(PartialEq, Eq, Hash)]
enum Expected {
    /// It answers what we sent under this index.
    Index(u32),
    /// A peer is there.
    Endpoint(IpAddr, u16),
}

struct State {
    cookies: Cookies,
    proven: RateLimiter<Unit>,
    expected: RateLimiter<Expected>,
    strangers: RateLimiter<Unit>,
    quiet_strangers: TokenBucket,
    all_strangers: TokenBucket,
    quiet_cookie_replies: TokenBucket,
    cookie_replies: RateLimiter<Unit>,
    all_cookie_replies: TokenBucket,
    spare_cookie_replies: TokenBucket,
    /// The MAC1 of messages that were heard, each in the place that it chooses itself.
    heard: Box<[Option<[u8; MAC_SIZE]>]>,
    /// Where peers are, and when that was so. Nothing while there is no load.
    peer_endpoints: Option<(u64, HashSet<(IpAddr, u16)>)>,
    /// Who has sent lately. Nothing two minutes after the last load.
    recent: Option<RecentSources>,
}

/// What becomes of a message that is not heard under load.
enum Refusal {
    /// It has a cookie.
    Final,
    /// A cookie reply, if there are any left; and whether its source had been quiet.
    MayAsk { was_quiet: bool },
}

impl Default for State {
    fn default() -> Self {
        Self {
            cookies: Cookies::default(),
            proven: RateLimiter::new(PROVEN, MAX_RATE_LIMITED_SOURCES),
            expected: RateLimiter::new(UNPROVEN, MAX_RATE_LIMITED_SOURCES),
            strangers: RateLimiter::new(UNPROVEN, MAX_STRANGERS),
            quiet_strangers: TokenBucket::new(QUIET_STRANGERS),
            all_strangers: TokenBucket::new(ALL_STRANGERS),
            quiet_cookie_replies: TokenBucket::new(QUIET_COOKIE_REPLIES),
            cookie_replies: RateLimiter::new(PROVEN, MAX_COOKIE_REPLY_SOURCES),
            all_cookie_replies: TokenBucket::new(ALL_COOKIE_REPLIES),
            spare_cookie_replies: TokenBucket::new(SPARE_COOKIE_REPLIES),
            heard: vec![None; MAX_HEARD_HANDSHAKES].into_boxed_slice(),
            peer_endpoints: None,
            recent: None,
        }
    }
}

impl Gate {
    /// Check MACs with these keys from now on; what was known of senders is forgotten.
    pub fn set_keys(&self, keys: Option<Keys>) {
        *self.keys.write() = keys;
        *self.state.lock() = State::default();
    }

    /// So many initiations and responses wait.
    pub fn note_queued(&self, queued: usize, now_ns: u64) {
        if queued >= UNDER_LOAD_QUEUE_DEPTH {
            let until_ns = now_ns + UNDER_LOAD_STICKY_NS;
            self.under_load_until_ns.store(until_ns, Relaxed);
        }
    }

    /// Whether messages must prove where they come from.
    pub fn is_under_load(&self, now_ns: u64) -> bool {
        now_ns < self.under_load_until_ns.load(Relaxed)
    }

    /// How many cookie replies were made.
    pub fn cookies_sent(&self) -> u64 {
        self.cookies_sent.load(Relaxed)
    }

    /// Judge an initiation, or a response to what we sent under `answers`.
    ///
    /// `peer_endpoints` says where peers are; it is asked at most once a second, under load only, and
    /// none of the gate's locks that others need is held then.
    pub fn judge(
        &self,
        datagram: &[u8],
        source: SocketAddr,
        answers: Option<u32>,
        peer_endpoints: impl FnOnce() -> HashSet<(IpAddr, u16)>,
        now_ns: u64,
        drops: &Drops,
    ) -> Verdict {
        let keys = self.keys.read();
        let Some(keys) = keys.as_ref().filter(|keys| has_mac1(&keys.mac1, datagram)) else {
            drops.wrong_mac1.count();
            return Verdict::Drop;
        };
        let is_under_load = self.is_under_load(now_ns);
        self.locate_peers(is_under_load, peer_endpoints, now_ns);
        // A MAC1 that was right tells messages apart, and is no secret.
        let fingerprint = mac1(datagram);
        let mut state = self.state.lock();
        if state.heard[place(fingerprint)] == Some(fingerprint) {
            drops.repeated_handshake.count();
            return Verdict::Drop;
        }
        let lane = if is_under_load {
            state.lane(datagram, source, answers, now_ns)
        } else {
            Ok(Lane::Strangers)
        };
        match lane {
            Ok(lane) => {
                state.heard[place(fingerprint)] = Some(fingerprint);
                Verdict::Hear(lane)
            }
            Err(refusal) => {
                drops.under_load.count();
                let Refusal::MayAsk { was_quiet } = refusal else {
                    return Verdict::Drop;
                };
                if !state.may_answer(source, was_quiet, now_ns) {
                    return Verdict::Drop;
                }
                let reply = (state.cookies).reply(&keys.reply, datagram, source, now_ns);
                reply.map_or(Verdict::Drop, |reply| {
                    self.cookies_sent.fetch_add(1, Relaxed);
                    Verdict::Answer(reply)
                })
            }
        }
    }

    /// Know where peers are, under load only. Of many that takes long, and so does forgetting it:
    /// another thread meanwhile goes by what was known before.
    fn locate_peers(
        &self,
        is_under_load: bool,
        peer_endpoints: impl FnOnce() -> HashSet<(IpAddr, u16)>,
        now_ns: u64,
    ) {
        let mut unused = None;
        let former = if !is_under_load {
            let mut state = self.state.lock();
            unused = (state.recent).take_if(|recent| recent.is_outdated(now_ns));
            state.peer_endpoints.take()
        } else if self.state.lock().begin_lookup(now_ns) {
            let known = (now_ns, peer_endpoints());
            self.state.lock().peer_endpoints.replace(known)
        } else {
            None
        };
        drop((former, unused)); // not while the lock is held
    }

    /// Whether a cookie reply to what we sent under `index` is worth a look.
    pub fn judge_cookie_reply(&self, index: u32, now_ns: u64) -> bool {
        (self.state.lock().expected).allow(Expected::Index(index), now_ns)
    }
}

impl State {
    /// Where a message waits under load, if anywhere.
    fn lane(
        &mut self,
        datagram: &[u8],
        source: SocketAddr,
        answers: Option<u32>,
        now_ns: u64,
    ) -> Result<Lane, Refusal> {
        let is_proven = self.cookies.has_mac2(datagram, source, now_ns);
        if is_proven && self.proven.allow(unit(source), now_ns) {
            return Ok(Lane::Proven);
        }
        let endpoint = (source.ip(), source.port());
        let expected = match answers {
            Some(index) => Some(Expected::Index(index)),
            None => (self.peer_endpoints.as_ref())
                .is_some_and(|(_, known)| known.contains(&endpoint))
                .then_some(Expected::Endpoint(endpoint.0, endpoint.1)),
        };
        if expected.is_some_and(|expected| self.expected.allow(expected, now_ns)) {
            return Ok(Lane::Expected);
        }
        if is_proven {
            return Err(Refusal::Final);
        }
        let was_quiet = (self.recent)
            .get_or_insert_with(|| RecentSources::new(now_ns))
            .was_quiet(&unit(source), now_ns);
        let budget = if was_quiet && self.quiet_strangers.has_token(now_ns) {
            &mut self.quiet_strangers
        } else {
            &mut self.all_strangers
        };
        if budget.has_token(now_ns) && self.strangers.allow(unit(source), now_ns) {
            budget.take();
            return Ok(Lane::Strangers);
        }
        Err(Refusal::MayAsk { was_quiet })
    }

    /// Whether the caller must find out where peers are now; nobody else will.
    fn begin_lookup(&mut self, now_ns: u64) -> bool {
        if let Some((known_ns, _)) = &self.peer_endpoints
            && now_ns.saturating_sub(*known_ns) < PEER_ENDPOINTS_LIFETIME_NS
        {
            return false;
        }
        self.peer_endpoints.get_or_insert_default().0 = now_ns;
        true
    }

    /// Whether a source may be sent a cookie reply now; takes its token if so.
    fn may_answer(&mut self, source: SocketAddr, was_quiet: bool, now_ns: u64) -> bool {
        let budget = if was_quiet && self.quiet_cookie_replies.has_token(now_ns) {
            &mut self.quiet_cookie_replies
        } else if self.all_cookie_replies.has_token(now_ns)
            && self.cookie_replies.allow(unit(source), now_ns)
        {
            &mut self.all_cookie_replies
        } else {
            // Perhaps the source was forged, and this is who is really there.
            &mut self.spare_cookie_replies
        };
        let may_answer = budget.has_token(now_ns);
        if may_answer {
            budget.take();
        }
        may_answer
    }
}

/// The place in `heard` of a MAC1: senders can choose it, and thereby at most be heard again.
fn place(fingerprint: [u8; MAC_SIZE]) -> usize {
    usize::from(u16::from_le_bytes([fingerprint[0], fingerprint[1]])) % MAX_HEARD_HANDSHAKES
}

fn unit(source: SocketAddr) -> Unit {
    match source {
        SocketAddr::V4(v4) => Unit::V4(v4.ip().octets()),
        SocketAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h, ..] = v6.ip().octets();
            Unit::V6([a, b, c, d, e, f, g, h])
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const NOW_NS: u64 = 3_600_000_000_000;
    const LIFETIME_NS: u64 = 1_000_000_000;

    /// An initiation like no other, of the right form.
    fn initiation(key: &[u8; 32], number: u8) -> [u8; 148] {
        use blake2::digest::{Mac, consts::U16};

        let mut datagram = [number; 148];
        datagram[116..].fill(0);
        let mut mac = blake2::Blake2sMac::<U16>::new_from_slice(key).unwrap();
        mac.update(&datagram[..116]);
        datagram[116..132].copy_from_slice(&mac.finalize().into_bytes());
        datagram
    }

    #[test]
    fn nobody_waits_for_where_peers_are() {
        let (gate, drops) = (Gate::default(), Drops::default());
        gate.set_keys(Some(Keys {
            mac1: Zeroizing::new([1; 32]),
            reply: Zeroizing::new([2; 32]),
        }));
        let source: SocketAddr = "192.0.2.1:9".parse().unwrap();
        let asked = Cell::new(0);
        let judge = |number: u8, now_ns: u64| {
            let peer_endpoints = || {
                assert!(gate.state.try_lock().is_some());
                asked.set(asked.get() + 1);
                HashSet::from([(source.ip(), source.port())])
            };
            let datagram = initiation(&[1; 32], number);
            gate.judge(&datagram, source, None, peer_endpoints, now_ns, &drops)
        };

        judge(1, NOW_NS);
        assert_eq!(asked.get(), 0, "there is no load");
        gate.note_queued(UNDER_LOAD_QUEUE_DEPTH, NOW_NS);
        for number in 2..4 {
            assert!(matches!(
                judge(number, NOW_NS),
                Verdict::Hear(Lane::Expected)
            ));
            assert_eq!(asked.get(), 1);
        }
        gate.note_queued(UNDER_LOAD_QUEUE_DEPTH, NOW_NS + LIFETIME_NS);
        judge(4, NOW_NS + LIFETIME_NS - 1);
        assert_eq!(asked.get(), 1);
        judge(5, NOW_NS + LIFETIME_NS);
        assert_eq!(asked.get(), 2);
        judge(6, NOW_NS + 3 * LIFETIME_NS);
        assert!(gate.state.lock().peer_endpoints.is_none());
    }
}
