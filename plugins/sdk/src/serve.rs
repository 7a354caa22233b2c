//! gRPC on the socket.
use std::{io, path::Path, sync::Arc, task::Poll, time::Duration};

use ferrocast_core::{actor::CancellationToken, announce::Announcer};
use ferrocast_plugin_proto::{
    MESSAGE_LEN_MAX, ORPHAN_HOLD_S, PROTOCOL_MAX, PROTOCOL_MIN,
    v1alpha1::{
        HostMessage, PluginMessage,
        announcer_server::{self, AnnouncerServer},
    },
};
use futures::{Stream, stream};
use tokio::{net::UnixListener, sync::mpsc};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::keeper::{Call, Keeper};

/// What the host is told of the plugin, and how much it may ask.
#[derive(Clone, Debug)]
pub struct Options {
    /// The plugin's name: that of the socket's file without `.sock`.
    pub name: String,
    /// Version of the program, for people.
    pub version: String,
    /// The lowest and the highest protocol number.
    pub protocol: (u32, u32),
    /// Longest time that what is announced is kept without a host, seconds; less if the host asks for less.
    pub orphan_hold_max_s: u32,
}

impl Options {
    /// For a plugin of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: concat!("sdk ", env!("CARGO_PKG_VERSION")).to_owned(),
            protocol: (PROTOCOL_MIN, PROTOCOL_MAX),
            orphan_hold_max_s: ORPHAN_HOLD_S,
        }
    }

    /// For a plugin that listens on this socket.
    #[must_use]
    pub fn for_socket(path: &Path) -> Self {
        Self::new(&path.file_stem().unwrap_or_default().to_string_lossy())
    }
}

/// Serving has ended, and not because it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve the socket")]
pub struct ServeError(#[from] tonic::transport::Error);

/// A stopped or hung host is noticed after twice this; what is announced is then kept for the orphan hold.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// What a host may send ahead of what is read, octets: enough for a snapshot to flow without a pause.
const WINDOW_LEN: u32 = 1024 * 1024;
/// Calls that wait to take over from the one that is served: one, the newest host's.
const CALLS_MAX: usize = 1;
/// Answers and statuses that a host has not read yet; one that does not read loses the call.
pub(crate) const UNREAD_MAX: usize = 32;
/// How long connections are given to see their calls end.
const FAREWELL: Duration = Duration::from_millis(500);

/// Serves `announcer` to the hosts that dial `listener`, until `stop`. The announcer is not shut down: that is for its owner.
///
/// # Errors
/// See [`ServeError`].
///
/// # Cancellation
/// As after `stop`, but that hosts see the connection break.
pub async fn serve(
    listener: UnixListener,
    announcer: Arc<dyn Announcer>,
    options: Options,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let (calls, mailbox) = mpsc::channel(CALLS_MAX);
    let service = AnnouncerServer::new(Service { calls })
        .max_decoding_message_size(MESSAGE_LEN_MAX)
        .max_encoding_message_size(MESSAGE_LEN_MAX);
    let incoming = stream::poll_fn(move |cx| match listener.poll_accept(cx) {
        Poll::Ready(Ok((stream, _))) => Poll::Ready(Some(Ok::<_, io::Error>(stream))),
        Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
        Poll::Pending => Poll::Pending,
    });
    let mut server = std::pin::pin!(
        Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .initial_stream_window_size(WINDOW_LEN)
            .initial_connection_window_size(WINDOW_LEN)
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned())
    );
    tokio::select! {
        ended = &mut server => ended?,
        () = Keeper::new(announcer, options, mailbox).run(stop) => {
            // Whoever has not gone by then is cut off.
            if let Ok(ended) = tokio::time::timeout(FAREWELL, server).await {
                ended?;
            }
        }
    }
    Ok(())
}

struct Service {
    calls: mpsc::Sender<Call>,
}

#[tonic::async_trait]
impl announcer_server::Announcer for Service {
    type SyncStream = std::pin::Pin<Box<dyn Stream<Item = Result<PluginMessage, Status>> + Send>>;

    async fn sync(&self, request: Request<Streaming<HostMessage>>) -> Result<Response<Self::SyncStream>, Status> {
        let (out, mut answers) = mpsc::channel(UNREAD_MAX);
        let call = Call { incoming: request.into_inner(), out };
        self.calls.send(call).await.map_err(|_| Status::unavailable("the plugin ends"))?;
        Ok(Response::new(Box::pin(stream::poll_fn(move |cx| answers.poll_recv(cx)))))
    }
}
