//! The `seatgate` program; see the library for everything.

use std::process::ExitCode;

fn main() -> ExitCode {
    seatgate::cli::main()
}
