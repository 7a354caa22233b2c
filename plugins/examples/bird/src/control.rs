//! BIRD's control socket: one command, one reply. Source: BIRD 2, doc/reply_codes.
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::{Instant, sleep, timeout},
};

/// How long BIRD may take for a reply: it reads ten thousand routes in a fraction of a second.
const REPLY_TIME_MAX: Duration = Duration::from_secs(10);
/// How long BIRD may take to have a new configuration wholly in force, beyond its reply: protocols of the user's may have to restart.
const RECONFIGURE_TIME_MAX: Duration = Duration::from_secs(30);
/// How long the routes of a protocol may take to be there when it has just been added.
const ROUTES_TIME_MAX: Duration = Duration::from_secs(2);
/// Between two looks: BIRD does not say when it is done.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The longest line that is read, octets; ours are short, and a message quotes at most a path.
const LINE_LEN_MAX: u64 = 16 * 1024;
/// The most lines of a reply: what is asked here has a handful.
const LINES_MAX: usize = 256;

const WELCOME: u16 = 1;
const RECONFIGURED: u16 = 3;
const RECONFIGURING: u16 = 4;
const QUEUED: u16 = 5;
const STATUS: u16 = 13;
const CONFIGURATION_WRONG: u16 = 8002;
const COMMAND_WRONG: u16 = 9001;

