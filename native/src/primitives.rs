//! The primitives of handshakes, for wgd.noise.primitives: no opinion about the protocol here.
//!
//! X25519 and ChaCha20-Poly1305 are graviola's, BLAKE2s is RustCrypto's. Nothing is done for a
//! processor that graviola does not know: `HAS_PRIMITIVES` is false, and wgd uses other libraries.

use blake2::digest::consts::U16;
use blake2::{Blake2s256, Blake2sMac, Digest};
use graviola::aead::ChaCha20Poly1305;
use graviola::key_agreement::x25519::{PublicKey, StaticPrivateKey};
use hmac::{Mac, SimpleHmac};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use zeroize::Zeroizing;

use crate::convert::key_from;

const TAG_SIZE: usize = 16;

type Pair<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>);
type Triple<'py> = (
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
);

/// An X25519 private key; overwritten when it goes.
#[pyclass(frozen, module = "wgd_native")]
pub struct PrivateKey {
    key: StaticPrivateKey,
    #[pyo3(get)]
    public_key: Py<PyBytes>,
}

#[pymethods]
impl PrivateKey {
    #[new]
    fn new(py: Python<'_>, private_key: &[u8]) -> PyResult<Self> {
        let key = StaticPrivateKey::from_array(&*key_from(private_key)?);
        let public_key = PyBytes::new(py, &key.public_key().as_bytes()).unbind();
        Ok(Self { key, public_key })
    }

    fn dh<'py>(&self, py: Python<'py>, public_key: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let public_key = PublicKey::try_from_slice(public_key)
            .map_err(|_| PyValueError::new_err("a public key is 32 bytes"))?;
        // graviola refuses the result of a low-order key, after a comparison in constant time.
        let secret = self.key.diffie_hellman(&public_key);
        let secret = secret.map_err(|_| PyValueError::new_err("low-order public key"))?;
        Ok(PyBytes::new(py, &secret.0))
    }

    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &*Zeroizing::new(self.key.as_bytes()))
    }

    fn __repr__(&self) -> &'static str {
        "PrivateKey(...)"
    }
}

#[pyfunction]
fn blake2s<'py>(py: Python<'py>, data: &[u8]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &Blake2s256::digest(data))
}

#[pyfunction]
fn mac<'py>(py: Python<'py>, key: &[u8], data: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let mut mac = <Blake2sMac<U16> as Mac>::new_from_slice(key)
        .map_err(|_| PyValueError::new_err("a key of more than 32 bytes"))?;
    mac.update(data);
    Ok(PyBytes::new(py, &mac.finalize().into_bytes()))
}

#[pyfunction]
fn hmac_blake2s<'py>(py: Python<'py>, key: &[u8], data: &[u8]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &*hmac(key, &[data]))
}

#[pyfunction]
fn kdf1<'py>(py: Python<'py>, chaining_key: &[u8], secret: &[u8]) -> Bound<'py, PyBytes> {
    let [first] = kdf(chaining_key, secret);
    PyBytes::new(py, &*first)
}

#[pyfunction]
fn kdf2<'py>(py: Python<'py>, chaining_key: &[u8], secret: &[u8]) -> Pair<'py> {
    let [first, second] = kdf(chaining_key, secret);
    (PyBytes::new(py, &*first), PyBytes::new(py, &*second))
}

#[pyfunction]
fn kdf3<'py>(py: Python<'py>, chaining_key: &[u8], secret: &[u8]) -> Triple<'py> {
    let [first, second, third] = kdf(chaining_key, secret);
    (
        PyBytes::new(py, &*first),
        PyBytes::new(py, &*second),
        PyBytes::new(py, &*third),
    )
}

/// HKDF (RFC 5869) with HMAC-BLAKE2s, as many keys as are asked for.
fn kdf<const KEYS: usize>(chaining_key: &[u8], secret: &[u8]) -> [Zeroizing<[u8; 32]>; KEYS] {
    let extracted = hmac(chaining_key, &[secret]);
    let mut keys = std::array::from_fn(|_| Zeroizing::new([0; 32]));
    for number in 0..KEYS {
        let before: &[u8] = if number == 0 { &[] } else { &*keys[number - 1] };
        keys[number] = hmac(&*extracted, &[before, &[number as u8 + 1]]);
    }
    keys
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut hmac =
        <SimpleHmac<Blake2s256> as Mac>::new_from_slice(key).expect("a key may have any length");
    for part in parts {
        hmac.update(part);
    }
    Zeroizing::new(hmac.finalize().into_bytes().into())
}

#[pyfunction]
fn seal<'py>(
    py: Python<'py>,
    key: &[u8],
    counter: u64,
    plaintext: &[u8],
    associated: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let cipher = cipher(key)?;
    PyBytes::new_with(py, plaintext.len() + TAG_SIZE, |sealed| {
        let (packet, tag) = sealed.split_at_mut(plaintext.len());
        packet.copy_from_slice(plaintext);
        let tag = tag.try_into().expect("TAG_SIZE are left");
        cipher.encrypt(&nonce(counter), associated, packet, tag);
        Ok(())
    })
}

#[pyfunction]
fn unseal<'py>(
    py: Python<'py>,
    key: &[u8],
    counter: u64,
    ciphertext: &[u8],
    associated: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let cipher = cipher(key)?;
    let failed = || PyValueError::new_err("decryption failed");
    let (packet, tag) = ciphertext
        .split_last_chunk::<TAG_SIZE>()
        .ok_or_else(failed)?;
    PyBytes::new_with(py, packet.len(), |opened| {
        opened.copy_from_slice(packet);
        cipher
            .decrypt(&nonce(counter), associated, opened, tag)
            .map_err(|_| failed())
    })
}

fn cipher(key: &[u8]) -> PyResult<ChaCha20Poly1305> {
    Ok(ChaCha20Poly1305::new(*key_from(key)?))
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    bytes
}

/// Add them all and return true; false, and none, if this processor is not graviola's.
pub fn add_to(module: &Bound<'_, PyModule>) -> PyResult<bool> {
    if !graviola::util::is_cpu_supported() {
        return Ok(false);
    }
    module.add_class::<PrivateKey>()?;
    module.add_function(wrap_pyfunction!(blake2s, module)?)?;
    module.add_function(wrap_pyfunction!(mac, module)?)?;
    module.add_function(wrap_pyfunction!(hmac_blake2s, module)?)?;
    module.add_function(wrap_pyfunction!(kdf1, module)?)?;
    module.add_function(wrap_pyfunction!(kdf2, module)?)?;
    module.add_function(wrap_pyfunction!(kdf3, module)?)?;
    module.add_function(wrap_pyfunction!(seal, module)?)?;
    module.add_function(wrap_pyfunction!(unseal, module)?)?;
    Ok(true)
}
