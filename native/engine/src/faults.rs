//! What keeps happening to the packets of one peer: a count and the last time, by reason.

/// What can go wrong with a peer's packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The kernel refused to send to the peer's endpoint, or there is no socket of its family.
    SendFailed,
    /// It had no endpoint, and no prospect of one.
    NoEndpoint,
    /// Forged or damaged.
    NotAuthentic,
    /// Seen before, or too late.
    Replayed,
    /// The session is too old, or its counter at the limit.
    SessionExpired,
    /// The inner packet's source belongs to somebody else.
    NotAnAllowedIp,
    /// What was inside is not an IP packet.
    Malformed,
}

impl Reason {
    /// The name in wgd.diagnosis.
    pub fn name(self) -> &'static str {
        match self {
            Self::SendFailed => "send_failed",
            Self::NoEndpoint => "no_endpoint",
            Self::NotAuthentic => "packet_not_authentic",
            Self::Replayed => "packet_replayed",
            Self::SessionExpired => "session_expired",
            Self::NotAnAllowedIp => "not_an_allowed_ip",
            Self::Malformed => "malformed_packet",
        }
    }
}

/// How often it has happened, and when last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub reason: Reason,
    /// To how many packets.
    pub count: u64,
    /// Boot nanoseconds.
    pub last_ns: u64,
    /// What the system said last, 0 if it has no say.
    pub errno: i32,
}

/// The faults of a peer: each reason once. Takes no memory until something goes wrong.
#[derive(Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// It has happened to so many packets.
    pub fn note(&mut self, reason: Reason, count: usize, now_ns: u64, errno: i32) {
        let count = count as u64;
        match self.0.iter_mut().find(|fault| fault.reason == reason) {
            Some(fault) => {
                fault.count += count;
                fault.last_ns = now_ns;
                fault.errno = errno;
            }
            None => self.0.push(Fault {
                reason,
                count,
                last_ns: now_ns,
                errno,
            }),
        }
    }

    /// All of them.
    pub fn all(&self) -> &[Fault] {
        &self.0
    }
}
