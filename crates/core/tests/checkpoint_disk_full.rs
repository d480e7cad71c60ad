//! A disk without space, simulated by a file-size limit of this whole process: hence the only test in this file.
#![allow(clippy::unwrap_used, reason = "tests: helpers outside of #[test] functions too")]
#![cfg(all(feature = "torch", target_os = "linux"))]

use anyo_core::{
    Error,
    torch::{Checkpoints, Init, OptimConfig, OptimName, Optimizer, Params, ScheduleConfig, ScheduleName},
};
use tch::Device;

#[test]
fn an_earlier_checkpoint_survives_a_save_without_space() {
    let schedule = ScheduleConfig { name: ScheduleName::Constant, warmup_steps: 0, total_steps: None, floor: 0.0 };
    let config = OptimConfig {
        name: OptimName::Adam,
        lr: 0.1,
        betas: [0.9, 0.999],
        eps: 1e-8,
        weight_decay: 0.0,
        clip_norm: None,
        schedule,
    };
    let mut params = Params::new(Device::Cpu);
    let _ = params.create("w", &[1000, 10], Init::XavierNormal, 1).unwrap();
    let optimizer = Optimizer::new(&config, &params).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoints = Checkpoints::new(folder.path(), 1).unwrap();
    checkpoints.save(1, &params, &optimizer, &"first", true).unwrap();

    // The model's 40 kB fit under 60 kB, the optimizer's 80 kB do not.
    let limit = |bytes| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: plain system calls; without the signal's default action a refused write is an ordinary error.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
        }
    };
    limit(60_000);
    let error = checkpoints.save(2, &params, &optimizer, &"second", true).unwrap_err();
    limit(libc::RLIM_INFINITY);
    assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("optim.safetensors")), "{error}");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "only the first checkpoint and best.json: {left:?}");
    let saved = checkpoints.latest_valid(|note| panic!("{note}")).unwrap().unwrap();
    assert_eq!((saved.step, saved.state::<String>().unwrap().as_str()), (1, "first"));
    checkpoints.save(2, &params, &optimizer, &"second", true).unwrap();
    assert_eq!(checkpoints.steps().unwrap(), [2]);
}
