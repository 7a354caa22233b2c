//! One call of the host to a plugin, written close to the wire so that wrong things can be sent, too.
use std::{future::pending, path::Path, time::Duration};

use bytes::{Buf as _, BufMut as _, Bytes};
use ferrocast_plugin_proto::{
    MESSAGE_LEN_MAX,
    v1alpha1::{HostHello, HostMessage, PluginMessage, host_message, plugin_message},
};
use futures::stream;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::{net::UnixStream, sync::mpsc, time::timeout};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

/// The method, as the protocol's text names it.
const METHOD: &str = "/ferrocast.announcer.v1alpha1.Announcer/Sync";
/// Messages waiting to be sent; the rest waits in the check that sends them.
const OUTBOX_LEN_MAX: usize = 16;
/// How long a plugin may take to take a connection: it listens already, or it does not.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Octets go out as they are; what comes in is read.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = PluginMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = PluginMessage;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<PluginMessage>, Status> {
        let octets = from.copy_to_bytes(from.remaining());
        let read = PluginMessage::decode(octets);
        read.map(Some).map_err(|error| Status::internal(format!("the plugin's message cannot be read: {error}")))
    }
}

/// How a call ended, in words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("nobody answers on the socket: {0}")]
    NotThere(String),
    #[error("the call ended: {0}")]
    Ended(String),
    #[error("nothing came for {0:?}")]
    Silent(Duration),
}

/// An open call. Dropping it is what the end of a host looks like to a plugin.
#[derive(Debug)]
pub(crate) struct Call {
    outbox: mpsc::Sender<Bytes>,
    inbox: Streaming<PluginMessage>,
}

async fn dial(socket: &Path) -> Result<Channel, CallError> {
    let socket = socket.to_owned();
    let connector = service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The name is not looked up; a URI has to have one.
    let endpoint = Endpoint::from_static("http://plugin").connect_timeout(CONNECT_TIME_MAX);
    endpoint.connect_with_connector(connector).await.map_err(|error| CallError::NotThere(chain(&error)))
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    ferrocast_core::actor::chain(error)
}

impl Call {
    /// Opens a call with this as its first message.
    pub(crate) async fn open(socket: &Path, hello: HostHello, time_max: Duration) -> Result<Self, CallError> {
        let channel = dial(socket).await?;
        let (outbox, queue) = mpsc::channel::<Bytes>(OUTBOX_LEN_MAX);
        // It waits in the queue already when the call begins: some servers send no header before they have something to say.
        send(&outbox, &host_message::Message::Hello(hello)).await?;
        let mut client = Grpc::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX);
        client.ready().await.map_err(|error| CallError::NotThere(chain(&error)))?;
        let messages = stream::unfold(queue, |mut queue| async move { queue.recv().await.map(|next| (next, queue)) });
        let called = client.streaming(Request::new(messages), PathAndQuery::from_static(METHOD), Raw);
        let answer = timeout(time_max, called).await.map_err(|_| CallError::Silent(time_max))?;
        let inbox = answer.map_err(|status| CallError::Ended(said(&status)))?.into_inner();
        Ok(Self { outbox, inbox })
    }

    /// Begins a call, says nothing in it for this long, and goes away.
    pub(crate) async fn open_without_a_word(socket: &Path, time: Duration) -> Result<(), CallError> {
        let channel = dial(socket).await?;
        let mut client = Grpc::new(channel);
        client.ready().await.map_err(|error| CallError::NotThere(chain(&error)))?;
        let silence = stream::once(pending::<Bytes>());
        let called = client.streaming(Request::new(silence), PathAndQuery::from_static(METHOD), Raw);
        // However it answers: nothing was said, nothing needs an answer.
        drop(timeout(time, called).await);
        Ok(())
    }

    /// Sends one message.
    pub(crate) async fn send(&self, message: host_message::Message) -> Result<(), CallError> {
        send(&self.outbox, &message).await
    }

    /// Sends one message with a field more than this version of the protocol knows.
    pub(crate) async fn send_with_unknown_field(&self, message: host_message::Message) -> Result<(), CallError> {
        let mut octets = encoded(&message).to_vec();
        octets.extend_from_slice(UNKNOWN_FIELD);
        self.send_octets(octets.into()).await
    }

    /// Sends octets as one message.
    async fn send_octets(&self, octets: Bytes) -> Result<(), CallError> {
        self.outbox.send(octets).await.map_err(|_| CallError::Ended("the plugin ended it".into()))
    }

    /// The next message; [`CallError::Silent`] leaves the call as it is.
    pub(crate) async fn next(&mut self, time_max: Duration) -> Result<plugin_message::Message, CallError> {
        loop {
            let next = timeout(time_max, self.inbox.message()).await.map_err(|_| CallError::Silent(time_max))?;
            match next {
                // An unknown kind of message is for a later version to understand.
                Ok(Some(PluginMessage { message: None })) => {}
                Ok(Some(PluginMessage { message: Some(message) })) => return Ok(message),
                Ok(None) => return Err(CallError::Ended("the plugin closed it".into())),
                Err(status) => return Err(CallError::Ended(said(&status))),
            }
        }
    }
}

/// Field 1000 with the text "future", as protobuf writes it.
const UNKNOWN_FIELD: &[u8] = b"\xc2\x3e\x06future";

fn encoded(message: &host_message::Message) -> Bytes {
    HostMessage { message: Some(message.clone()) }.encode_to_vec().into()
}

async fn send(outbox: &mpsc::Sender<Bytes>, message: &host_message::Message) -> Result<(), CallError> {
    outbox.send(encoded(message)).await.map_err(|_| CallError::Ended("the plugin ended it".into()))
}

fn said(status: &Status) -> String {
    match status.message() {
        "" => format!("{}", status.code()),
        message => format!("{}: {message}", status.code()),
    }
}
