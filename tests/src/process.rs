//! Programs of the test bed: started with their output in a log, stopped for certain, their tail shown on failure.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::wait::eventually;

/// How long a program that was told to stop may take before the test calls that a failure, s.
const STOP_TIME_MAX_S: u64 = 20;
/// Lines of a log that a failure's report shows.
const TAIL_LINES: usize = 25;

/// A running program. Dropping it kills it with everything it started.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// A command line, inside a network namespace of the lab if one is named.
#[must_use]
pub fn command(netns: Option<&str>, program: &Path) -> Command {
    match netns {
        None => Command::new(program),
        Some(netns) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", netns]).arg(program);
            command
        }
    }
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// When it cannot be started or fails: with what it wrote to both outputs.
pub fn run(command: &mut Command) -> Result<String> {
    run_with_input(command, None)
}

/// As [`run`], with `input` on the command's standard input.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(command: &mut Command, input: Option<&str>) -> Result<String> {
    let line = format!("{command:?}");
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| format!("starting {line}"))?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(input.as_bytes()).with_context(|| format!("writing to {line}"))?;
    }
    let output = child.wait_with_output().with_context(|| format!("waiting for {line}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{line}: {}: {}{stdout}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(stdout)
}

/// Runs a line of words, split at blanks: for `ip`, `sysctl` and the like.
///
/// # Errors
/// As [`run`].
pub fn sh(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command line")?;
    run(Command::new(program).args(words))
}

/// A TCP port of loopback that nothing uses now.
///
/// # Errors
/// When none can be had.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Process {
    /// Starts `command` in a process group of its own; both outputs are appended to `<logs>/<name>.log`.
    ///
    /// # Errors
    /// When the log or the program cannot be opened.
    pub fn start(name: &str, logs: &Path, command: &mut Command) -> Result<Self> {
        fs::create_dir_all(logs)?;
        let log = logs.join(format!("{name}.log"));
        let out: File = OpenOptions::new().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Its process id, the same inside and outside the network namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, such as `TERM`.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: &str) -> Result<()> {
        sh(&format!("kill -{signal} {}", self.pid())).map(drop)
    }

    /// Asks it to stop and waits until it did.
    ///
    /// # Errors
    /// When it does not stop in time.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.ended().await
    }

    /// Waits until it has ended by itself, or after a signal.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let name = self.name.clone();
        eventually(&format!("{name} ends"), Duration::from_secs(STOP_TIME_MAX_S), async || {
            self.child.try_wait()?.context("still running")
        })
        .await
    }

    /// Kills it at once, as a crash or the kernel's memory killer would.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// All it has written so far.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// The end of its log, with a heading.
    #[must_use]
    pub fn tail(&self) -> String {
        tail(&self.name, &self.log)
    }

    /// # Errors
    /// When it has ended: with the end of its log.
    pub fn ensure_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}\n{}", self.name, self.tail()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group, not the process: a shell's children too. It may have ended already; then there is nothing to do.
        drop(sh(&format!("kill -KILL -- -{}", self.pid())));
        drop(self.child.wait());
    }
}

/// The last lines of a file, under a heading.
#[must_use]
pub fn tail(name: &str, log: &Path) -> String {
    let text =
        fs::read(log).map_or_else(|error| error.to_string(), |octets| String::from_utf8_lossy(&octets).into_owned());
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    format!("--- {name} ({})\n{}\n", log.display(), lines[from..].join("\n"))
}
