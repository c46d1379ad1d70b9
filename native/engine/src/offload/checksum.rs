//! The Internet checksum (RFC 1071): partial sums that can be joined, changed and finished.
//!
//! Words are added as the machine reads them. The one's complement sum of swapped words is the
//! swapped sum, so only the way in and out of a `Sum` knows about byte order (RFC 1071, 2 (B)).

/// The one's complement sum of some 16-bit words, not yet folded.
///
/// It has room for millions of additions: `of` leaves less than 2^37 in it, `plus` adds 2^16.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Add up `bytes`; an odd last byte counts as if a zero followed it.
    pub fn of(bytes: &[u8]) -> Self {
        // Four chains of add-with-carry, so that no addition waits for the one before it.
        let (blocks, rest) = bytes.as_chunks::<64>();
        let mut chains = [0_u64; 4];
        for block in blocks {
            let (words, _) = block.as_chunks::<8>();
            for (index, word) in words.iter().enumerate() {
                let chain = &mut chains[index % 4];
                let (sum, carry) = chain.overflowing_add(u64::from_ne_bytes(*word));
                *chain = sum + u64::from(carry);
            }
        }
        let (halves, rest) = rest.as_chunks::<4>();
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        let halves = halves.iter().chain([&last]);
        let short: u64 = halves
            .map(|half| u64::from(u32::from_ne_bytes(*half)))
            .sum();
        // 2^32 is 1 in one's complement: both halves of a chain count the same.
        let long: u64 = chains
            .iter()
            .map(|chain| (chain >> 32) + (chain & 0xffff_ffff))
            .sum();
        Self(short + long)
    }

    /// Add a number that a packet holds in network byte order.
    #[must_use]
    pub fn plus(self, word: u16) -> Self {
        Self(self.0 + u64::from(word.to_be()))
    }

    /// Take a number away that was added.
    #[must_use]
    pub fn minus(self, word: u16) -> Self {
        // Adding the complement is subtracting.
        self.plus(!word)
    }

    /// Add the sum of bytes that begin an even number of bytes after these.
    #[must_use]
    pub fn join(self, next: Self) -> Self {
        Self(self.0 + next.0)
    }

    /// Add the sum of bytes that begin an odd number of bytes after these.
    #[must_use]
    pub fn join_odd(self, next: Self) -> Self {
        Self(self.0 + u64::from(next.native().swap_bytes()))
    }

    /// The sum as a packet holds it: what belongs into a checksum field to be completed later.
    pub fn folded(self) -> u16 {
        u16::from_be(self.native())
    }

    /// The checksum: the complement of the sum.
    pub fn checksum(self) -> u16 {
        !self.folded()
    }

    /// Whether bytes that include their checksum sum up as they should.
    pub fn is_right(self) -> bool {
        self.native() == 0xffff
    }

    fn native(self) -> u16 {
        let sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        let sum = (sum >> 16) + (sum & 0xffff);
        ((sum >> 16) + (sum & 0xffff)) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 section 1, byte by byte.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0_u64;
        for (index, byte) in bytes.iter().enumerate() {
            sum += u64::from(*byte) << if index % 2 == 0 { 8 } else { 0 };
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn gives_the_sum_of_the_rfc() {
        // RFC 1071 section 3.
        let sum = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), 0xddf2);
        assert_eq!(sum.checksum(), 0x220d);
    }

    #[test]
    fn agrees_with_the_plain_sum_at_every_length() {
        let bytes = noise(600);
        for length in 0..bytes.len() {
            assert_eq!(
                Sum::of(&bytes[..length]).folded(),
                plain(&bytes[..length]),
                "{length}"
            );
        }
        assert_eq!(Sum::of(&noise(65535)).folded(), plain(&noise(65535)));
    }

    #[test]
    fn carries_out_of_every_chain() {
        for length in [64, 128, 63, 65, 65534, 65535] {
            let ones = vec![0xff; length];
            assert_eq!(Sum::of(&ones).folded(), plain(&ones), "{length}");
        }
    }

    #[test]
    fn parts_join_at_even_and_odd_places() {
        let bytes = noise(301);
        let whole = Sum::of(&bytes).folded();
        for cut in 0..bytes.len() {
            let (head, tail) = (Sum::of(&bytes[..cut]), Sum::of(&bytes[cut..]));
            let joined = if cut % 2 == 0 {
                head.join(tail)
            } else {
                head.join_odd(tail)
            };
            assert_eq!(joined.folded(), whole, "{cut}");
        }
    }

    #[test]
    fn a_word_can_be_exchanged() {
        let mut bytes = noise(40);
        let before = Sum::of(&bytes);
        let old = u16::from_be_bytes([bytes[6], bytes[7]]);
        bytes[6..8].copy_from_slice(&0x1234_u16.to_be_bytes());
        assert_eq!(
            before.minus(old).plus(0x1234).folded(),
            Sum::of(&bytes).folded()
        );
    }

    #[test]
    fn bytes_with_their_checksum_are_right() {
        let mut bytes = noise(80);
        bytes[10..12].fill(0);
        let checksum = Sum::of(&bytes).checksum();
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        assert!(Sum::of(&bytes).is_right());
        bytes[3] ^= 1;
        assert!(!Sum::of(&bytes).is_right());
    }
}
