//! The reader's shell.
use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

/// Printed after each command; no command prints it.
const MARK: &str = "end-of-command-of-the-tutorial";
/// How long a command may take: a build of all dependencies on a slow machine, with room.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(900);

/// One shell for the whole page: a `cd` and a variable stay. What it has started ends with it.
pub(crate) struct Shell {
    shell: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Shell {
    /// Begins in this folder, with these variables.
    pub(crate) fn start(folder: &Path, variables: &[(&str, &Path)], without: &[String]) -> io::Result<Self> {
        let mut command = Command::new("sh");
        command.current_dir(folder).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        for name in without {
            command.env_remove(name);
        }
        let mut shell = command.envs(variables.iter().copied()).spawn()?;
        let broken = || io::Error::other("the shell has no pipes");
        let (stdin, stdout) = (shell.stdin.take().ok_or_else(broken)?, shell.stdout.take().ok_or_else(broken)?);
        let (send, lines) = channel();
        std::thread::spawn(move || {
            let read = BufReader::new(stdout).split(b'\n').map_while(Result::ok);
            for line in read.map(|line| String::from_utf8_lossy(&line).into_owned()) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { shell, stdin, lines })
    }

    /// Runs a command: what it prints to both streams, and how long it took.
    pub(crate) fn run(&mut self, command: &str) -> io::Result<(Vec<String>, Duration)> {
        let began = Instant::now();
        // The first line feed ends a last line without one.
        writeln!(self.stdin, "{{ {command}\n}} </dev/null 2>&1\nprintf '\\n%s\\n' {MARK}")?;
        let mut output = vec![];
        loop {
            let left = COMMAND_TIME_MAX.saturating_sub(began.elapsed());
            match self.lines.recv_timeout(left) {
                Ok(line) if line == MARK => break,
                Ok(line) => output.push(line),
                Err(_) => {
                    let so_far = output.join("\n");
                    return Err(io::Error::other(format!(
                        "{command:?} ends the shell, or takes longer than {COMMAND_TIME_MAX:?}: {so_far}"
                    )));
                }
            }
        }
        if output.last().is_some_and(String::is_empty) {
            output.pop();
        }
        Ok((output, began.elapsed()))
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let group = format!("kill -KILL -{}", self.shell.id());
        let killed = Command::new("sh").args(["-c", &group]).status();
        println!("what is left of the shell is killed: {killed:?}; {:?}", self.shell.wait());
    }
}
