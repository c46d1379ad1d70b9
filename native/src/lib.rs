//! `wgd_native`: the engine for Python. The contract is in wgd_native.pyi; the work is done in
//! `wgd_engine`, whose threads never wait for Python.

mod convert;
mod engine;
mod objects;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod primitives;

use pyo3::prelude::*;

/// Grows with every change of what wgd_native.pyi describes; wgd/extension.py has its like.
const INTERFACE_VERSION: u32 = 3;

#[pymodule]
fn wgd_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("INTERFACE_VERSION", INTERFACE_VERSION)?;
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    let has_primitives = primitives::add_to(module)?;
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has_primitives = false;
    module.add("HAS_PRIMITIVES", has_primitives)?;
    module.add_class::<engine::PyEngine>()
}
