//! Where and how tensors are computed: device, number type, threads.

use std::{fmt, path::Path, str::FromStr, sync::Once};

use serde::{Deserialize, Serialize};
use tch::{Cuda, Device, Kind};

use crate::{Error, Result};

/// The `device` key: `auto`, `cpu`, `cuda` (the first GPU) or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first GPU where there is one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// This GPU, or an error.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("unknown device `{text}`, expected auto, cpu, cuda or cuda:N")),
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

/// The device of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// For tch.
    pub device: Device,
    /// One line for the log: which and why.
    pub why: String,
}

impl DeviceChoice {
    /// The device to use. Asking for a GPU never ends on the CPU.
    ///
    /// # Errors
    /// When the GPU that was asked for cannot be used; the message says what is missing.
    pub fn choose(self) -> Result<Chosen> {
        let cpu = |why: &str| Chosen { device: Device::Cpu, why: format!("cpu: {why}") };
        match self {
            Self::Cpu => Ok(cpu("device=cpu")),
            Self::Auto => Ok(match missing(0, &Seen::now()) {
                None => Chosen { device: Device::Cuda(0), why: "cuda:0: device=auto and a GPU is there".into() },
                Some((why, _)) => cpu(&format!("device=auto, and {why}")),
            }),
            Self::Cuda(n) => match missing(n, &Seen::now()) {
                None => Ok(Chosen { device: Device::Cuda(n), why: format!("cuda:{n}: device={self}") }),
                Some((why, hint)) => {
                    Err(Error::Invalid { message: format!("device={self}: {why}"), hint: Some(hint.into()) })
                }
            },
        }
    }
}

/// What this process sees of GPUs.
struct Seen {
    driver: bool,
    libtorch_cuda: bool,
    n_devices: usize,
}

impl Seen {
    fn now() -> Self {
        let driver =
            ["/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg"].iter().any(|p| Path::new(p).exists());
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let n_devices = if Cuda::is_available() { Cuda::device_count().max(0) as usize } else { 0 };
        Self { driver, libtorch_cuda: n_devices > 0 || maps.contains("libtorch_cuda"), n_devices }
    }
}

/// Why `cuda:n` cannot be used and what to do, or nothing.
fn missing(n: usize, seen: &Seen) -> Option<(String, &'static str)> {
    if n < seen.n_devices {
        None
    } else if seen.n_devices > 0 {
        let last = seen.n_devices - 1;
        Some((
            format!("there is no GPU {n}, this process sees cuda:0 to cuda:{last}"),
            "choose one of these, or change CUDA_VISIBLE_DEVICES",
        ))
    } else if !seen.driver {
        Some((
            "there is no NVIDIA driver on this machine or in this container".into(),
            "use device=cpu; in a container pass --gpus all (env_shell/start_experiment_container.sh does)",
        ))
    } else if !seen.libtorch_cuda {
        Some((
            "the installed libtorch has no CUDA part (libtorch_cuda.so is not loaded)".into(),
            "run env_shell/setup_libtorch.sh on a machine with a GPU and build again, or use device=cpu",
        ))
    } else {
        Some((
            "libtorch finds no usable GPU although driver and CUDA libraries are there".into(),
            "check nvidia-smi, the driver's age and CUDA_VISIBLE_DEVICES, or use device=cpu",
        ))
    }
}

/// The `dtype` key: the type in which large products are computed; weights stay f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit floating point.
    Float32,
    /// Brain floating point: the range of f32 with 8 bits of significand.
    Bfloat16,
}

impl Dtype {
    /// For tch.
    pub fn kind(self) -> Kind {
        match self {
            Self::Float32 => Kind::Float,
            Self::Bfloat16 => Kind::BFloat16,
        }
    }
}

/// Sets libtorch's threads, 0 for all cores, and says in one line what was set.
///
/// # Errors
/// When `threads` is above 1024.
pub fn set_threads(threads: usize) -> Result<String> {
    if threads > 1024 {
        return Err(Error::Invalid {
            message: format!("threads={threads} is out of range, expected 0 to 1024"),
            hint: Some("threads=0 uses all cores".into()),
        });
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let n = if threads == 0 { cores } else { threads };
    tch::set_num_threads(n as i32);
    set_interop_threads_once();
    Ok(match threads {
        0 => format!("{n} threads: all cores"),
        _ => format!("{n} threads of {cores} cores: threads={threads}"),
    })
}

/// One thread between operators: we run one operator at a time.
fn set_interop_threads_once() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        // tch's wrapper panics where libtorch refuses, which it does once its pool has started.
        // SAFETY: both calls take plain values; the error is a malloc'd text or null.
        unsafe {
            torch_sys::at_set_num_interop_threads(1);
            libc::free(torch_sys::get_and_reset_last_err().cast());
        }
    });
}

