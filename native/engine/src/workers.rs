//! The threads: for each TUN queue one that reads it, and one that reads a share of the sockets.
//!
//! Each sleeps in poll(2) until its descriptors are readable, and works until they are empty: no
//! thread wakes up without work. Order within a flow is kept because the kernel gives a flow
//! always to the same queue, a peer's datagrams always to the same socket, and one thread alone
//! reads each.
//!
//! A thread's own descriptor wakes it up for the end, or for other sockets.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

use crate::engine::{Engine, Senders};
use crate::events::Wakeup;
use crate::inbound::Inbound;
use crate::io::{Socket, Tun};
use crate::outbound::{Drained, Outbound};
use crate::tun::DescriptorTun;
use crate::udp::DescriptorSocket;

/// A descriptor in an error state stays readable: so often in a row it may fail, then comes a
/// pause.
const MAX_FAILURES: u32 = 10;
const PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Receives from one socket after which a thread looks at the others.
const DRAINS_AT_ONCE: usize = 16;

/// What a thread does until the end, with a TUN queue and the number that both have.
type Way = fn(&Shared, &DescriptorTun, usize);

/// The running threads of an engine. Dropping it ends them.
pub struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    engine: Arc<Engine>,
    is_ending: AtomicBool,
    /// By outbound thread.
    outbound_wakeups: Vec<Wakeup>,
    /// By inbound thread.
    inbound_wakeups: Vec<Wakeup>,
    shares: Mutex<Shares>,
    /// Notified when an inbound thread has let go of what it had.
    released: Condvar,
}

/// Which inbound thread reads which sockets.
#[derive(Default)]
struct Shares {
    version: u64,
    sockets: Vec<Vec<Arc<DescriptorSocket>>>,
    /// By thread: the version it follows.
    followed: Vec<u64>,
}

impl Workers {
    /// Start two threads for each queue of a TUN device.
    pub fn start(engine: Arc<Engine>, queues: Vec<DescriptorTun>) -> io::Result<Self> {
        let wakeups = |_| Wakeup::new();
        let shared = Arc::new(Shared {
            engine,
            is_ending: AtomicBool::new(false),
            outbound_wakeups: queues.iter().map(wakeups).collect::<io::Result<_>>()?,
            inbound_wakeups: queues.iter().map(wakeups).collect::<io::Result<_>>()?,
            shares: Mutex::new(Shares {
                sockets: vec![Vec::new(); queues.len()],
                followed: vec![0; queues.len()],
                ..Shares::default()
            }),
            released: Condvar::new(),
        });
        let mut workers = Self {
            shared,
            threads: Vec::new(),
        };
        for (number, queue) in queues.into_iter().enumerate() {
            let queue = Arc::new(queue);
            if number == 0 {
                let tun: Arc<dyn Tun> = queue.clone();
                workers.shared.engine.refusals.set_tun(Some(tun));
            }
            let ways: [(&str, Way); 2] = [("out", read_tun), ("in", read_sockets)];
            for (name, way) in ways {
                let (shared, queue) = (workers.shared.clone(), queue.clone());
                let thread = thread::Builder::new()
                    .name(format!("wgd-{name}-{number}"))
                    .spawn(move || shared.run(|| way(&shared, &queue, number)))?;
                workers.threads.push(thread);
            }
        }
        Ok(workers)
    }

    /// Read and send through these sockets from now on; those before are closed when this returns.
    pub fn attach_sockets(&self, sockets: Vec<DescriptorSocket>) {
        let shared = &*self.shared;
        let sockets: Vec<_> = sockets.into_iter().map(Arc::new).collect();
        let first = |is_ipv6: bool| {
            let found = sockets.iter().find(|socket| is_ipv6 == socket.is_ipv6());
            found.map(|socket| socket.clone() as Arc<dyn Socket>)
        };
        shared.engine.set_senders(Senders {
            v4: first(false),
            v6: first(true),
        });

        let mut shares = shared.shares.lock();
        let threads = shares.sockets.len();
        let mut dealt = vec![Vec::new(); threads];
        let mut of_family = [0, 0];
        for socket in sockets {
            let number = &mut of_family[usize::from(socket.is_ipv6())];
            dealt[*number % threads].push(socket);
            *number += 1;
        }
        shares.sockets = dealt;
        shares.version += 1;
        for wakeup in &shared.inbound_wakeups {
            wakeup.set();
        }
        let version = shares.version;
        while shares.followed.iter().any(|followed| *followed < version) {
            shared.released.wait(&mut shares);
        }
        drop(shares);
        shared.engine.sockets_replaced();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.is_ending.store(true, Ordering::Release);
        let shared = &self.shared;
        for wakeup in shared
            .outbound_wakeups
            .iter()
            .chain(&shared.inbound_wakeups)
        {
            wakeup.set();
        }
        for thread in self.threads.drain(..) {
            // It cannot have panicked: `run` catches that.
            let _ = thread.join();
        }
        self.shared.engine.set_senders(Senders::default());
        self.shared.engine.refusals.set_tun(None);
    }
}

