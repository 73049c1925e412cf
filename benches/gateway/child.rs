//! Processes that end with this one: the bench's own roles, and other programs.
//!
//! Every child is this binary at first. It asks the kernel for a signal when its parent dies, and
//! then plays its role or becomes the other program, which keeps that wish.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStdout, Command, ExitCode, Stdio};

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal};

use crate::{Result, bare, growth, prepared, upstream};

/// The first argument of a child.
pub(crate) const MARK: &str = "--child";

/// The role that becomes another program.
const EXEC: &str = "exec";

/// How long a program may take to end when it is asked.
const GRACE: Duration = Duration::from_secs(2);

/// A process that is ended when this is dropped.
pub(crate) struct Child {
    process: std::process::Child,
    stdout: Mutex<Option<ChildStdout>>,
    /// Whether it has processes of its own, which it must end itself.
    has_children: bool,
}

impl Child {
    /// Starts a role of the bench's own.
    pub(crate) fn start_role(role: &str, arguments: &[&str]) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(MARK)
            .arg(role)
            .args(arguments)
            // Its end is the other sign that this process is gone.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = Mutex::new(process.stdout.take());
        Ok(Self { process, stdout, has_children: false })
    }

    /// Starts another program; what it says goes to the file `errors`.
    pub(crate) fn start_program(
        program: impl AsRef<OsStr>,
        arguments: &[&OsStr],
        directory: &Path,
        errors: &Path,
        has_children: bool,
    ) -> Result<Self> {
        let errors = std::fs::File::create(errors)?;
        let process = Command::new(std::env::current_exe()?)
            .arg(MARK)
            .arg(EXEC)
            .arg(program)
            .args(arguments)
            .current_dir(directory)
            .env_remove("RUST_LOG")
            .env_remove("STATE_DIRECTORY")
            .stdin(Stdio::null())
            .stdout(errors.try_clone()?)
            .stderr(errors)
            .spawn()?;
        Ok(Self { process, stdout: Mutex::new(None), has_children })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The address that a role says it listens on.
    pub(crate) fn read_address(&self) -> Result<SocketAddr> {
        Ok(self.read_line()?.parse()?)
    }

    /// The first line that a role says.
    pub(crate) fn read_line(&self) -> Result<String> {
        let stdout = self.stdout.lock().take();
        let mut line = String::new();
        BufReader::new(stdout.ok_or("it was read already")?).read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// All that a role says, until it has ended.
    pub(crate) fn read_all(mut self) -> Result<String> {
        let stdout = self.stdout.lock().take();
        let mut text = String::new();
        stdout.ok_or("it was read already")?.read_to_string(&mut text)?;
        let status = self.process.wait()?;
        if status.success() { Ok(text) } else { Err(format!("it ended with {status}").into()) }
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(mut self) -> Result<()> {
        let status = self.process.wait()?;
        if status.success() { Ok(()) } else { Err(format!("it ended with {status}").into()) }
    }

    /// Whether it ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.has_children {
            if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, Signal::TERM);
            }
            let asked = Instant::now();
            while asked.elapsed() < GRACE && !self.has_ended() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a child does.
pub(crate) fn main(arguments: Vec<String>) -> ExitCode {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
    let mut arguments = arguments.into_iter();
    let played = match arguments.next().as_deref() {
        Some(EXEC) => become_program(arguments.map(OsString::from)),
        Some("upstream") => {
            watch_parent();
            upstream::serve(arguments.next().and_then(|it| it.parse().ok()).unwrap_or(1))
        }
        Some("bare") => {
            watch_parent();
            bare::serve(&arguments.collect::<Vec<_>>())
        }
        Some("fill") => {
            watch_parent();
            prepared::fill_here(&arguments.collect::<Vec<_>>())
        }
        Some("growth") => {
            watch_parent();
            growth::measure_here(&arguments.collect::<Vec<_>>())
        }
        role => Err(format!("unknown role {role:?}").into()),
    };
    match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("a child of the bench failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn become_program(mut arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let program = arguments.next().ok_or("no program")?;
    Err(Command::new(program).args(arguments).exec().into())
}

/// Ends this process when the parent's end of standard input closes.
#[expect(clippy::disallowed_methods, reason = "the parent is gone: there is nobody to return to")]
fn watch_parent() {
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut rest);
        std::process::exit(0);
    });
}
