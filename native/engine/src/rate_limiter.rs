//! Token buckets: one for each source in a bounded table, or one for all (paper, section 5.3).
//!
//! Tokens are nanoseconds: a message costs the time that one message earns.

use std::hash::Hash;

use lru::LruCache;

const SECOND_NS: u64 = 1_000_000_000;

/// How much is allowed: a burst, then a steady rate.
#[derive(Clone, Copy)]
pub struct Rate {
    /// Messages a second.
    pub per_second: u64,
    /// Messages at once after a while without any.
    pub burst: u64,
}

impl Rate {
    const fn cost_ns(self) -> u64 {
        SECOND_NS / self.per_second
    }

    const fn capacity_ns(self) -> u64 {
        self.cost_ns() * self.burst
    }
}

/// One bucket for everybody.
pub struct TokenBucket {
    rate: Rate,
    tokens_ns: u64,
    updated_ns: u64,
}

impl TokenBucket {
    /// A full one.
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            tokens_ns: rate.capacity_ns(),
            updated_ns: 0,
        }
    }

    /// Whether there is a token.
    pub fn has_token(&mut self, now_ns: u64) -> bool {
        let earned = now_ns.saturating_sub(self.updated_ns);
        self.tokens_ns = (self.tokens_ns.saturating_add(earned)).min(self.rate.capacity_ns());
        self.updated_ns = self.updated_ns.max(now_ns);
        self.tokens_ns >= self.rate.cost_ns()
    }

    /// Take one that there is.
    pub fn take(&mut self) {
        self.tokens_ns = self.tokens_ns.saturating_sub(self.rate.cost_ns());
    }
}

/// A bucket for each source; a full table allows no new source.
pub struct RateLimiter<K: Hash + Eq> {
    rate: Rate,
    most: usize,
    /// Tokens, and when they were counted. The most recently used comes first.
    buckets: LruCache<K, (u64, u64)>,
}

impl<K: Hash + Eq> RateLimiter<K> {
    /// Full buckets for everybody, of whom at most `most` are remembered.
    pub fn new(rate: Rate, most: usize) -> Self {
        Self {
            rate,
            most,
            buckets: LruCache::unbounded(),
        }
    }

    /// Whether a message of `source` may be handled now; takes its token if so.
    pub fn allow(&mut self, source: K, now_ns: u64) -> bool {
        self.forget_full_buckets(now_ns);
        let cost_ns = self.rate.cost_ns();
        if let Some((tokens_ns, updated_ns)) = self.buckets.get_mut(&source) {
            let earned = now_ns.saturating_sub(*updated_ns);
            *tokens_ns = (*tokens_ns + earned).min(self.rate.capacity_ns());
            *updated_ns = now_ns.max(*updated_ns);
            let is_allowed = *tokens_ns >= cost_ns;
            if is_allowed {
                *tokens_ns -= cost_ns;
            }
            return is_allowed;
        }
        if self.buckets.len() >= self.most {
            return false;
        }
        let left_ns = self.rate.capacity_ns() - cost_ns;
        self.buckets.put(source, (left_ns, now_ns));
        true
    }

    /// Drop what has been idle long enough to be full again: the same as not being there.
    fn forget_full_buckets(&mut self, now_ns: u64) {
        while let Some((_, (_, updated_ns))) = self.buckets.peek_lru() {
            if now_ns.saturating_sub(*updated_ns) < self.rate.capacity_ns() {
                return;
            }
            self.buckets.pop_lru();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Rate, RateLimiter, TokenBucket};

    const MILLISECOND: u64 = 1_000_000;
    const TWENTY: Rate = Rate {
        per_second: 20,
        burst: 5,
    };

    #[test]
    fn a_burst_of_five_and_then_one_every_fifty_milliseconds() {
        let mut limiter = RateLimiter::new(TWENTY, 10);
        let start = 7_000 * MILLISECOND;
        assert_eq!((0..10).filter(|_| limiter.allow(1, start)).count(), 5);
        assert!(limiter.allow(2, start));
        assert!(!limiter.allow(1, start + 49 * MILLISECOND));
        assert!(limiter.allow(1, start + 50 * MILLISECOND));
        assert!(!limiter.allow(1, start + 50 * MILLISECOND));
        assert!(!limiter.allow(1, start), "a thread whose clock is late");
    }

    #[test]
    fn the_table_is_bounded_and_forgets_idle_sources() {
        let mut limiter = RateLimiter::new(TWENTY, 100);
        for source in 0..100 {
            assert!(limiter.allow(source, 1));
        }
        assert!(!limiter.allow(100, 1));
        assert!(limiter.allow(5, 1), "one already known is still served");
        assert_eq!(limiter.buckets.len(), 100);
        assert!(limiter.allow(100, 1 + 250 * MILLISECOND));
        assert_eq!(limiter.buckets.len(), 1);
    }

    #[test]
    fn a_bucket_for_all_is_refilled_in_time() {
        let mut bucket = TokenBucket::new(TWENTY);
        for _ in 0..5 {
            assert!(bucket.has_token(1));
            bucket.take();
        }
        assert!(!bucket.has_token(1 + 49 * MILLISECOND));
        assert!(bucket.has_token(1 + 50 * MILLISECOND));
        bucket.take();
        assert!(!bucket.has_token(1 + 99 * MILLISECOND));
        assert!(!bucket.has_token(1), "a thread whose clock is late");
    }
}
