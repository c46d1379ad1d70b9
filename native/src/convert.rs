//! Values on their way between Python and the engine.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use wgd_engine::allowed_ips::Prefix;
use wgd_engine::endpoint::{Endpoint, Source};
use wgd_engine::events::Event;
use zeroize::Zeroizing;

/// `(host, port, scope_id, source)`, and a source `(address, interface_index)`.
pub type EndpointTuple = (String, u16, u32, Option<(String, u32)>);

/// Raises ValueError for a text that is not a numeric address.
pub fn endpoint_from(tuple: &EndpointTuple) -> PyResult<Endpoint> {
    let (host, port, scope_id, source) = tuple;
    let address = match address_from(host)? {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), *port),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, *port, 0, *scope_id).into(),
    };
    let source = match source {
        None => None,
        Some((address, interface_index)) => Some(Source {
            address: address_from(address)?,
            interface_index: *interface_index,
        }),
    };
    Ok(Endpoint { address, source })
}

fn address_from(text: &str) -> PyResult<IpAddr> {
    text.parse()
        .map_err(|_| PyValueError::new_err(format!("{text:?} is not an IP address")))
}

/// The reverse of `endpoint_from`.
pub fn endpoint_tuple(endpoint: &Endpoint) -> EndpointTuple {
    let scope_id = match endpoint.address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(v6) => v6.scope_id(),
    };
    (
        endpoint.address.ip().to_string(),
        endpoint.address.port(),
        scope_id,
        endpoint
            .source
            .map(|source| (source.address.to_string(), source.interface_index)),
    )
}

/// Raises ValueError unless it is 4 or 16 bytes and a length that fits.
pub fn prefix_from(address: &[u8], length: u8) -> PyResult<Prefix> {
    let (address, bits): (IpAddr, u8) = if let Ok(v4) = <[u8; 4]>::try_from(address) {
        (v4.into(), 32)
    } else if let Ok(v6) = <[u8; 16]>::try_from(address) {
        (v6.into(), 128)
    } else {
        return Err(PyValueError::new_err(format!(
            "an address of {} bytes: give 4 or 16",
            address.len()
        )));
    };
    if length > bits {
        return Err(PyValueError::new_err(format!(
            "prefix length {length} is not in 0..{bits}"
        )));
    }
    Ok(Prefix { address, length })
}

/// Raises ValueError unless it is 32 bytes; what it is goes into no message.
pub fn key_from(bytes: &[u8]) -> PyResult<Zeroizing<[u8; 32]>> {
    <[u8; 32]>::try_from(bytes)
        .map(Zeroizing::new)
        .map_err(|_| PyValueError::new_err(format!("a key of {} bytes: give 32", bytes.len())))
}

/// An OSError with its errno and text, of the class that goes with it.
pub fn os_error(error: io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(number) => {
            let text = error.to_string();
            let text = text
                .split(" (os error")
                .next()
                .unwrap_or_default()
                .to_owned();
            PyOSError::new_err((number, text))
        }
        None => error.into(),
    }
}

/// An event as the stub describes it.
pub fn event_tuple(py: Python<'_>, event: Event) -> PyResult<Bound<'_, PyTuple>> {
    match event {
        Event::NeedsHandshake(peer) => ("needs_handshake", peer).into_pyobject(py),
        Event::BecameActive(peer) => ("became_active", peer).into_pyobject(py),
        Event::KeypairConfirmed {
            peer,
            local_index,
            freed_indices,
        } => (
            "keypair_confirmed",
            peer,
            local_index,
            PyTuple::new(py, freed_indices)?,
        )
            .into_pyobject(py),
        Event::TunClosed(reason) => ("tun_closed", reason).into_pyobject(py),
        Event::OffloadOff { name, reason } => ("offload_off", name, reason).into_pyobject(py),
    }
}
