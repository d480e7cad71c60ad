//! Our side of `benches/peers/distill.py`: prints one JSON line for the work it is given.

use std::process::ExitCode;

fn main() -> ExitCode {
    anyo_core::memory::keep_freed_memory();
    let args: Vec<String> = std::env::args().skip(1).collect();
    match anyo_exp::bench_distill::line(&args) {
        Ok(line) => {
            use std::io::Write as _;
            let _ = writeln!(std::io::stdout(), "{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