/// Version of the libtorch that is loaded, such as `2.11.0`.
pub fn libtorch_version() -> String {
    unsafe extern "C" {
        fn aoti_torch_abi_version() -> u64;
    }
    // SAFETY: a function of libtorch's stable C interface that takes nothing and returns packed version bytes.
    let version = unsafe { aoti_torch_abi_version() };
    format!("{}.{}.{}", version >> 56, (version >> 48) & 0xff, (version >> 40) & 0xff)
}

/// The widest vector instructions that libtorch's own kernels can use here, in its words.
pub fn cpu_capability() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx512f") && has!("avx512vl") && has!("avx512bw") && has!("avx512dq") && has!("fma") {
            return "AVX512";
        }
        if has!("avx2") && has!("fma") {
            return "AVX2";
        }
    }
    "DEFAULT"
}

/// What a reader of `run.yaml` wants to know about libtorch here.
pub fn describe() -> serde_json::Value {
    let seen = Seen::now();
    serde_json::json!({
        "libtorch": libtorch_version(),
        "cuda": seen.n_devices > 0,
        "cuda_devices": seen.n_devices,
        "cuda_libraries": seen.libtorch_cuda,
        "nvidia_driver": seen.driver,
        "cpu_capability": cpu_capability(),
        "mkl": tch::utils::has_mkl(),
        "onednn": tch::utils::has_mkldnn(),
        "openmp": tch::utils::has_openmp(),
        "threads": tch::get_num_threads(),
        "interop_threads": tch::get_num_interop_threads(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_devices() {
        for (text, want) in
            [("auto", DeviceChoice::Auto), ("cpu", DeviceChoice::Cpu), ("cuda:3", DeviceChoice::Cuda(3))]
        {
            let choice: DeviceChoice = serde_yaml::from_str(text).unwrap();
            assert_eq!((choice, choice.to_string().as_str()), (want, text));
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for wrong in ["gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", ""] {
            let message = wrong.parse::<DeviceChoice>().unwrap_err();
            assert!(message.contains("auto, cpu, cuda or cuda:N"), "{message}");
        }
    }

    #[test]
    fn words_for_types() {
        assert_eq!(serde_yaml::from_str::<Dtype>("bfloat16").unwrap().kind(), Kind::BFloat16);
        assert_eq!(serde_yaml::from_str::<Dtype>("float32").unwrap().kind(), Kind::Float);
        assert!(serde_yaml::from_str::<Dtype>("float16").unwrap_err().to_string().contains("bfloat16"));
    }

    #[test]
    fn each_gap_has_its_own_message() {
        let seen = |driver, libtorch_cuda, n_devices| Seen { driver, libtorch_cuda, n_devices };
        let why = |n, seen| missing(n, &seen).map(|(why, _)| why).unwrap_or_default();
        assert_eq!(why(1, seen(true, true, 2)), "");
        assert!(why(2, seen(true, true, 2)).contains("no GPU 2, this process sees cuda:0 to cuda:1"));
        assert!(why(0, seen(false, false, 0)).contains("no NVIDIA driver"));
        assert!(why(0, seen(true, false, 0)).contains("libtorch_cuda.so"));
        assert!(why(0, seen(true, true, 0)).contains("no usable GPU"));
    }

    #[test]
    fn choosing_says_why_and_cuda_never_falls_back() {
        assert_eq!(DeviceChoice::Cpu.choose().unwrap(), Chosen { device: Device::Cpu, why: "cpu: device=cpu".into() });
        assert!(DeviceChoice::Auto.choose().unwrap().why.contains("device=auto"));
        // No machine has this many.
        let error = DeviceChoice::Cuda(999).choose().unwrap_err();
        assert!(error.to_string().starts_with("device=cuda:999: ") && error.hint().is_some(), "{error}");
    }

    #[test]
    fn threads_are_set_and_described() {
        assert!(set_threads(1025).is_err());
        assert!(set_threads(0).unwrap().ends_with("all cores"));
        assert!(set_threads(2).unwrap().starts_with("2 threads of "));
        let about = describe();
        assert_eq!(about["threads"], 2);
        assert!(about["libtorch"].as_str().unwrap().starts_with("2."), "{about}");
        assert!(about["cuda"].is_boolean() && about["cpu_capability"].is_string());
    }
}
