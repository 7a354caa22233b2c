//! One connection: HTTP/2 over the socket, driven by whoever holds it. No task is spawned, so that all of it ends with its owner.
use std::{
    collections::BTreeSet,
    path::Path,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::UnixStream, sync::mpsc};
use tonic::body::Body;

use crate::info::{Fault, PluginState};

/// A plugin that stands still is noticed after this and the next together, whether it is spoken to or not.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// For its answer.
const KEEPALIVE_MAX: Duration = Duration::from_secs(5);
/// What a plugin may send ahead of what is read, octets: its messages are few and short.
const WINDOW_LEN: u32 = 64 * 1024;
/// What waits to be written, octets: two chunks.
const SEND_LEN_MAX: usize = 128 * 1024;
/// Longest list of headers taken, octets: there are a handful.
const HEADERS_LEN_MAX: u32 = 8 * 1024;
/// Parts of one connection that run beside each other: the connection, the one call, its body.
const PARTS_MAX: usize = 16;
/// For the connection itself, which needs no answer of the plugin's.
const DIAL_MAX: Duration = Duration::from_secs(5);

type Part = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes what hyper would spawn.
#[derive(Clone)]
struct Parts(mpsc::Sender<Part>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Parts {
    fn execute(&self, part: F) {
        if self.0.try_send(Box::pin(part)).is_err() {
            tracing::debug!("a part of the connection is not run: it has ended, or has too many");
        }
    }
}

/// Where requests go in.
pub(crate) struct Requests(http2::SendRequest<Body>);

impl tower_service::Service<http::Request<Body>> for Requests {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.send_request(request).boxed()
    }
}

/// Dials the socket, whose file belongs to `owner`, and looks at who listens there.
pub(crate) async fn dial(path: &Path, owner: u32, uids: &BTreeSet<u32>) -> Result<UnixStream, Fault> {
    let lost = |words: String| Fault::new(PluginState::Lost, words);
    let stream = tokio::time::timeout(DIAL_MAX, UnixStream::connect(path))
        .await
        .map_err(|_| Fault::new(PluginState::Stalled, "it does not take the connection"))?
        .map_err(|error| lost(format!("cannot connect to {}: {error}", path.display())))?;
    let uid = stream.peer_cred().map_err(|error| lost(error.to_string()))?.uid();
    if uid != owner {
        let words = format!("user {uid} listens on {}, which belongs to user {owner}", path.display());
        return Err(Fault::new(PluginState::Refused, words));
    }
    if !uids.contains(&uid) {
        let words = format!("user {uid} listens on {}, and is none of those that may run plugins", path.display());
        return Err(Fault::new(PluginState::Refused, words));
    }
    Ok(stream)
}

/// Speaks HTTP/2 over it: where requests go in, and what drives it until it ends, and then says why.
pub(crate) async fn open(stream: UnixStream) -> Result<(Requests, impl Future<Output = Fault> + Send), Fault> {
    let (parts, mut mailbox) = mpsc::channel(PARTS_MAX);
    let (requests, connection) = http2::Builder::new(Parts(parts))
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_LEN)
        .initial_connection_window_size(WINDOW_LEN)
        .max_header_list_size(HEADERS_LEN_MAX)
        .max_send_buf_size(SEND_LEN_MAX)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_MAX)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| ended(&error))?;
    let drive = async move {
        let (mut connection, mut running) = (pin!(connection), FuturesUnordered::<Part>::new());
        loop {
            tokio::select! {
                result = &mut connection => return match result {
                    Ok(()) => Fault::new(PluginState::Lost, "it has closed the connection"),
                    Err(error) => ended(&error),
                },
                Some(part) = mailbox.recv() => running.push(part),
                Some(()) = running.next(), if !running.is_empty() => {}
            }
        }
    };
    Ok((Requests(requests), drive))
}

/// Why a connection has ended.
pub(crate) fn ended(error: &(dyn std::error::Error + 'static)) -> Fault {
    let words = ferrocast_core::actor::chain(error);
    if words.contains("keep-alive timed out") {
        return Fault::new(PluginState::Stalled, format!("it has not answered for {KEEPALIVE_MAX:?}"));
    }
    let (words, _) = ferrocast_plugin_proto::text::clean(&words, ferrocast_plugin_proto::TEXT_LEN_MAX);
    Fault::new(PluginState::Lost, words)
}
