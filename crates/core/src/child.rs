//! A child process that ends with its parent and hears of a stop exactly once.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread::sleep,
    time::Duration,
};

/// A command that starts this program again: the one that runs, even where a build has put another into its place since.
///
/// # Errors
/// When the system does not say where it is.
pub fn this_program() -> io::Result<Command> {
    let own = std::env::current_exe()?;
    #[cfg(target_os = "linux")]
    let command = {
        let mut command = Command::new("/proc/self/exe");
        command.arg0(&own);
        command
    };
    #[cfg(not(target_os = "linux"))]
    let command = Command::new(own);
    Ok(command)
}

/// Starts `command` without stdin and waits for its end; when `stop` becomes true it gets SIGTERM, once, and is waited for
/// all the same, so that it can save its work.
///
/// # Errors
/// When it cannot be started or waited for.
pub fn run(mut command: Command, stop: &AtomicBool) -> io::Result<ExitStatus> {
    command.stdin(Stdio::null());
    // A process group of its own: Ctrl-C reaches the parent alone, which passes it on exactly once; a second signal would
    // end the child before it has saved.
    command.process_group(0);
    #[cfg(target_os = "linux")]
    // SAFETY: prctl is async-signal-safe and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| {
            // A parent that is killed takes its child along.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
    wait(&mut command.spawn()?, stop)
}

fn wait(child: &mut Child, stop: &AtomicBool) -> io::Result<ExitStatus> {
    let mut told = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if stop.load(Ordering::Relaxed) && !told {
            told = true;
            // SAFETY: the child has not been waited for, so its id cannot belong to another process.
            unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
        }
        sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn this_program_starts_again() {
        let mut command = this_program().unwrap();
        // the tests' own program: lists itself
        let output = command.args(["--list", "--format", "terse"]).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("this_program_starts_again"), "{output:?}");
    }

    #[test]
    fn the_end_of_a_child_and_a_stop() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        assert_eq!(run(shell("exit 7"), &AtomicBool::new(false)).unwrap().code(), Some(7));
        assert_eq!(run(shell("exec sleep 60"), &AtomicBool::new(true)).unwrap().signal(), Some(libc::SIGTERM));
        assert!(run(Command::new("/no/such/program"), &AtomicBool::new(false)).is_err());
    }
}
