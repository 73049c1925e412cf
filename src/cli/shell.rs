//! `seatgate completions`, `seatgate man`.

use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::output::{say, write};
use super::{Arguments, Failure, Outcome};

pub(super) fn completions(shell: Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "seatgate", &mut script);
    write(&String::from_utf8_lossy(&script))
}

pub(super) fn man(folder: Option<&Path>) -> Outcome {
    let Some(folder) = folder else {
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(Arguments::command()).render(&mut page);
        rendered.map_err(Failure::failed)?;
        return write(&String::from_utf8_lossy(&page));
    };
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Arguments::command(), folder));
    let failed = |error| Failure::failed(format!("{}: {error}", folder.display()));
    written.map_err(failed)?;
    say(&format!("{}: the manual pages are written", folder.display()))
}