/// Why BIRD has not got what it should have.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BirdError {
    /// The user has to see to it: a disk is full, or the folder is not for us.
    #[error("{path} cannot be read or written")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// BIRD is not there, or its socket is not for us: try again later.
    #[error("BIRD cannot be reached at {path}")]
    Absent {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The connection broke: dial again.
    #[error("the connection to BIRD is lost")]
    Lost(#[source] io::Error),
    /// BIRD hangs: dial again.
    #[error("BIRD does not answer for {REPLY_TIME_MAX:?}")]
    Silent,
    /// The configuration is wrong, in BIRD's words: what was in force stays in force.
    #[error("BIRD refuses its configuration: {0}")]
    Refused(String),
    /// BIRD is well, but bird.conf does not have our file.
    #[error("BIRD has no protocol {0}: bird.conf does not include the plugin's file")]
    NotIncluded(&'static str),
    /// BIRD has read the file, and yet the routes are not there.
    #[error("BIRD has {has} of the {wanted} routes of {protocol}")]
    Routes { protocol: &'static str, has: usize, wanted: usize },
    /// Anything else, in BIRD's words.
    #[error("BIRD answers {0:?}")]
    Unexpected(String),
    /// It said that it is not done yet, and that was long ago.
    #[error("BIRD is still busy with its configuration after {RECONFIGURE_TIME_MAX:?}")]
    Busy,
}

impl BirdError {
    /// BIRD has given a whole answer: the connection is as good as before.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::NotIncluded(_) | Self::Routes { .. })
    }
}

/// The lines of a reply, each with its code.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reply {
    lines: Vec<(u16, String)>,
}

impl Reply {
    /// Adds a line; `true`: it was the last. A line is `CODE-text` or, the last one, `CODE text`; one that begins with a blank goes
    /// on with the code before it, and one that begins with `+` is from BIRD's log and no part of the reply.
    fn add(&mut self, line: &str) -> Result<bool, BirdError> {
        let wrong = || BirdError::Unexpected(line.to_owned());
        if line.starts_with('+') {
            return Ok(false);
        }
        if self.lines.len() >= LINES_MAX {
            return Err(wrong());
        }
        if let Some(text) = line.strip_prefix(' ') {
            let (code, _) = self.lines.last().ok_or_else(wrong)?;
            self.lines.push((*code, text.to_owned()));
            return Ok(false);
        }
        let (code, text) = line.split_at_checked(4).ok_or_else(wrong)?;
        let code = code.parse().map_err(|_| wrong())?;
        let last = match text.get(..1) {
            Some(" ") | None => true,
            Some("-") => false,
            Some(_) => return Err(wrong()),
        };
        self.lines.push((code, text.get(1..).unwrap_or_default().trim_end().to_owned()));
        Ok(last)
    }

    /// What it ends with.
    fn outcome(&self) -> (u16, &str) {
        self.lines.last().map_or((0, ""), |(code, text)| (*code, text))
    }

    fn unexpected(&self) -> BirdError {
        let (code, text) = self.outcome();
        BirdError::Unexpected(format!("{code:04} {text}"))
    }

    /// The routes that the protocol has brought into its table, in the answer to `show protocols all`.
    fn routes(&self, protocol: &'static str) -> Result<usize, BirdError> {
        match self.outcome() {
            (COMMAND_WRONG, _) => return Err(BirdError::NotIncluded(protocol)),
            (8000.., _) => return Err(self.unexpected()),
            _ => {}
        }
        match self.lines.iter().find_map(|(_, text)| text.trim().strip_prefix("Routes:")) {
            Some(counts) => {
                let imported = counts.split_whitespace().next().and_then(|word| word.parse().ok());
                imported.ok_or_else(|| BirdError::Unexpected(counts.to_owned()))
            }
            None => Ok(0), // it is down
        }
    }
}

/// A connection to BIRD.
#[derive(Debug)]
pub(crate) struct Control {
    stream: BufReader<UnixStream>,
    /// What BIRD calls itself.
    pub(crate) greeting: String,
}

impl Control {
    /// Dials, and reads the greeting.
    pub(crate) async fn open(path: &Path) -> Result<Self, BirdError> {
        let connected = UnixStream::connect(path).await;
        let stream = connected.map_err(|source| BirdError::Absent { path: path.to_owned(), source })?;
        let mut control = Self { stream: BufReader::new(stream), greeting: String::new() };
        let reply = timeout(REPLY_TIME_MAX, control.reply()).await.map_err(|_| BirdError::Silent)??;
        let (WELCOME, greeting) = reply.outcome() else { return Err(reply.unexpected()) };
        control.greeting = greeting.trim_end_matches('.').to_owned();
        Ok(control)
    }

    /// Waits until BIRD has closed the connection.
    ///
    /// # Cancellation
    /// Loses nothing that was asked for.
    pub(crate) async fn closed(&mut self) {
        while let Ok(unasked) = self.stream.fill_buf().await {
            let len = unasked.len();
            if len == 0 {
                return;
            }
            self.stream.consume(len);
        }
    }

    /// Has BIRD read its configuration, and waits until it is in force.
    ///
    /// Not `configure soft`: that would also take over filters that the user has changed meanwhile, but not apply them, and nobody
    /// would do so later. Not `configure timeout`: nobody is cut off by static routes.
    pub(crate) async fn configure(&mut self) -> Result<(), BirdError> {
        let reply = self.ask("configure").await?;
        match reply.outcome() {
            (RECONFIGURED, _) => Ok(()),
            (RECONFIGURING | QUEUED, _) => self.settled().await,
            (CONFIGURATION_WRONG, words) => Err(BirdError::Refused(words.to_owned())),
            _ => Err(reply.unexpected()),
        }
    }

    async fn settled(&mut self) -> Result<(), BirdError> {
        let until = Instant::now() + RECONFIGURE_TIME_MAX;
        while Instant::now() < until {
            let reply = self.ask("show status").await?;
            match reply.outcome() {
                (STATUS, words) if words.starts_with("Reconfiguration") => sleep(LOOK_AGAIN).await,
                (STATUS, words) if words.starts_with("Daemon is up") => return Ok(()),
                _ => return Err(reply.unexpected()),
            }
        }
        Err(BirdError::Busy)
    }

    /// Waits until the protocol has so many routes.
    pub(crate) async fn has(&mut self, protocol: &'static str, wanted: usize) -> Result<(), BirdError> {
        let until = Instant::now() + ROUTES_TIME_MAX;
        loop {
            let reply = self.ask(&format!("show protocols all {protocol}")).await?;
            let has = reply.routes(protocol)?;
            if has == wanted {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(BirdError::Routes { protocol, has, wanted });
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// # Cancellation
    /// The connection is to be dropped then: the reply would be taken for that to the next command.
    async fn ask(&mut self, command: &str) -> Result<Reply, BirdError> {
        let answered = async {
            let line = format!("{command}\n");
            self.stream.get_mut().write_all(line.as_bytes()).await.map_err(BirdError::Lost)?;
            self.reply().await
        };
        timeout(REPLY_TIME_MAX, answered).await.map_err(|_| BirdError::Silent)?
    }

    async fn reply(&mut self) -> Result<Reply, BirdError> {
        let mut reply = Reply::default();
        loop {
            let mut octets = Vec::new();
            let read = (&mut self.stream).take(LINE_LEN_MAX).read_until(b'\n', &mut octets).await;
            read.map_err(BirdError::Lost)?;
            if octets.pop() != Some(b'\n') {
                return Err(BirdError::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
            if reply.add(&String::from_utf8_lossy(&octets))? {
                return Ok(reply);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(printed: &str) -> Reply {
        let mut reply = Reply::default();
        let ends: Vec<bool> = printed.lines().map(|line| reply.add(line).unwrap()).collect();
        assert_eq!(ends.iter().position(|end| *end), Some(ends.len() - 1), "{printed}");
        reply
    }

    #[test]
    fn reply_is_read_to_its_last_line_with_the_code_of_each() {
        let reply = read("0001 BIRD 2.0.12 ready.");
        assert_eq!(reply.outcome(), (WELCOME, "BIRD 2.0.12 ready."));
        let reply =
            read("0002-Reading configuration from bird.conf\n+log line\n8002 bird.conf:8:1 syntax error, unexpected X");
        assert_eq!(reply.outcome(), (CONFIGURATION_WRONG, "bird.conf:8:1 syntax error, unexpected X"));
        let reply =
            read("1000-BIRD 2.0.12\n1011-Router ID is 192.0.2.1\n Hostname is n1\n0013 Daemon is up and running");
        assert_eq!(reply.lines[2], (1011, "Hostname is n1".to_owned()));
        assert_eq!(read("0000 ").outcome(), (0, ""));
        assert_eq!(read("0000").outcome(), (0, ""));
        for wrong in ["", "abc", "00x1 text", "0001?text", " no code before", "ÄÄÄÄ text"] {
            assert!(Reply::default().add(wrong).is_err(), "{wrong:?}");
        }
        let mut endless = Reply { lines: vec![(1007, String::new()); LINES_MAX] };
        assert!(endless.add(" more").is_err());
    }

    #[test]
    fn routes_are_counted_or_it_is_told_that_the_file_is_not_included() {
        let count = |printed| read(printed).routes("ferrocast4");
        let up = "1002-ferrocast4 Static\n1006-  Channel ipv4\n     Routes:         2 imported, 0 exported, 5 preferred\n \n0000 ";
        assert_eq!(count(up).unwrap(), 2);
        assert_eq!(count("1002-ferrocast4 Static\n1006-  Channel ipv4\n     State:   DOWN\n \n0000 ").unwrap(), 0);
        assert!(matches!(count("9001 syntax error, unexpected CF_SYM_UNDEFINED"), Err(BirdError::NotIncluded(_))));
        assert!(
            matches!(count("8007 Access denied"), Err(BirdError::Unexpected(words)) if words == "8007 Access denied")
        );
        assert!(count("1006-  Channel ipv4\n     Routes:         some imported\n0000 ").is_err());
    }

    #[tokio::test]
    async fn configuration_is_in_force_when_bird_is_no_longer_busy_with_it() {
        const READING: &str = "0002-Reading configuration from bird.conf\n";
        const BUSY: &str = "1000-BIRD 2.0.12\n0013 Reconfiguration in progress\n";
        const UP: &str = "1000-BIRD 2.0.12\n0013 Daemon is up and running\n";
        let cases: [(&[&str], &str); 6] = [
            (&["0003 Reconfigured\n"], "in force"),
            (&["0004 Reconfiguration in progress\n", BUSY, BUSY, UP], "in force"),
            (&["0005 Reconfiguration already in progress, queueing new config\n", BUSY, UP], "in force"),
            (&["0004 Reconfiguration in progress\n", "0013 Shutdown in progress\n"], "BIRD answers \"0013 Shutdown"),
            (&["0006 Reconfiguration ignored, shutting down\n"], "BIRD answers \"0006 Reconfiguration ignored"),
            (&["8002 bird.conf:1:1 no\n"], "BIRD refuses its configuration: bird.conf:1:1 no"),
        ];
        for (answers, want) in cases {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let mut control = Control { stream: BufReader::new(ours), greeting: String::new() };
            let mut theirs = BufReader::new(theirs);
            let bird = async {
                let mut asked = String::new();
                for (number, answer) in answers.iter().enumerate() {
                    theirs.read_line(&mut asked).await.unwrap();
                    let before = if number == 0 { READING } else { "" };
                    theirs.get_mut().write_all(format!("{before}{answer}").as_bytes()).await.unwrap();
                }
                asked
            };
            let (outcome, asked) = tokio::join!(control.configure(), bird);
            let words = outcome.map_or_else(|error| error.to_string(), |()| "in force".to_owned());
            assert!(words.starts_with(want), "{answers:?}: {words}");
            assert_eq!(asked, format!("configure\n{}", "show status\n".repeat(answers.len() - 1)));
        }
    }
}
