//! Loops over CPU cores on the OpenMP threads that libtorch already runs.
//!
//! A second pool (rayon, scoped threads) would fight with them: after each of its own loops libgomp lets its threads
//! spin for a while, so on two cores other threads get no core at all. libtorch and its BLAS use libgomp, and so do
//! we, through its stable entry point.

use std::{
    ffi::{c_int, c_uint, c_void},
    sync::atomic::{AtomicUsize, Ordering},
};

unsafe extern "C" {
    fn GOMP_parallel(body: extern "C" fn(*mut c_void), data: *mut c_void, threads: c_uint, flags: c_uint);
    fn omp_in_parallel() -> c_int;
}

struct Job<'a> {
    next: AtomicUsize,
    n_parts: usize,
    body: &'a (dyn Fn(usize) + Sync),
}

extern "C" fn run(data: *mut c_void) {
    // SAFETY: `for_each_part` passes a pointer to a `Job` that outlives the parallel region.
    let job = unsafe { &*data.cast::<Job<'_>>() };
    loop {
        let part = job.next.fetch_add(1, Ordering::Relaxed);
        if part >= job.n_parts {
            return;
        }
        (job.body)(part);
    }
}

/// Calls `body(0)`, …, `body(n_parts - 1)`, each once, on libtorch's threads; returns when all are done.
///
/// Which thread takes which part varies from run to run, so results are the same bits every time only if a part's
/// result does not depend on the others. `body` must not panic: a panic on a worker ends the process.
pub fn for_each_part(n_parts: usize, body: impl Fn(usize) + Sync) {
    let threads = (tch::get_num_threads().max(1) as usize).min(n_parts);
    // SAFETY: plain query without arguments.
    if threads <= 1 || unsafe { omp_in_parallel() } != 0 {
        (0..n_parts).for_each(body);
        return;
    }
    let mut job = Job { next: AtomicUsize::new(0), n_parts, body: &body };
    // SAFETY: `run` matches the type that libgomp calls; `job` lives until GOMP_parallel returns, which joins all
    // threads; `body` is Sync.
    unsafe { GOMP_parallel(run, (&raw mut job).cast(), threads as c_uint, 0) }
}

/// Splits `data` into chunks of `chunk` elements and calls `body(index of the chunk, chunk)` on libtorch's threads.
pub fn for_each_chunk<T: Send>(data: &mut [T], chunk: usize, body: impl Fn(usize, &mut [T]) + Sync) {
    let (len, base) = (data.len(), SendPtr(data.as_mut_ptr()));
    for_each_part(len.div_ceil(chunk), |part| {
        let start = part * chunk;
        // SAFETY: parts are disjoint ranges of `data`, which stays borrowed until the loop ends.
        let part_data = unsafe { std::slice::from_raw_parts_mut(base.at(start), chunk.min(len - start)) };
        body(part, part_data);
    });
}

/// Calls `body(state, row number, row)` for every row of `width` elements of `data` on libtorch's threads, `rows` rows a
/// part, and returns the sum of what it returns, added in row order: the same bits on any number of threads.
///
/// `state` is made anew for each part: scratch memory.
///
/// # Panics
/// When `width` or `rows` is 0 and `data` is not empty.
pub fn sum_over_rows<T: Send, S>(
    data: &mut [T],
    width: usize,
    rows: usize,
    state: impl Fn() -> S + Sync,
    body: impl Fn(&mut S, usize, &mut [T]) -> f64 + Sync,
) -> f64 {
    if data.is_empty() {
        return 0.0;
    }
    let mut sums = vec![0f64; data.len() / width];
    let out = SendPtr(sums.as_mut_ptr());
    for_each_chunk(data, rows * width, |part, block| {
        let mut state = state();
        for (i, row) in block.chunks_exact_mut(width).enumerate() {
            let at = part * rows + i;
            let sum = body(&mut state, at, row);
            // SAFETY: each row has its own place in `sums`.
            unsafe { *out.at(at) = sum };
        }
    });
    sums.iter().sum()
}

/// A pointer that worker threads may use; whoever makes one answers for disjoint access.
#[derive(Debug, Clone, Copy)]
pub struct SendPtr<T>(pub *mut T);

impl<T> SendPtr<T> {
    /// The address of element `index`.
    ///
    /// # Safety
    /// `index` must lie inside the allocation.
    pub unsafe fn at(&self, index: usize) -> *mut T {
        // SAFETY: promised by the caller.
        unsafe { self.0.add(index) }
    }
}

// SAFETY: the pointer itself is plain data; each use states why its accesses do not overlap.
unsafe impl<T> Send for SendPtr<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for SendPtr<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_runs_once() {
        let mut data = vec![0u32; 1003];
        for_each_chunk(&mut data, 10, |part, chunk| chunk.iter_mut().for_each(|x| *x += part as u32 + 1));
        assert!(data.iter().enumerate().all(|(i, &x)| x == i as u32 / 10 + 1));
    }

    #[test]
    fn rows_are_numbered_and_summed() {
        // Rows 0..=100 of three elements: Σ 3·row + Σ (calls before it in its part).
        let mut data = vec![0usize; 303];
        let sum = sum_over_rows(
            &mut data,
            3,
            10,
            || 0,
            |calls, row, x| {
                x.fill(row);
                *calls += 1;
                (x.iter().sum::<usize>() + *calls - 1) as f64
            },
        );
        assert_eq!(sum, 3.0 * 5050.0 + 10.0 * 45.0);
        assert!(data.iter().enumerate().all(|(i, &x)| x == i / 3));
        assert_eq!(sum_over_rows(&mut [0u8; 0], 0, 0, || (), |(), _, _| 1.0), 0.0);
    }
}
