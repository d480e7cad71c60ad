//! Our side of `benches/peers/teacher.sh`: prints one JSON line for the work it is given.

fn main() -> std::process::ExitCode {
    anyo_exp::bench::main(anyo_exp::bench::teacher::line)
}
