//! A connection with what is still to be written and what is not yet a whole message.
use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use ferrocast_bgp_proto::wire::Message;
use tokio::{
    io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf},
    time::Instant,
};

use crate::dial::Stream;

/// Octets read at once: a few messages.
const READ_LEN: usize = 16 * 1024;
/// Longest wait for the last messages to leave before a connection is closed: a peer that does not read must not hold us.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);
/// Longest wait for the peer to close after our NOTIFICATION. Closing with unread octets makes the kernel send a reset, which
/// can overtake the NOTIFICATION.
const LINGER_TIME_MAX: Duration = Duration::from_millis(500);

/// What moved, with the number of octets.
pub(crate) enum Progress {
    /// The inbox has grown.
    Read(usize),
    /// The outbox has shrunk.
    Wrote(usize),
    /// The connection is over; `None`: the peer closed it.
    Ended(Option<io::Error>),
}

/// One connection's octets in both directions.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    /// Received, less whole messages that were taken off.
    pub(crate) inbox: BytesMut,
    /// Whole messages to be sent, less what has left.
    pub(crate) outbox: BytesMut,
    /// Since when nothing has left although there is something.
    blocked_since: Option<Instant>,
    /// Reading and writing take turns, so that neither starves the other.
    read_first: bool,
    scratch: Box<[u8]>,
}

impl Wire {
    pub(crate) fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            blocked_since: None,
            read_first: true,
            scratch: vec![0; READ_LEN].into(),
        }
    }

    /// Queues a message.
    pub(crate) fn queue(&mut self, message: &Message<'_>) {
        message.encode(&mut self.outbox);
    }

    /// When nothing will have left for `limit`; `None`: nothing is waiting.
    pub(crate) fn blocked_until(&self, limit: Duration) -> Option<Instant> {
        self.blocked_since.map(|since| since + limit)
    }

    /// Reads or writes some octets.
    ///
    /// # Cancellation
    /// Safe: all progress is in `self`.
    pub(crate) async fn progress(&mut self) -> Progress {
        if !self.outbox.is_empty() && self.blocked_since.is_none() {
            self.blocked_since = Some(Instant::now());
        }
        self.read_first = !self.read_first;
        poll_fn(|cx| {
            let first = if self.read_first { self.poll_read(cx) } else { self.poll_write(cx) };
            if first.is_ready() {
                return first;
            }
            if self.read_first { self.poll_write(cx) } else { self.poll_read(cx) }
        })
        .await
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        if self.outbox.is_empty() {
            return Poll::Pending;
        }
        match Pin::new(&mut self.stream).poll_write(cx, &self.outbox) {
            Poll::Ready(Ok(len)) if len > 0 => {
                self.outbox.advance(len);
                self.blocked_since = (!self.outbox.is_empty()).then(Instant::now);
                Poll::Ready(Progress::Wrote(len))
            }
            Poll::Ready(Ok(_)) => Poll::Ready(Progress::Ended(None)),
            Poll::Ready(Err(error)) => Poll::Ready(Progress::Ended(Some(error))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        let mut buffer = ReadBuf::new(&mut self.scratch);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                self.inbox.extend_from_slice(buffer.filled());
                Poll::Ready(Progress::Read(buffer.filled().len()))
            }
            Poll::Ready(Ok(())) => Poll::Ready(Progress::Ended(None)),
            Poll::Ready(Err(error)) => Poll::Ready(Progress::Ended(Some(error))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Sends what is queued, lets the peer read it, closes. Takes [`FLUSH_TIME_MAX`] and [`LINGER_TIME_MAX`] at most.
    pub(crate) async fn close(mut self) {
        let flushed = async {
            self.stream.write_all(&self.outbox).await?;
            self.stream.shutdown().await
        };
        if !matches!(tokio::time::timeout(FLUSH_TIME_MAX, flushed).await, Ok(Ok(()))) {
            return; // the peer is gone or does not read
        }
        let linger = async { while self.stream.read(&mut self.scratch).await.is_ok_and(|len| len > 0) {} };
        if tokio::time::timeout(LINGER_TIME_MAX, linger).await.is_err() {
            tracing::trace!("the peer keeps the closed connection open");
        }
    }
}