impl Shared {
    /// Run a thread to its end. Should it fail, the tunnel is not served any more, and the control
    /// plane is told.
    fn run(&self, body: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            self.engine
                .close_tun("a thread of the data plane has failed");
        }
    }

    fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Acquire)
    }

    /// Let go of the sockets at hand and take the present ones.
    fn follow(&self, number: usize, sockets: &mut Vec<Arc<DescriptorSocket>>) {
        sockets.clear();
        let mut shares = self.shares.lock();
        sockets.clone_from(&shares.sockets[number]);
        shares.followed[number] = shares.version;
        self.released.notify_all();
    }
}

fn read_tun(shared: &Shared, tun: &DescriptorTun, number: usize) {
    let mut outbound = Outbound::new();
    let wakeup = shared.outbound_wakeups[number].as_fd();
    let mut failures = Failures::default();
    let mut is_in_error = false;
    while !shared.is_ending() && !shared.engine.is_tun_closed() {
        let drained = outbound.drain(&shared.engine, tun, boot_ns());
        if failures.count(&drained, is_in_error) {
            wait(&[wakeup], Some(&PAUSE));
        }
        is_in_error = match drained {
            Ok(Drained::Nothing | Drained::Empty) => {
                is_error(wait(&[tun.as_fd(), wakeup], None)[0])
            }
            Ok(Drained::Partly) | Err(_) => false,
        };
    }
}

fn read_sockets(shared: &Shared, tun: &DescriptorTun, number: usize) {
    /// Says, however this ends, that the thread uses no socket any more.
    struct LettingGo<'shared>(&'shared Shared, usize);
    impl Drop for LettingGo<'_> {
        fn drop(&mut self) {
            self.0.shares.lock().followed[self.1] = u64::MAX;
            self.0.released.notify_all();
        }
    }
    let _last = LettingGo(shared, number);

    let mut inbound = Inbound::new();
    let wakeup = &shared.inbound_wakeups[number];
    let mut sockets = Vec::new();
    let mut failures = Vec::new();
    while !shared.is_ending() {
        let fds: Vec<_> = sockets
            .iter()
            .map(|socket: &Arc<DescriptorSocket>| socket.as_fd())
            .chain([wakeup.as_fd()])
            .collect();
        let ready = wait(&fds, None);
        if ready.last().is_some_and(|flags| !flags.is_empty()) {
            wakeup.clear();
            shared.follow(number, &mut sockets);
            failures = vec![Failures::default(); sockets.len()];
            continue;
        }
        let mut is_pause_due = false;
        for ((socket, flags), failures) in sockets.iter().zip(&ready).zip(&mut failures) {
            if flags.is_empty() {
                continue;
            }
            for _ in 0..DRAINS_AT_ONCE {
                let drained = inbound.drain(&shared.engine, &**socket, tun, boot_ns());
                is_pause_due |= failures.count(&drained, is_error(*flags));
                if !matches!(drained, Ok(Drained::Partly)) {
                    break;
                }
            }
        }
        if is_pause_due {
            wait(&[wakeup.as_fd()], Some(&PAUSE));
        }
    }
}

/// How often in a row a descriptor has failed.
#[derive(Clone, Copy, Default)]
struct Failures(u32);

impl Failures {
    /// Count; true if it is time for a pause. That nothing is there is a failure only of a
    /// descriptor that is said to be in error: it will be said again at once.
    fn count(&mut self, drained: &io::Result<Drained>, is_in_error: bool) -> bool {
        match drained {
            Ok(Drained::Nothing) if is_in_error => self.0 += 1,
            Ok(_) => self.0 = 0,
            Err(_) => self.0 += 1,
        }
        self.0 >= MAX_FAILURES
    }
}

fn is_error(flags: PollFlags) -> bool {
    flags.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL)
}

/// Wait until one of them is readable or in error; return what each is. None is anything after the
/// timeout or a signal.
fn wait(fds: &[BorrowedFd<'_>], timeout: Option<&Timespec>) -> Vec<PollFlags> {
    let mut polled: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    match poll(&mut polled, timeout) {
        Ok(_) => polled.iter().map(PollFd::revents).collect(),
        Err(_) => vec![PollFlags::empty(); fds.len()],
    }
}

/// Nanoseconds since boot, suspended time included.
pub fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
