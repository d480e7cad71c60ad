//! Build script of every crate that uses tensors: its binaries and tests find libtorch without LD_LIBRARY_PATH.
//!
//! `DEP_TCH_LIBTORCH_LIB` comes from torch-sys and reaches direct dependants only, so each crate depends on it.
//! With a CUDA libtorch the linker would drop `libtorch_cuda`, which nothing names, and the GPU would read as absent.
#![expect(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]

use std::{env, path::Path, process::Command};

fn main() {
    // For run.yaml: which compiler made the binary.
    let rustc = env::var_os("RUSTC").and_then(|rustc| Command::new(rustc).arg("--version").output().ok());
    if let Some(version) = rustc.and_then(|output| String::from_utf8(output.stdout).ok()) {
        println!("cargo:rustc-env=ANYO_RUSTC={}", version.trim());
    }
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    let Ok(lib) = env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    if Path::new(&lib).join("libtorch_cuda.so").exists() {
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo:rustc-link-arg=-ltorch_cuda");
        println!("cargo:rustc-link-arg=-Wl,--as-needed");
    }
}
