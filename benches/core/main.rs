//! The work that is done for every message, open and request: its time by criterion
//! (`cargo bench --bench core`), and its instructions by callgrind (`benches/instructions`).
//!
//! | module | what it is |
//! |---|---|
//! | [`cases`] | the pieces of work |
//! | [`instructions`] | counting them, and holding them against those that are recorded |
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench reports on its streams")]

#[path = "../../tests/support/build.rs"]
mod build;
mod cases;
mod instructions;
#[path = "../../tests/support/licence.rs"]
mod licence;

use std::process::ExitCode;

use criterion::Criterion;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let outcome = match arguments.as_slice() {
        [flag, name] if flag == "--case" => instructions::perform(name).map(|()| true),
        _ if has("--instructions") => instructions::run(has("--accept")),
        _ => {
            let mut criterion = Criterion::default().configure_from_args();
            for case in cases::CASES {
                let mut work = (case.prepare)();
                criterion.bench_function(case.name, |bencher| bencher.iter(&mut work));
            }
            criterion.final_summary();
            Ok(true)
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
