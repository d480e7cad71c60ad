//! Memory: settings of the C allocator, which libtorch uses for every tensor, and how much is used and left.

/// Keeps freed memory for the next tensor instead of giving it back to the system each time.
///
/// By default glibc maps every large block anew and unmaps it on free, so each training step pays for page faults on
/// all its activations. Call once, before the first tensor. Does nothing outside Linux with glibc.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets two numbers of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        // The heap grows in large steps, so that huge pages find whole ranges; untouched room costs nothing.
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}

/// Asks the system to back `len` bytes at `start`, freshly allocated and not yet written, with pages of 2 MB: large weights
/// are then filled with fewer page faults and read with fewer table look-ups. The pages around the ends count too.
/// A refusal, and any system but Linux, changes nothing.
pub fn prefer_huge_pages(start: *mut u8, len: usize) {
    const HUGE: usize = 2 << 20;
    #[cfg(target_os = "linux")]
    if len >= HUGE / 2 {
        let from = start as usize / HUGE * HUGE;
        let to = (start as usize + len).next_multiple_of(HUGE);
        // SAFETY: advice about pages changes no content, whoever owns them.
        unsafe {
            libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_HUGEPAGE);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, len, HUGE);
}

/// The largest resident set of this process so far, in bytes; 0 where the system does not tell.
pub fn peak_rss_bytes() -> u64 {
    #[cfg(unix)]
    {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: getrusage fills the struct that it is given.
        if unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) } == 0 {
            // SAFETY: filled above; all-zero is a valid rusage too.
            return unsafe { usage.assume_init() }.ru_maxrss as u64 * 1024;
        }
    }
    0
}

/// Bytes that can be taken before the system must swap or kill; `None` where it does not tell (outside Linux).
pub fn available_bytes() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let meminfo = read("/proc/meminfo")?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let system = line.split_whitespace().next()?.parse::<u64>().ok()? * 1024;
    // A container may have less than the machine.
    let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
    let limit = number("/sys/fs/cgroup/memory.max").zip(number("/sys/fs/cgroup/memory.current"));
    Some(limit.map_or(system, |(limit, used)| system.min(limit.saturating_sub(used))))
}
