//! Python objects in place of descriptors: the `Tun` and `DatagramSocket` of
//! wgd.dataplane.interface, for the conformance suite and simulations. Speed does not matter here.

use std::io::{self, IoSlice};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};
use wgd_engine::endpoint::Endpoint;
use wgd_engine::io::{MESSAGES, Message, Received, Socket, Tun};
use wgd_engine::offload::{VIRTIO_HEADER_SIZE, VirtioHeader};

use crate::convert::{EndpointTuple, endpoint_from, endpoint_tuple};

/// Any `Tun`.
pub struct ObjectTun {
    object: Py<PyAny>,
    has_virtio_header: bool,
}

impl ObjectTun {
    pub fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let has_virtio_header = match object.getattr_opt("has_virtio_header")? {
            Some(value) => value.is_truthy()?,
            None => false,
        };
        Ok(Self {
            object: object.clone().unbind(),
            has_virtio_header,
        })
    }
}

impl Tun for ObjectTun {
    fn read(&self, packet: &mut [u8]) -> io::Result<(VirtioHeader, usize)> {
        Python::attach(|py| {
            let buffer = PyByteArray::new(py, &vec![0; packet.len() + VIRTIO_HEADER_SIZE]);
            let view = PyMemoryView::from(buffer.as_any())?;
            let length: usize = self
                .object
                .call_method1(py, "read_into", (view,))?
                .extract(py)?;
            let mut bytes = &buffer.to_vec()[..length];
            let mut header = VirtioHeader::default();
            if self.has_virtio_header {
                let Some((first, rest)) = bytes.split_first_chunk() else {
                    return Ok((header, 0));
                };
                header = VirtioHeader::from_bytes(first);
                bytes = rest;
            }
            let length = bytes.len().min(packet.len());
            packet[..length].copy_from_slice(&bytes[..length]);
            Ok((header, length))
        })
        .map_err(os_error)
    }

    fn write(&self, header: &VirtioHeader, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut packet = Vec::new();
        if self.has_virtio_header {
            packet.extend(header.to_bytes());
        }
        for part in parts {
            packet.extend_from_slice(part);
        }
        Python::attach(|py| {
            let bytes = PyBytes::new(py, &packet);
            let view = PyMemoryView::from(bytes.as_any())?;
            self.object.call_method1(py, "write", (view,))
        })
        .map(drop)
        .map_err(os_error)
    }

    fn has_virtio_header(&self) -> bool {
        self.has_virtio_header
    }

    fn switch_off_offloads(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Any `DatagramSocket`.
pub struct ObjectSocket {
    object: Py<PyAny>,
    is_ipv6: bool,
}

impl ObjectSocket {
    pub fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self {
            is_ipv6: object.getattr("is_ipv6")?.is_truthy()?,
            object: object.clone().unbind(),
        })
    }

    fn receive_one(&self, py: Python<'_>, slot: &mut [u8]) -> PyResult<Message> {
        let buffer = PyByteArray::new(py, &vec![0; slot.len()]);
        let view = PyMemoryView::from(buffer.as_any())?;
        let (length, segment_size, source, traffic_class): (usize, usize, EndpointTuple, u8) = self
            .object
            .call_method1(py, "receive_into", (view,))?
            .extract(py)?;
        slot[..length].copy_from_slice(&buffer.to_vec()[..length]);
        Ok(Message {
            length,
            segment_size,
            source: endpoint_from(&source)?,
            traffic_class,
            is_truncated: false,
        })
    }
}

impl Socket for ObjectSocket {
    fn is_ipv6(&self) -> bool {
        self.is_ipv6
    }

    fn max_segments(&self) -> usize {
        Python::attach(|py| self.object.getattr(py, "max_segments")?.extract(py)).unwrap_or(1)
    }

    fn send(&self, datagram: &[u8], endpoint: &Endpoint, traffic_class: u8) -> io::Result<()> {
        Python::attach(|py| {
            let datagram = PyBytes::new(py, datagram);
            let endpoint = to_python(py, endpoint)?;
            self.object
                .call_method1(py, "send", (datagram, endpoint, traffic_class))
        })
        .map(drop)
        .map_err(os_error)
    }

    fn send_segments(
        &self,
        datagrams: &[u8],
        size: usize,
        endpoint: &Endpoint,
        traffic_class: u8,
    ) -> io::Result<()> {
        Python::attach(|py| {
            let bytes = PyBytes::new(py, datagrams);
            let view = PyMemoryView::from(bytes.as_any())?;
            let endpoint = to_python(py, endpoint)?;
            self.object
                .call_method1(py, "send_segments", (view, size, endpoint, traffic_class))
        })
        .map(drop)
        .map_err(os_error)
    }

    fn receive(&self, received: &mut Received) -> io::Result<()> {
        received.messages.clear();
        let mut messages = Vec::with_capacity(MESSAGES);
        Python::attach(|py| {
            for slot in received.slots() {
                match self.receive_one(py, slot) {
                    Ok(message) => messages.push(message),
                    Err(error) if messages.is_empty() => return Err(os_error(error)),
                    Err(_) => break,
                }
            }
            Ok(())
        })?;
        received.messages = messages;
        Ok(())
    }

    fn switch_off_gro(&self) -> io::Result<()> {
        Ok(())
    }
}

/// An `Endpoint` of wgd.addresses: objects in Python look at its names.
fn to_python<'py>(py: Python<'py>, endpoint: &Endpoint) -> PyResult<Bound<'py, PyAny>> {
    let addresses = py.import("wgd.addresses")?;
    let (host, port, scope_id, source) = endpoint_tuple(endpoint);
    let source = match source {
        None => py.None().into_bound(py),
        Some(source) => addresses.getattr("Source")?.call1(source)?,
    };
    addresses
        .getattr("Endpoint")?
        .call1((host, port, scope_id, source))
}

/// The errno of an OSError; anything else is a mistake of the object's, and becomes EIO.
fn os_error(error: PyErr) -> io::Error {
    Python::attach(|py| {
        let number: Option<i32> = error
            .is_instance_of::<PyOSError>(py)
            .then(|| error.value(py).getattr("errno").ok()?.extract().ok())
            .flatten();
        match number {
            Some(number) => io::Error::from_raw_os_error(number),
            None => {
                error.write_unraisable(py, None);
                io::Error::other("a Python object failed")
            }
        }
    })
}
