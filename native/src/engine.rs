//! The class `Engine`. What waits for threads lets Python go on meanwhile.

use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use wgd_engine::aead::Cipher;
use wgd_engine::engine::{Engine, Senders, UnknownPeer};
use wgd_engine::gate::Keys;
use wgd_engine::inbound::Inbound;
use wgd_engine::io::{Socket, Tun};
use wgd_engine::outbound::Outbound;
use wgd_engine::session::Keypair;
use wgd_engine::tun::DescriptorTun;
use wgd_engine::udp::DescriptorSocket;
use wgd_engine::workers::Workers;

use crate::convert::{
    EndpointTuple, endpoint_from, endpoint_tuple, event_tuple, key_from, os_error, prefix_from,
};
use crate::objects::{ObjectSocket, ObjectTun};

/// One device's data plane.
#[pyclass(frozen, name = "Engine", module = "wgd_native")]
pub struct PyEngine {
    engine: Arc<Engine>,
    was_started: AtomicBool,
    has_virtio_header: AtomicBool,
    workers: Mutex<Option<Workers>>,
    stepped: Mutex<Option<Stepped>>,
}

/// What is used without threads.
struct Stepped {
    tun: Arc<ObjectTun>,
    sockets: Vec<Arc<ObjectSocket>>,
    outbound: Outbound,
    inbound: Inbound,
}

fn known<T>(result: Result<T, UnknownPeer>) -> PyResult<T> {
    result.map_err(|UnknownPeer| PyKeyError::new_err("unknown peer"))
}

