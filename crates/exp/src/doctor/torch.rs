//! libtorch as it is loaded into this process, and the GPUs that it sees.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Report, tools::output_of};

/// The libtorch that tch 0.24 is made for.
const WANTED: &str = "2.11.0";

pub(super) fn check(report: &mut Report) {
    match sum_of_three() {
        Ok(6.0) => {}
        Ok(wrong) => report.problem("libtorch", format!("1 + 2 + 3 gives {wrong}"), REMAKE),
        Err(error) => report.problem("libtorch", format!("a first sum fails: {error}"), REMAKE),
    }
    let library = fs::read_to_string("/proc/self/maps").ok().and_then(|maps| loaded(&maps, "libtorch_cpu.so"));
    match &library {
        Some(library) => check_version(report, library),
        None => report.note("libtorch", "works, but which file is loaded cannot be told on this system", None),
    }
    check_gpu(report, library.as_deref());
}

const REMAKE: &str = "run env_shell/setup_libtorch.sh --force, then build again";

/// A first tensor operation, which loads what libtorch loads late.
fn sum_of_three() -> Result<f64, tch::TchError> {
    let sum = tch::Tensor::f_from_slice(&[1f32, 2.0, 3.0])?.f_sum(tch::Kind::Float)?;
    f64::try_from(&sum)
}

fn check_version(report: &mut Report, library: &Path) {
    // lib/libtorch_cpu.so; the version lies beside lib/, also when the set-up linked single files from elsewhere
    let folders = library.parent().and_then(Path::parent).map(Path::to_path_buf);
    let version = folders.as_deref().and_then(version_beside);
    match version.as_deref() {
        Some(WANTED) => report.ok("libtorch", format!("{WANTED}, loaded from {}", library.display())),
        Some(other) => {
            report.problem(
                "libtorch",
                format!("{other} is loaded from {}, tch 0.24 needs {WANTED}", library.display()),
                REMAKE,
            );
        }
        None => report.note("libtorch", format!("of unknown version, loaded from {}", library.display()), None),
    }
}

/// The version that a folder of libtorch or of Python's torch states.
fn version_beside(folder: &Path) -> Option<String> {
    let header = fs::read_to_string(folder.join("include/torch/headeronly/version.h")).ok();
    let from_header =
        header.as_deref().and_then(|text| text.split("define TORCH_VERSION \\").nth(1)?.split('"').nth(1));
    let file = fs::read_to_string(folder.join("build-version")).ok();
    let version = from_header.or(file.as_deref())?;
    Some(version.trim().split('+').next()?.to_owned())
}

/// The path of `name` in the text of `/proc/self/maps`.
fn loaded(maps: &str, name: &str) -> Option<PathBuf> {
    maps.lines()
        .find(|line| line.ends_with(&format!("/{name}")))
        .and_then(|line| line.find('/').map(|at| line[at..].into()))
}

fn check_gpu(report: &mut Report, library: Option<&Path>) {
    let names: Vec<String> = output_of("nvidia-smi", &["--query-gpu=name,memory.total", "--format=csv,noheader"])
        .map(|text| text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect())
        .unwrap_or_default();
    let cuda_form = library.and_then(Path::parent).is_some_and(|lib| lib.join("libtorch_cuda.so").exists());
    let seen = tch::Cuda::device_count();
    match (names.is_empty(), tch::Cuda::is_available()) {
        (_, true) => {
            let names = if names.is_empty() { format!("{seen} devices") } else { names.join("; ") };
            report.ok("gpu", format!("CUDA works: {names}"));
        }
        (true, false) => report.note("gpu", "no NVIDIA GPU; device=auto takes the CPU", None),
        (false, false) if !cuda_form => report.problem(
            "gpu",
            format!("there is {}, but this libtorch is the CPU form", names.join("; ")),
            "run env_shell/setup_libtorch.sh --force, then build again; or ignore it and use device=cpu",
        ),
        (false, false) => report.problem(
            "gpu",
            format!("there is {}, but libtorch cannot use it", names.join("; ")),
            "CUDA 13 needs the NVIDIA driver 580 or later; see what nvidia-smi says",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaded_file_is_read_from_the_maps() {
        let maps = "7f00-7f01 r--p 00000000 fe:00 12   /a/lib/libc10.so\n\
                    7f02-7f03 r-xp 00000000 fe:00 13   /a b/lib/libtorch_cpu.so\n";
        assert_eq!(loaded(maps, "libtorch_cpu.so"), Some("/a b/lib/libtorch_cpu.so".into()));
        assert_eq!(loaded(maps, "libtorch_cuda.so"), None);
    }

    #[test]
    fn the_version_comes_from_the_header_then_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(version_beside(folder.path()), None);
        fs::write(folder.path().join("build-version"), "2.10.0+cpu\n").unwrap();
        assert_eq!(version_beside(folder.path()).as_deref(), Some("2.10.0"));
        let header = folder.path().join("include/torch/headeronly");
        fs::create_dir_all(&header).unwrap();
        fs::write(header.join("version.h"), "#define TORCH_VERSION_MINOR 11\n#define TORCH_VERSION \\\n  \"2.11.0\"\n")
            .unwrap();
        assert_eq!(version_beside(folder.path()).as_deref(), Some("2.11.0"));
    }
}
