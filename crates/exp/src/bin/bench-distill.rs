//! Our side of `benches/peers/distill.py`: prints one JSON line for the work it is given.

fn main() -> std::process::ExitCode {
    anyo_exp::bench::main(anyo_exp::bench::distill::line)
}
