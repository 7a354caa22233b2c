//! A plugin for the end-to-end tests that does not mean well: `lab-hostile-plugin FAULT SOCKET`. Apart from its fault it is decent.
#![expect(clippy::disallowed_methods, reason = "a test's program owns its tasks")]
use std::{error::Error, iter::repeat_with, path::Path, pin::Pin, str::FromStr};

use ferrocast_plugin_proto::v1alpha1::{
    Accepted, Capabilities, Failure, Goodbye, HostMessage, PluginHello, PluginMessage, Status as Told, TargetStatus,
    Version,
    announcer_server::{Announcer, AnnouncerServer},
    host_message::Message as Host,
    plugin_message::Message,
};
use futures::{Stream, StreamExt as _, stream};
use tokio::{net::UnixListener, sync::mpsc};
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// Octets of a text that is far too long.
const LONG: usize = 200_000;
/// Targets, and failures of each, in one status of the flood.
const MANY: usize = 1_000;
/// Answers in flight.
const ANSWERS_MAX: usize = 8;

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// Speaks protocol 7 to 9, and no other.
    Newer,
    /// Speaks protocol 1 to 9: no fault, the plugin of a time to come.
    Wider,
    /// Sends statuses, full of nonsense, as fast as they are taken.
    Floods,
    /// Says that it has reached what it was never sent.
    Lies,
    /// Its version, its problem and its reasons are far too long.
    Texts,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Ok(match word {
            "newer" => Self::Newer,
            "wider" => Self::Wider,
            "floods" => Self::Floods,
            "lies" => Self::Lies,
            "texts" => Self::Texts,
            _ => return Err(format!("no such fault: {word}")),
        })
    }
}

#[derive(Clone, Copy)]
struct Hostile(Fault);

type Answer = Result<PluginMessage, Status>;

fn say(message: Message) -> Answer {
    Ok(PluginMessage { message: Some(message) })
}

fn status(reached: Option<Version>, reason: &str) -> Message {
    let target = TargetStatus {
        name: "network".into(),
        up: true,
        reached,
        announced: 1,
        reason: reason.into(),
        ..TargetStatus::default()
    };
    Message::Status(Told { targets: vec![target], problem: reason.into() })
}

/// A status that costs who believes it.
fn nonsense() -> Message {
    let failure = || Failure { prefix: "203.0.113.1/32".into(), reason: "x".into() };
    let targets = (0..MANY).map(|n| TargetStatus {
        name: format!("target-{n}"),
        failures: repeat_with(failure).take(MANY / 100).collect(),
        ..TargetStatus::default()
    });
    Message::Status(Told { targets: targets.collect(), problem: String::new() })
}

impl Hostile {
    fn has(self, fault: Fault) -> bool {
        self.0 == fault
    }

    fn hello(self) -> PluginHello {
        let (protocol, protocol_min, protocol_max) = match self.0 {
            Fault::Newer => (0, 7, 9),
            Fault::Wider => (1, 1, 9),
            _ => (1, 1, 1),
        };
        PluginHello {
            protocol,
            protocol_min,
            protocol_max,
            name: "file".into(),
            plugin_version: if self.has(Fault::Texts) { "v".repeat(LONG) } else { "hostile".into() },
            capabilities: Some(Capabilities { ipv4: true, ipv6: true, drain: true, ..Capabilities::default() }),
            ..PluginHello::default()
        }
    }

    fn answers(self, message: Host) -> Vec<Message> {
        match message {
            Host::Hello(_) => vec![Message::Hello(self.hello())],
            Host::End(end) => {
                let reached = match self.0 {
                    Fault::Lies => end.version.map(|v| Version { generation: v.generation + 1_000, ..v }),
                    _ => end.version,
                };
                let reason = if self.has(Fault::Texts) { "r".repeat(LONG) } else { String::new() };
                vec![Message::Accepted(Accepted { version: end.version }), status(reached, &reason)]
            }
            Host::Shutdown(_) => vec![Message::Goodbye(Goodbye {})],
            Host::Begin(_) | Host::Chunk(_) => vec![],
        }
    }
}

#[tonic::async_trait]
impl Announcer for Hostile {
    type SyncStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn sync(&self, request: Request<Streaming<HostMessage>>) -> Result<Response<Self::SyncStream>, Status> {
        let (plugin, mut incoming) = (*self, request.into_inner());
        let (out, queue) = mpsc::channel(ANSWERS_MAX);
        tokio::spawn(async move {
            while let Ok(Some(HostMessage { message: Some(message) })) = incoming.message().await {
                for answer in plugin.answers(message) {
                    if out.send(say(answer)).await.is_err() {
                        return;
                    }
                }
            }
        });
        let answers = stream::unfold(queue, async |mut queue: mpsc::Receiver<Answer>| {
            queue.recv().await.map(|answer| (answer, queue))
        });
        if !plugin.has(Fault::Floods) {
            return Ok(Response::new(Box::pin(answers)));
        }
        let mut answers = Box::pin(answers.fuse());
        let hello = answers.next().await.ok_or_else(|| Status::cancelled("no hello"))?;
        let flood = stream::repeat_with(|| say(nonsense()));
        Ok(Response::new(Box::pin(stream::iter([hello]).chain(stream::select(answers, flood)))))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [fault, socket] = &arguments[..] else { return Err("give FAULT SOCKET".into()) };
    let plugin = Hostile(fault.parse()?);
    if Path::new(socket).exists() {
        std::fs::remove_file(socket)?;
    }
    let listener = UnixListener::bind(socket)?;
    let incoming = stream::unfold(listener, async |listener: UnixListener| {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    Ok(Server::builder().add_service(AnnouncerServer::new(plugin)).serve_with_incoming(incoming).await?)
}
