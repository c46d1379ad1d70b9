//! The sliding window that refuses a counter seen before or too old (RFC 6479; paper, 5.4.6).
//!
//! One bit per counter in a ring that is never shifted: moving on only clears the words that are
//! reused. The ring is one word longer than the window, so that a word which is being cleared
//! never holds a counter still in the window.

/// How far behind the greatest counter seen one may be.
pub const REPLAY_WINDOW: u64 = 8128;

const WORDS: usize = 128;
const WORD_BITS: u64 = 64;
const _: () = assert!((WORDS as u64 - 1) * WORD_BITS == REPLAY_WINDOW);

/// Which counters of one receiving key were seen. Ask only about packets that are authentic: one
/// forged counter could move the window.
pub struct ReplayWindow {
    greatest: u64,
    is_empty: bool,
    ring: [u64; WORDS],
}

impl ReplayWindow {
    /// A window that has seen nothing.
    pub const fn new() -> Self {
        Self {
            greatest: 0,
            is_empty: true,
            ring: [0; WORDS],
        }
    }

    /// Mark a counter as seen; false if it was before, or is too far behind.
    pub fn accept(&mut self, counter: u64) -> bool {
        let word = counter / WORD_BITS;
        if self.is_empty || counter > self.greatest {
            let newest = self.greatest / WORD_BITS;
            for reused in newest + 1..=word.min(newest + WORDS as u64) {
                self.ring[reused as usize % WORDS] = 0;
            }
            // Beyond a whole ring the loop has cleared all words, the one wanted included.
            self.greatest = counter;
            self.is_empty = false;
        } else if self.greatest - counter > REPLAY_WINDOW {
            return false;
        }
        let bit = 1 << (counter % WORD_BITS);
        let seen = &mut self.ring[word as usize % WORDS];
        let is_new = *seen & bit == 0;
        *seen |= bit;
        is_new
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_counter_once() {
        let mut window = ReplayWindow::new();
        for counter in [0, 1, 5, 3, 64, 63, 200] {
            assert!(window.accept(counter), "{counter}");
            assert!(!window.accept(counter), "{counter}");
        }
    }

    #[test]
    fn the_window_is_8128_wide() {
        let mut window = ReplayWindow::new();
        assert!(window.accept(10_000));
        assert!(window.accept(10_000 - 8128));
        assert!(!window.accept(10_000 - 8129));
    }

    #[test]
    fn a_leap_forgets_everything_behind_it() {
        let mut window = ReplayWindow::new();
        for counter in 0..9000 {
            assert!(window.accept(counter));
        }
        assert!(window.accept(u64::MAX / 2));
        for behind in 1..=8128 {
            assert!(window.accept(u64::MAX / 2 - behind), "{behind}");
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set(
            steps in prop::collection::vec(
                prop_oneof![Just(1_i64), -9000_i64..9000, Just(8192), Just(-8128)], 1..300)
        ) {
            let mut window = ReplayWindow::new();
            let (mut seen, mut greatest, mut at) = (BTreeSet::new(), 0_u64, 20_000_i64);
            for step in steps {
                at = (at + step).max(0);
                let counter = at as u64;
                let expected = counter + 8128 >= greatest && !seen.contains(&counter);
                prop_assert_eq!(window.accept(counter), expected);
                if expected {
                    seen.insert(counter);
                    greatest = greatest.max(counter);
                }
            }
        }
    }
}
