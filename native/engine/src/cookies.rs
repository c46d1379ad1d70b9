//! The receiver's side of cookies (paper, sections 5.4.4 and 5.4.7).

use std::net::SocketAddr;

use blake2::digest::{Mac, consts::U16};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

/// Bytes of MAC1, of MAC2 and of a cookie.
pub const MAC_SIZE: usize = 16;
/// Bytes of a cookie reply.
pub const COOKIE_REPLY_SIZE: usize = 64;

const SECRET_LIFETIME_NS: u64 = 120_000_000_000;
const NONCE_SIZE: usize = 24;
const COOKIE_REPLY: u32 = 3;

type Blake2sMac = blake2::Blake2sMac<U16>;

fn keyed(key: &[u8], data: &[u8]) -> Blake2sMac {
    let mut mac = Blake2sMac::new_from_slice(key).expect("16 or 32 bytes are a key");
    mac.update(data);
    mac
}

/// Whether MAC1 of an initiation or response is right, in constant time.
pub fn has_mac1(key: &[u8; 32], datagram: &[u8]) -> bool {
    let (covered, macs) = datagram.split_at(datagram.len() - 2 * MAC_SIZE);
    (keyed(key, covered).verify_slice(&macs[..MAC_SIZE])).is_ok()
}

/// MAC1 of an initiation or response.
pub fn mac1(datagram: &[u8]) -> [u8; MAC_SIZE] {
    let macs = &datagram[datagram.len() - 2 * MAC_SIZE..];
    macs[..MAC_SIZE].try_into().expect("16 bytes")
}

/// Makes cookies from a secret that changes every 120 seconds, and checks what is made with them.
#[derive(Default)]
pub struct Cookies {
    secret: Option<(Zeroizing<[u8; 32]>, u64)>,
}

impl Cookies {
    /// Whether MAC2 shows that the sender can read what is sent to this address and port.
    pub fn has_mac2(&mut self, datagram: &[u8], source: SocketAddr, now_ns: u64) -> bool {
        let (covered, proof) = datagram.split_at(datagram.len() - MAC_SIZE);
        if proof.iter().all(|byte| *byte == 0) {
            return false; // without a cookie; most are, and must be cheap
        }
        let Some(cookie) = self.cookie(source, now_ns) else {
            return false;
        };
        keyed(&*cookie, covered).verify_slice(proof).is_ok()
    }

    /// The cookie reply to an initiation or response from `source`; none if the system has no
    /// randomness.
    pub fn reply(
        &mut self,
        cookie_key: &[u8; 32],
        datagram: &[u8],
        source: SocketAddr,
        now_ns: u64,
    ) -> Option<[u8; COOKIE_REPLY_SIZE]> {
        if self.current(now_ns).is_none() {
            let mut secret = Zeroizing::new([0; 32]);
            getrandom::fill(&mut *secret).ok()?;
            self.secret = Some((secret, now_ns));
        }
        let mut nonce = [0; NONCE_SIZE];
        getrandom::fill(&mut nonce).ok()?;
        let mut sealed = self.cookie(source, now_ns)?;
        let cipher = XChaCha20Poly1305::new(&Key::from(*cookie_key));
        let tag = cipher
            .encrypt_inout_detached(
                &XNonce::from(nonce),
                &mac1(datagram),
                (&mut sealed[..]).into(),
            )
            .ok()?;
        let mut reply = [0; COOKIE_REPLY_SIZE];
        reply[..4].copy_from_slice(&COOKIE_REPLY.to_le_bytes());
        reply[4..8].copy_from_slice(&datagram[4..8]); // their sender index
        reply[8..32].copy_from_slice(&nonce);
        reply[32..48].copy_from_slice(&sealed[..]);
        reply[48..].copy_from_slice(&tag);
        Some(reply)
    }

    fn current(&mut self, now_ns: u64) -> Option<&[u8; 32]> {
        if let Some((_, born_ns)) = &self.secret
            && now_ns.saturating_sub(*born_ns) >= SECRET_LIFETIME_NS
        {
            self.secret = None;
        }
        self.secret.as_ref().map(|(secret, _)| &**secret)
    }

    fn cookie(&mut self, source: SocketAddr, now_ns: u64) -> Option<Zeroizing<[u8; MAC_SIZE]>> {
        let secret = self.current(now_ns)?;
        let mut mac = match source {
            SocketAddr::V4(v4) => keyed(secret, &v4.ip().octets()),
            SocketAddr::V6(v6) => keyed(secret, &v6.ip().octets()),
        };
        mac.update(&source.port().to_be_bytes());
        Some(Zeroizing::new(mac.finalize().into_bytes().into()))
    }
}
