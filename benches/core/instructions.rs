//! Instruction counts by callgrind: the same each time, whatever else the machine does. They are
//! held against those that `instructions.txt` records.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cases::CASES;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How often a case is done while its instructions are counted: hash maps and allocators make one
/// time differ from the next.
const TIMES: u64 = 50;

/// What a case may cost more than recorded before that is a regression, in hundredths.
const TOLERANCE: u64 = 5;

/// The same where another compiler than the one of the record made the program, or another processor
/// chooses among the ways that libraries have for each.
const FOREIGN_TOLERANCE: u64 = 30;

/// What starts this, in messages.
const COMMAND: &str = "benches/instructions";

fn record() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/core/instructions.txt")
}

/// The one function whose instructions are counted, those of what it calls included.
#[inline(never)]
fn measured(work: &mut dyn FnMut()) {
    for _ in 0..TIMES {
        work();
    }
}

/// Does one case; under callgrind this is what is counted.
pub(crate) fn perform(name: &str) -> Result<()> {
    let case = CASES.iter().find(|case| case.name == name).ok_or("no such case")?;
    let mut work = (case.prepare)();
    // Whatever is only done once.
    work();
    measured(&mut work);
    Ok(())
}

/// Counts all cases and holds them against the record, or makes a new record; returns whether none
/// costs more.
pub(crate) fn run(accept: bool) -> Result<bool> {
    let cases = CASES.iter().filter(|case| !case.is_large);
    let counted =
        cases.map(|case| Ok((case.name, count(case.name)?))).collect::<Result<Vec<_>>>()?;
    let circumstances = format!("{}, {}", compiler()?, processor()?);
    if accept {
        let mut text = format!(
            "# Instructions of each case of cases.rs, by callgrind; written by\n# {COMMAND} --accept\n# {circumstances}\n"
        );
        for (name, count) in &counted {
            writeln!(text, "{count}\t{name}")?;
        }
        fs::write(record(), text)?;
        println!("recorded: {}", record().display());
        return Ok(true);
    }
    let text = fs::read_to_string(record())?;
    let is_ours = text.lines().any(|line| line.strip_prefix("# ") == Some(&circumstances));
    let tolerance = if is_ours { TOLERANCE } else { FOREIGN_TOLERANCE };
    if !is_ours {
        println!("another compiler or processor than the record's: {tolerance} % more are borne");
    }
    let recorded: BTreeMap<&str, u64> = text
        .lines()
        .filter_map(|line| {
            let (count, name) = line.split_once('\t')?;
            Some((name, count.parse().ok()?))
        })
        .collect();
    Ok(compare(&counted, &recorded, tolerance))
}

fn compare(counted: &[(&str, u64)], recorded: &BTreeMap<&str, u64>, tolerance: u64) -> bool {
    let (mut worse, mut better) = (0, 0);
    for (name, count) in counted {
        let Some(before) = recorded.get(name) else {
            println!("{count:>10}  {name}: NOT RECORDED");
            worse += 1;
            continue;
        };
        let change = (*count as f64 / *before as f64 - 1.0) * 100.0;
        let verdict = if *count * 100 > *before * (100 + tolerance) {
            worse += 1;
            ": REGRESSION"
        } else if *count * 100 < *before * (100 - tolerance.min(99)) {
            better += 1;
            ": better"
        } else {
            ""
        };
        println!("{count:>10}  {change:>+6.1} %  {name}{verdict}");
    }
    if worse > 0 {
        println!(
            "{worse} of {} cost more than {tolerance} % more instructions than recorded, or are not \
             recorded. If that is meant, record it: {COMMAND} --accept",
            counted.len()
        );
    } else if better > 0 {
        println!("{better} became cheaper; so that it stays so: {COMMAND} --accept");
    }
    worse == 0
}

/// The instructions of one time.
fn count(name: &str) -> Result<u64> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--collect-atstart=no",
            "--toggle-collect=*instructions*measured*",
        ])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe()?)
        .args(["--case", name])
        .output()
        .map_err(|error| format!("valgrind: {error}; `./setup --bench` installs it"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name}: {}: {said}", output.status).into());
    }
    let text = fs::read_to_string(&file)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total: u64 = total.ok_or("callgrind counted nothing")?.trim().parse()?;
    // Not a single case is free.
    if total < TIMES {
        return Err(format!("{name}: {total} instructions: `measured` was not found").into());
    }
    Ok(total / TIMES)
}

/// The compiler that is the default here, as it names itself.
fn compiler() -> Result<String> {
    let output = Command::new("rustc").arg("--version").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The processor, as the kernel names it.
fn processor() -> Result<String> {
    let text = fs::read_to_string("/proc/cpuinfo")?;
    let name = text.lines().find_map(|line| line.strip_prefix("model name"));
    Ok(name.map_or("unknown", |name| name.trim_start_matches([' ', '\t', ':'])).to_owned())
}
