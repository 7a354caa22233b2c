//! What the rest of the process holds: the thread, a session, and what a session is at.
use std::{
    io,
    net::IpAddr,
    os::unix::net::UnixDatagram,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    time::{Duration, SystemTime},
};

use tokio::sync::{oneshot, watch};

use crate::{
    count::{Counters, NodeCounters, NodeCounts, Shared},
    driver,
    packet::{Diagnostic, State},
};

/// Commands that may wait for the thread; it takes them as soon as it runs, so more mean that it does not.
const COMMANDS_MAX: usize = 1_024;

/// How a peer is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// The peer.
    pub peer: IpAddr,
    /// Our address; `None`: the kernel chooses by its routes.
    pub local: Option<IpAddr>,
    /// The interface to send on; needed for a link-local peer.
    pub interface: Option<String>,
    /// The peer is not on the link: UDP 4784 and `minimum_ttl` (RFC 5883) in place of 3784 and 255 (RFC 5881).
    pub multihop: bool,
    /// Lowest TTL of a received packet, multihop only.
    pub minimum_ttl: u8,
    /// Interval at which we would send.
    pub desired_min_tx: Duration,
    /// Interval at which we can receive.
    pub required_min_rx: Duration,
    /// Packets of ours that the peer may miss in a row.
    pub detect_multiplier: u8,
    /// Interval of our echo packets, and of the peer's that are looped back; single hop only.
    pub echo_interval: Option<Duration>,
    /// Wait for the peer's first packet.
    pub passive: bool,
    /// Label `peer` of the metrics.
    pub label: String,
}

impl SessionConfig {
    /// A single-hop session with MetalLB's defaults: 3 × 300 ms.
    #[must_use]
    pub fn new(peer: IpAddr) -> Self {
        Self {
            peer,
            local: None,
            interface: None,
            multihop: false,
            minimum_ttl: 254,
            desired_min_tx: Duration::from_millis(300),
            required_min_rx: Duration::from_millis(300),
            detect_multiplier: 3,
            echo_interval: None,
            passive: false,
            label: peer.to_string(),
        }
    }
}

/// What a session is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Our state.
    pub state: State,
    /// The peer's state, as far as known.
    pub remote_state: State,
    /// Why our state last changed.
    pub diagnostic: Diagnostic,
    /// Why the peer's state last changed.
    pub remote_diagnostic: Diagnostic,
    /// When our state last changed.
    pub since: SystemTime,
    /// Our name for the session.
    pub local_discriminator: u32,
    /// The peer's name for the session; 0: not heard.
    pub remote_discriminator: u32,
    /// Longest interval between our packets; zero: none are due.
    pub transmit_interval: Duration,
    /// Silence of the peer after which the session is Down; zero: nothing heard yet.
    pub detection_time: Duration,
    /// Up at least once.
    pub was_up: bool,
    /// The peer's administrator took it down, and it has not been Up since.
    pub admin_down_by_peer: bool,
    /// Echo packets are being sent.
    pub echo: bool,
    /// Why it cannot run, in words.
    pub error: Option<String>,
    /// What it does not do although it was asked to, in words: echo without the right to it.
    pub warning: Option<String>,
}

impl SessionInfo {
    /// Before anything has happened.
    pub(crate) fn new(since: SystemTime) -> Self {
        Self {
            state: State::Down,
            remote_state: State::Down,
            diagnostic: Diagnostic::None,
            remote_diagnostic: Diagnostic::None,
            since,
            local_discriminator: 0,
            remote_discriminator: 0,
            transmit_interval: Duration::ZERO,
            detection_time: Duration::ZERO,
            was_up: false,
            admin_down_by_peer: false,
            echo: false,
            error: None,
            warning: None,
        }
    }

    /// The path worked and works no more: what brings a routing session down. An administrator's doing, on either side,
    /// says nothing about the path, and neither does a session that was never Up. Source: RFC 5882 §3.2, §4.3.2.
    #[must_use]
    pub const fn path_failed(&self) -> bool {
        self.was_up && !self.admin_down_by_peer && matches!(self.state, State::Down | State::Init)
    }
}

/// What the thread is told.
pub(crate) enum Command {
    Open { id: u64, config: SessionConfig, info: watch::Sender<SessionInfo>, counts: Arc<Shared> },
    Update { id: u64, config: SessionConfig },
    Close { id: u64 },
    Stop { told: Option<oneshot::Sender<()>> },
}

/// The way to the thread.
#[derive(Clone)]
struct Line {
    commands: SyncSender<Command>,
    wake: Arc<UnixDatagram>,
}

