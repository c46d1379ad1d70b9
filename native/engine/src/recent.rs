//! Who has sent lately, in memory that does not grow with their number.

use std::hash::{Hash, RandomState};
use std::mem::swap;

use fastbloom::BloomFilter;

/// A source is remembered for one to two of these after it has sent last, if not too many send.
const SOURCE_GENERATION_NS: u64 = 60_000_000_000;
/// With so many a generation is over at once.
const MAX_SOURCES: usize = 1 << 18;
/// 256 KiB: a filter that full takes one stranger in 20 for somebody it knows.
const BITS: usize = 1 << 21;
const HASHES: u32 = 2;

/// The sources of two generations, hashed with secret keys.
pub struct RecentSources {
    current: BloomFilter<RandomState>,
    former: BloomFilter<RandomState>,
    count: usize,
    began_ns: u64,
}

impl RecentSources {
    /// Nobody has sent.
    pub fn new(now_ns: u64) -> Self {
        let empty = || {
            BloomFilter::with_num_bits(BITS)
                .hasher(RandomState::new())
                .hashes(HASHES)
        };
        Self {
            current: empty(),
            former: empty(),
            count: 0,
            began_ns: now_ns,
        }
    }

    /// Whether a source that sends now had been quiet; rarely, one that had is not believed.
    pub fn was_quiet(&mut self, source: &impl Hash, now_ns: u64) -> bool {
        if self.is_outdated(now_ns) {
            self.begin(now_ns);
            self.begin(now_ns);
        } else if now_ns.saturating_sub(self.began_ns) >= SOURCE_GENERATION_NS {
            self.begin(self.began_ns + SOURCE_GENERATION_NS);
        } else if self.count >= MAX_SOURCES {
            self.begin(now_ns);
        }
        if self.current.insert(source) {
            return false;
        }
        self.count += 1;
        !self.former.contains(source)
    }

    /// Whether everybody it knows should be forgotten.
    pub fn is_outdated(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.began_ns) >= 2 * SOURCE_GENERATION_NS
    }

    fn begin(&mut self, now_ns: u64) {
        swap(&mut self.current, &mut self.former);
        self.current.clear();
        self.count = 0;
        self.began_ns = now_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_SOURCES, RecentSources, SOURCE_GENERATION_NS};

    const NOW_NS: u64 = 3_600_000_000_000;

    #[test]
    fn who_sends_is_known_for_a_while() {
        let mut recent = RecentSources::new(NOW_NS);
        assert!(recent.was_quiet(&1, NOW_NS));
        assert!(!recent.was_quiet(&1, NOW_NS + SOURCE_GENERATION_NS - 1));
        assert!(!recent.was_quiet(&1, NOW_NS + 2 * SOURCE_GENERATION_NS - 1));
        assert!(recent.was_quiet(&2, NOW_NS + 2 * SOURCE_GENERATION_NS - 1));
        assert!(recent.was_quiet(&1, NOW_NS + 4 * SOURCE_GENERATION_NS));
    }

    #[test]
    fn few_of_many_are_confused() {
        let mut recent = RecentSources::new(NOW_NS);
        let mut quiet = |numbers: std::ops::Range<usize>| {
            numbers
                .filter(|number| recent.was_quiet(number, NOW_NS))
                .count()
        };
        assert!(quiet(0..MAX_SOURCES) > MAX_SOURCES * 95 / 100);
        assert_eq!(quiet(0..1000), 0);
        assert!(quiet(MAX_SOURCES..3 * MAX_SOURCES) > 2 * MAX_SOURCES * 85 / 100);
        assert!(quiet(0..1000) > 850, "they were too many");
    }
}
