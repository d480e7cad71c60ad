//! Our side of `benches/peers/lm.sh`: prints one JSON line for the work it is given.

fn main() -> std::process::ExitCode {
    anyo_exp::bench::main(anyo_exp::bench::lm::line)
}