impl Line {
    /// Hands a command over. Waits only while [`COMMANDS_MAX`] are ahead of it; after the thread has ended, nothing happens.
    fn tell(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            // Refused only while earlier wake-ups are still unread: then it wakes anyway.
            drop(self.wake.send(&[0]));
        }
    }
}

struct Inner {
    line: Line,
    next_id: AtomicU64,
    counts: Arc<NodeCounts>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.line.tell(Command::Stop { told: None });
    }
}

/// The thread that drives all sessions of a node. When the last clone is dropped, it tells every peer AdminDown and ends.
#[derive(Clone)]
pub struct Bfd(Arc<Inner>);

impl std::fmt::Debug for Bfd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bfd").finish_non_exhaustive()
    }
}

impl Bfd {
    /// Starts the thread. It opens no port before the first session.
    ///
    /// # Errors
    /// The system gives no thread or no descriptor.
    pub fn start() -> io::Result<Self> {
        let (commands, inbox) = sync_channel(COMMANDS_MAX);
        let (wake, woken) = UnixDatagram::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let counts = Arc::new(NodeCounts::default());
        driver::spawn(inbox, woken, Arc::clone(&counts))?;
        let line = Line { commands, wake: Arc::new(wake) };
        Ok(Self(Arc::new(Inner { line, next_id: AtomicU64::new(0), counts })))
    }

    /// Opens a session. What is wrong with `config`, or with the system, is in its [`SessionInfo::error`].
    #[must_use]
    pub fn open(&self, config: SessionConfig) -> Session {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let (info, watch) = watch::channel(SessionInfo::new(SystemTime::now()));
        let counts = Arc::new(Shared::default());
        let line = self.0.line.clone();
        line.tell(Command::Open { id, config, info, counts: Arc::clone(&counts) });
        Session { id, line, watch, counts }
    }

    /// Tells every peer AdminDown and waits until the first packet to each was sent: for a process that is about to end.
    /// The thread ends then, whoever holds clones and sessions.
    ///
    /// # Cancellation
    /// The thread ends nonetheless.
    pub async fn close(self) {
        let (told, answer) = oneshot::channel();
        self.0.line.tell(Command::Stop { told: Some(told) });
        // An error says that the thread has ended: there is nothing to wait for.
        drop(answer.await);
    }

    /// Counts of the node.
    #[must_use]
    pub fn counters(&self) -> NodeCounters {
        self.0.counts.read()
    }
}

/// A session. When it is dropped, the peer is told AdminDown and the session is forgotten.
pub struct Session {
    id: u64,
    line: Line,
    watch: watch::Receiver<SessionInfo>,
    counts: Arc<Shared>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Session {
    /// What it is at. Closed when the session is over.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<SessionInfo> {
        self.watch.clone()
    }

    /// Changes the configuration. Timers change by a poll sequence, without a flap (RFC 5880 §6.8.3); another address,
    /// interface or kind of session begins anew.
    pub fn update(&self, config: SessionConfig) {
        self.line.tell(Command::Update { id: self.id, config });
    }

    /// Ends the session, as dropping it does.
    pub fn admin_down(self) {
        drop(self);
    }

    /// Counts since it was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counts.read()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.line.tell(Command::Close { id: self.id });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_failed_only_after_up_and_by_nobodys_will() {
        for (state, was_up, admin_down_by_peer, expected) in [
            (State::Down, false, false, false),
            (State::Up, true, false, false),
            (State::Down, true, false, true),
            (State::Init, true, false, true),
            (State::Down, true, true, false),
            (State::AdminDown, true, false, false),
        ] {
            let info = SessionInfo { state, was_up, admin_down_by_peer, ..SessionInfo::new(SystemTime::UNIX_EPOCH) };
            assert_eq!(info.path_failed(), expected, "{info:?}");
        }
    }

    #[tokio::test]
    async fn an_impossible_session_says_why_and_ends_with_the_thread() {
        let bfd = Bfd::start().unwrap();
        let session = bfd.open(SessionConfig::new("0.0.0.0".parse().unwrap()));
        let mut watch = session.watch();
        let info = watch.wait_for(|info| info.error.is_some()).await.unwrap().clone();
        assert!(info.error.unwrap().contains("not the address of a peer"));
        bfd.close().await;
        assert!(watch.wait_for(|_| false).await.is_err(), "closed");
        session.update(SessionConfig::new("192.0.2.1".parse().unwrap()));
        assert_eq!(session.counters(), Counters::default());
    }
}
