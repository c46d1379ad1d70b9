//! ChaCha20-Poly1305 for transport messages (RFC 8439; WireGuard paper, section 5.4.6).
//!
//! ring's, because it was the fastest of those measured at 64 and 1424 bytes: docs/performance.md.

use std::mem::{MaybeUninit, needs_drop};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroize;

/// Bytes that sealing adds.
pub const TAG_SIZE: usize = 16;

/// One direction's key, erased when dropped. The nonce of a message is its counter.
pub struct Cipher {
    // Always initialized; `MaybeUninit` so that it may be overwritten with zeros at the end.
    key: Box<MaybeUninit<LessSafeKey>>,
}

// Overwriting a key is only enough if dropping it would have done nothing else.
const _: () = assert!(!needs_drop::<LessSafeKey>());

impl Cipher {
    /// A cipher with this key.
    pub fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("32 bytes are a key");
        Self {
            key: Box::new(MaybeUninit::new(LessSafeKey::new(key))),
        }
    }

    fn key(&self) -> &LessSafeKey {
        // SAFETY: initialized by `new`, and overwritten only by `drop`.
        unsafe { self.key.assume_init_ref() }
    }

    /// Encrypt a packet in place, and write its tag into the last `TAG_SIZE` bytes of `sealed`.
    pub fn seal(&self, counter: u64, sealed: &mut [u8]) {
        let (packet, room) = sealed.split_at_mut(sealed.len() - TAG_SIZE);
        let tag = self
            .key()
            .seal_in_place_separate_tag(nonce(counter), Aad::empty(), packet)
            .expect("a packet is shorter than 256 GiB");
        room.copy_from_slice(tag.as_ref());
    }

    /// Decrypt in place what `seal` made; false, and the bytes are worthless, if it is forged.
    pub fn open(&self, counter: u64, sealed: &mut [u8]) -> bool {
        self.key()
            .open_in_place(nonce(counter), Aad::empty(), sealed)
            .is_ok()
    }
}

impl Drop for Cipher {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_only_under_its_counter_and_key() {
        let sealer = Cipher::new(&[7; 32]);
        let mut sealed = [0; 20 + TAG_SIZE];
        sealed[..20].copy_from_slice(b"a packet of 20 bytes");
        sealer.seal(5, &mut sealed);
        assert_ne!(&sealed[..20], b"a packet of 20 bytes");
        assert!(!sealer.open(6, &mut sealed.clone()));
        assert!(!Cipher::new(&[8; 32]).open(5, &mut sealed.clone()));
        assert!(sealer.open(5, &mut sealed));
        assert_eq!(&sealed[..20], b"a packet of 20 bytes");
    }

    #[test]
    fn a_vector_of_another_library() {
        // RFC 8439 gives no vector with a zero prefix of the nonce and no associated data; this
        // one was made with OpenSSL 3: key 00..1f, counter 1, plaintext "wireguard".
        let key: [u8; 32] = std::array::from_fn(|n| n as u8);
        let mut sealed = [0; 9 + TAG_SIZE];
        sealed[..9].copy_from_slice(b"wireguard");
        Cipher::new(&key).seal(1, &mut sealed);
        assert_eq!(hex(&sealed), VECTOR);
    }

    const VECTOR: &str = "e83e813ad25fce6a4d5793a019fde71290c6e85bf3f640494f";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
