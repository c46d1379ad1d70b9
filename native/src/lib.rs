//! `wgd_native`: the engine for Python. The contract is in wgd_native.pyi; the work is done in
//! `wgd_engine`, whose threads never wait for Python.

mod convert;
mod engine;
mod objects;

use pyo3::prelude::*;

/// Grows with every change of what wgd_native.pyi describes; wgd/dataplane/choice.py has its like.
const INTERFACE_VERSION: u32 = 2;

#[pymodule]
fn wgd_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("INTERFACE_VERSION", INTERFACE_VERSION)?;
    module.add_class::<engine::PyEngine>()
}
