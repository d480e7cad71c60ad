//! Processor and memory.

use std::{fs, thread};

use super::Report;

pub(super) fn check(report: &mut Report) {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = field(&info, "model name").unwrap_or("processor of unknown name");
    let message =
        format!("{threads} threads ({} used by libtorch), {name}, {}", tch::get_num_threads(), capability(&info));
    if field(&info, "flags").is_some_and(|flags| !has(flags, "avx2")) {
        report.note("cpu", message, Some("without AVX2 training is several times slower"));
    } else {
        report.ok("cpu", message);
    }
    check_memory(report, &fs::read_to_string("/proc/meminfo").unwrap_or_default(), cgroup_limit());
}

/// The value of the first line `key : value`.
fn field<'a>(info: &'a str, key: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.split_once(':').filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim()))
}

fn has(flags: &str, flag: &str) -> bool {
    flags.split_whitespace().any(|known| known == flag)
}

/// The vector units in words; libtorch chooses its kernels by them.
fn capability(info: &str) -> String {
    let Some(flags) = field(info, "flags") else { return "vector units unknown".to_owned() };
    let known = [("avx2", "AVX2"), ("avx512f", "AVX-512"), ("avx512_bf16", "AVX-512 bf16"), ("amx_bf16", "AMX bf16")];
    let found: Vec<_> = known.iter().filter(|(flag, _)| has(flags, flag)).map(|&(_, name)| name).collect();
    if found.is_empty() { "no AVX2".to_owned() } else { found.join(", ") }
}

/// The memory limit of the container, in bytes, where there is one.
fn cgroup_limit() -> Option<u64> {
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok())
}

fn check_memory(report: &mut Report, meminfo: &str, limit: Option<u64>) {
    let bytes = |key| field(meminfo, key)?.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024);
    let (Some(total), Some(available)) = (bytes("MemTotal"), bytes("MemAvailable")) else {
        return report.note("memory", "cannot be read on this system", None);
    };
    let total = limit.map_or(total, |limit| limit.min(total));
    let available = available.min(total);
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let message = format!("{:.1} GiB, {:.1} GiB of it free", gib(total), gib(available));
    if available < 1 << 30 {
        report.problem("memory", message, "close other programs: training MovieLens-1M wants 1 GiB, compiling more");
    } else if available < 4 << 30 {
        report.note("memory", message, Some("enough to train; compile with CARGO_BUILD_JOBS=1"));
    } else {
        report.ok("memory", message);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    #[test]
    fn flags_are_whole_words() {
        let info = "model name\t: X\nflags\t\t: fpu avx avx2 avx512f\n";
        assert_eq!(field(info, "model name"), Some("X"));
        assert_eq!(capability(info), "AVX2, AVX-512");
        assert_eq!(capability("flags : fpu avx512_bf16x\n"), "no AVX2");
        assert_eq!(capability(""), "vector units unknown");
    }

    #[test]
    fn little_memory_is_a_problem_and_a_container_limit_counts() {
        let meminfo = "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n"; // 16 and 8 GiB
        let level = |meminfo, limit| {
            let mut report = Report::default();
            check_memory(&mut report, meminfo, limit);
            (report.lines[0].level, report.lines[0].message.clone())
        };
        assert_eq!(level(meminfo, None), (Level::Ok, "16.0 GiB, 8.0 GiB of it free".to_owned()));
        assert_eq!(level(meminfo, Some(2 << 30)), (Level::Note, "2.0 GiB, 2.0 GiB of it free".to_owned()));
        assert_eq!(level(meminfo, Some(1 << 29)).0, Level::Problem);
        assert_eq!(level("", None).0, Level::Note);
    }
}