fn indices(py: Python<'_>, freed: Vec<u32>) -> PyResult<Bound<'_, PyTuple>> {
    PyTuple::new(py, freed)
}

fn borrow<'fd>(fd: RawFd) -> PyResult<BorrowedFd<'fd>> {
    if fd < 0 {
        return Err(PyValueError::new_err(format!("{fd} is not a descriptor")));
    }
    // SAFETY: not -1, and only duplicated before this call returns, while the caller has it open;
    // were it not open, duplicating it would fail.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

#[pymethods]
impl PyEngine {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self {
            engine: Arc::new(Engine::new().map_err(os_error)?),
            was_started: AtomicBool::new(false),
            has_virtio_header: AtomicBool::new(false),
            workers: Mutex::new(None),
            stepped: Mutex::new(None),
        })
    }

    // -- the outside world -----------------------------------------------------------------------

    #[pyo3(signature = (tun_fds, *, virtio_header_size, has_packet_information))]
    fn start(
        &self,
        py: Python<'_>,
        tun_fds: Vec<RawFd>,
        virtio_header_size: usize,
        has_packet_information: bool,
    ) -> PyResult<()> {
        if tun_fds.is_empty() {
            return Err(PyValueError::new_err("no TUN descriptor: give one or more"));
        }
        let queues = tun_fds
            .into_iter()
            .map(|fd| {
                let fd = borrow(fd)?;
                DescriptorTun::new(fd, virtio_header_size, has_packet_information).map_err(os_error)
            })
            .collect::<PyResult<_>>()?;
        if self.was_started.swap(true, Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err("the engine was started before"));
        }
        self.has_virtio_header
            .store(virtio_header_size > 0, Ordering::Relaxed);
        // Threads wait for no Python object: those of the steps are gone before there are any.
        *self.stepped.lock() = None;
        self.engine.set_senders(Senders::default());
        self.engine.refusals.set_tun(None);
        py.detach(|| {
            let workers = Workers::start(self.engine.clone(), queues).map_err(os_error)?;
            *self.workers.lock() = Some(workers);
            Ok(())
        })
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| {
            drop(self.workers.lock().take());
            self.engine.clear();
        });
        *self.stepped.lock() = None;
        self.engine.set_senders(Senders::default());
        self.engine.refusals.set_tun(None);
    }

    fn attach_sockets(&self, py: Python<'_>, sockets: Vec<(RawFd, bool, usize)>) -> PyResult<()> {
        let sockets = sockets
            .into_iter()
            .map(|(fd, is_ipv6, max_segments)| {
                let fd = borrow(fd)?;
                DescriptorSocket::new(fd, is_ipv6, max_segments).map_err(os_error)
            })
            .collect::<PyResult<_>>()?;
        py.detach(|| match &*self.workers.lock() {
            Some(workers) => {
                workers.attach_sockets(sockets);
                Ok(())
            }
            None => Err(PyRuntimeError::new_err("the engine is not running")),
        })
    }

    fn attach_objects(
        &self,
        tun: &Bound<'_, PyAny>,
        sockets: Vec<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let tun = Arc::new(ObjectTun::new(tun)?);
        self.has_virtio_header
            .store(tun.has_virtio_header(), Ordering::Relaxed);
        let sockets: Vec<_> = sockets
            .iter()
            .map(|socket| Ok(Arc::new(ObjectSocket::new(socket)?)))
            .collect::<PyResult<_>>()?;
        let first = |is_ipv6: bool| {
            let found = sockets.iter().find(|socket| socket.is_ipv6() == is_ipv6);
            found.map(|socket| socket.clone() as Arc<dyn Socket>)
        };
        self.engine.set_senders(Senders {
            v4: first(false),
            v6: first(true),
        });
        self.engine.sockets_replaced();
        self.engine.refusals.set_tun(Some(tun.clone()));
        *self.stepped.lock() = Some(Stepped {
            tun,
            sockets,
            outbound: Outbound::new(),
            inbound: Inbound::new(),
        });
        Ok(())
    }

    fn step_tun(&self, now_ns: u64) -> PyResult<bool> {
        let mut stepped = self.stepped.lock();
        let stepped = stepped.as_mut().ok_or_else(no_objects)?;
        if self.engine.is_tun_closed() {
            return Ok(true);
        }
        let result = (stepped.outbound).drain(&self.engine, &*stepped.tun, now_ns);
        Ok(result.is_ok())
    }

    fn step_socket(&self, index: usize, now_ns: u64) -> PyResult<bool> {
        let mut stepped = self.stepped.lock();
        let stepped = stepped.as_mut().ok_or_else(no_objects)?;
        let socket = stepped.sockets.get(index).cloned().ok_or_else(no_objects)?;
        let result = stepped
            .inbound
            .drain(&self.engine, &*socket, &*stepped.tun, now_ns);
        Ok(result.is_ok())
    }

    fn set_mtu(&self, mtu: usize) {
        self.engine.set_mtu(mtu);
    }

    // -- peers -----------------------------------------------------------------------------------

    fn add_peer(&self, peer: u64) {
        self.engine.add_peer(peer);
    }

    fn remove_peer<'py>(&self, py: Python<'py>, peer: u64) -> PyResult<Bound<'py, PyTuple>> {
        indices(py, known(self.engine.remove_peer(peer))?)
    }

    fn set_endpoint(&self, peer: u64, endpoint: EndpointTuple) -> PyResult<()> {
        known(self.engine.set_endpoint(peer, endpoint_from(&endpoint)?))
    }

    fn endpoint(&self, peer: u64) -> PyResult<Option<EndpointTuple>> {
        let endpoint = known(self.engine.endpoint(peer))?;
        Ok(endpoint.as_ref().map(endpoint_tuple))
    }

    fn clear_source(&self, peer: u64) -> PyResult<()> {
        known(self.engine.clear_source(peer))
    }

    fn add_allowed_ip(&self, peer: u64, address: &[u8], length: u8) -> PyResult<()> {
        let prefix = prefix_from(address, length)?;
        known(self.engine.add_allowed_ip(peer, prefix))
    }

    fn remove_allowed_ip(&self, peer: u64, address: &[u8], length: u8) -> PyResult<()> {
        let prefix = prefix_from(address, length)?;
        known(self.engine.remove_allowed_ip(peer, prefix))
    }

    // -- sessions --------------------------------------------------------------------------------

    #[expect(
        clippy::too_many_arguments,
        reason = "they are the fields of a keypair"
    )]
    fn install_keypair<'py>(
        &self,
        py: Python<'py>,
        peer: u64,
        local_index: u32,
        remote_index: u32,
        send_key: &[u8],
        receive_key: &[u8],
        is_initiator: bool,
        created_ns: u64,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let keypair = Keypair {
            local_index,
            remote_index,
            sealer: Cipher::new(&*key_from(send_key)?),
            opener: Cipher::new(&*key_from(receive_key)?),
            is_initiator,
            created_ns,
        };
        indices(py, known(self.engine.install_keypair(peer, keypair))?)
    }

    fn expire_keypairs(&self, peer: u64) -> PyResult<()> {
        known(self.engine.expire_keypairs(peer))
    }

    fn drop_keypairs<'py>(&self, py: Python<'py>, peer: u64) -> PyResult<Bound<'py, PyTuple>> {
        indices(py, known(self.engine.drop_keypairs(peer))?)
    }

    fn send_keepalive(&self, peer: u64, now_ns: u64) -> PyResult<()> {
        known(self.engine.send_keepalive(peer, now_ns))
    }

    fn send_staged(&self, peer: u64, now_ns: u64) -> PyResult<()> {
        known(self.engine.send_staged(peer, now_ns))
    }

    fn drop_staged(&self, peer: u64) -> PyResult<()> {
        known(self.engine.drop_staged(peer))
    }

    fn refuse_staged(&self, peer: u64, now_ns: u64) -> PyResult<()> {
        known(self.engine.refuse_staged(peer, now_ns))
    }

    fn set_send_counter(&self, peer: u64, counter: u64) -> PyResult<()> {
        known(self.engine.set_send_counter(peer, counter))
    }

    // -- stamps and counters ---------------------------------------------------------------------

    fn stamps(&self, peer: u64) -> PyResult<(u64, u64, u64, u64)> {
        let stamps = known(self.engine.stamps(peer))?;
        Ok((
            stamps.last_sent_ns,
            stamps.last_received_ns,
            stamps.first_data_sent_unanswered_ns,
            stamps.first_data_received_unanswered_ns,
        ))
    }

    fn counters(&self, peer: u64) -> PyResult<(u64, u64, u64, u64)> {
        let counters = known(self.engine.counters(peer))?;
        Ok((
            counters.sent_bytes,
            counters.received_bytes,
            counters.sent_packets,
            counters.received_packets,
        ))
    }

    fn faults(&self, peer: u64) -> PyResult<Vec<(&'static str, u64, u64, i32)>> {
        let faults = known(self.engine.faults(peer))?;
        let tuples = faults
            .iter()
            .map(|fault| (fault.reason.name(), fault.count, fault.last_ns, fault.errno));
        Ok(tuples.collect())
    }

    fn has_session(&self, peer: u64, now_ns: u64) -> PyResult<bool> {
        known(self.engine.has_session(peer, now_ns))
    }

    fn staged_packets(&self, peer: u64) -> PyResult<usize> {
        known(self.engine.staged_packets(peer))
    }

    fn disarm(&self, peer: u64) -> PyResult<()> {
        known(self.engine.disarm(peer))
    }

    fn clear_data_sent_unanswered(&self, peer: u64) -> PyResult<()> {
        known(self.engine.clear_data_sent_unanswered(peer))
    }

    fn clear_stamps(&self, peer: u64) -> PyResult<()> {
        known(self.engine.clear_stamps(peer))
    }

    // -- handshakes ------------------------------------------------------------------------------

    fn set_handshake_keys(&self, mac1: Option<&[u8]>, reply: Option<&[u8]>) -> PyResult<()> {
        let keys = match (mac1, reply) {
            (Some(mac1), Some(reply)) => Some(Keys {
                mac1: key_from(mac1)?,
                reply: key_from(reply)?,
            }),
            _ => None,
        };
        self.engine.gate.set_keys(keys);
        Ok(())
    }

    fn take_handshakes<'py>(
        &self,
        py: Python<'py>,
        limit: usize,
    ) -> Vec<(Bound<'py, PyBytes>, EndpointTuple)> {
        let messages = self.engine.inbox.take_handshakes(limit);
        messages
            .iter()
            .map(|message| {
                let datagram = PyBytes::new(py, &message.datagram);
                (datagram, endpoint_tuple(&message.source))
            })
            .collect()
    }

    fn load(&self, now_ns: u64) -> (bool, u64) {
        let gate = &self.engine.gate;
        (gate.is_under_load(now_ns), gate.cookies_sent())
    }

    fn send_to_peer(&self, peer: u64, datagram: &[u8], now_ns: u64) -> PyResult<bool> {
        known(self.engine.send_to_peer(peer, datagram, now_ns))
    }

    fn note_received(
        &self,
        peer: u64,
        length: u64,
        source: EndpointTuple,
        now_ns: u64,
    ) -> PyResult<()> {
        let source = endpoint_from(&source)?;
        known(self.engine.note_received(peer, length, source, now_ns))
    }

    // -- events ----------------------------------------------------------------------------------

    fn event_fd(&self) -> RawFd {
        self.engine.inbox.fd()
    }

    fn drain_events<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let events = self.engine.inbox.drain();
        events
            .into_iter()
            .map(|event| event_tuple(py, event))
            .collect()
    }

    fn drops<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = PyDict::new(py);
        for (name, count) in self.engine.drops.snapshot() {
            counts.set_item(name, count)?;
        }
        Ok(counts)
    }

    fn queue_depths(&self) -> (usize, usize) {
        self.engine.queue_depths()
    }

    fn offloads(&self) -> Vec<&'static str> {
        let has_virtio_header = self.has_virtio_header.load(Ordering::Relaxed);
        self.engine.offloads_in_use(has_virtio_header)
    }
}

fn no_objects() -> PyErr {
    PyRuntimeError::new_err("no such object is attached")
}
