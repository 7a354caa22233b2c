//! Plugins that do not mean well, on the bare protocol: each ends in a state with the right words.
use super::*;
use ferrocast_core::actor::{Actor, ActorError};
use ferrocast_plugin_proto::v1alpha1::{
    Accepted, Goodbye, HostMessage, NeedSnapshot, PluginHello, PluginMessage, Status as Told, TargetStatus, Version,
    announcer_server::{Announcer as Serve, AnnouncerServer},
    host_message::Message as Host,
    plugin_message::Message as M,
};
use std::pin::Pin;
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// What it answers to a message.
type Answers = fn(&Host) -> Vec<M>;

#[derive(Clone, Copy)]
struct Liar(Answers);

#[tonic::async_trait]
impl Serve for Liar {
    type SyncStream = Pin<Box<dyn futures::Stream<Item = Result<PluginMessage, Status>> + Send>>;
    async fn sync(&self, request: Request<Streaming<HostMessage>>) -> Result<Response<Self::SyncStream>, Status> {
        let (incoming, answers) = (request.into_inner(), self.0);
        let answered = futures::stream::unfold((incoming, Vec::new()), move |(mut incoming, mut queue)| async move {
            while queue.is_empty() {
                let message = incoming.message().await.ok()??.message?;
                queue = answers(&message);
                queue.reverse();
            }
            let message = queue.pop();
            Some((Ok(PluginMessage { message }), (incoming, queue)))
        });
        Ok(Response::new(Box::pin(answered)))
    }
}

struct Serving(Option<tokio::net::UnixListener>, Liar);

impl Actor for Serving {
    const NAME: &'static str = "liar";
    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let listener = self.0.take().unwrap();
        let incoming = futures::stream::unfold(listener, |listener| async {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let server = Server::builder().add_service(AnnouncerServer::new(self.1));
        tokio::select! {
            () = stop.cancelled() => {}
            _ = server.serve_with_incoming(incoming) => {}
        }
        Ok(())
    }
}

fn hello() -> PluginHello {
    PluginHello {
        protocol: 1,
        protocol_min: 1,
        protocol_max: 1,
        name: "liar".to_owned(),
        capabilities: Some(ALL.into()),
        ..PluginHello::default()
    }
}

fn target(generation: u64, reason: String) -> M {
    let reached = Some(Version { epoch: 7, generation });
    M::Status(Told {
        targets: vec![TargetStatus { name: "t".to_owned(), up: true, reached, reason, ..TargetStatus::default() }],
        problem: String::new(),
    })
}

/// A decent plugin, but for what `other` says.
fn or_decent(message: &Host, other: impl Fn(&Host) -> Option<Vec<M>>) -> Vec<M> {
    match (other(message), message) {
        (Some(answers), _) => answers,
        (None, Host::Hello(_)) => vec![M::Hello(hello())],
        (None, Host::End(end)) => vec![M::Accepted(Accepted { version: end.version })],
        (None, Host::Shutdown(_)) => vec![M::Goodbye(Goodbye {})],
        (None, _) => vec![],
    }
}

fn to_hello(message: &Host, answers: impl Fn() -> Vec<M>) -> Vec<M> {
    or_decent(message, |message| matches!(message, Host::Hello(_)).then(&answers))
}

fn to_end(message: &Host, answers: impl Fn(Option<Version>) -> Vec<M>) -> Vec<M> {
    or_decent(message, |message| if let Host::End(end) = message { Some(answers(end.version)) } else { None })
}

fn lie(bed: &mut Bed, answers: Answers) -> Arc<RemoteAnnouncer> {
    let listener = listen(&bed.dir.path().join("liar.sock"), 0o600).unwrap();
    bed.supervisor.spawn(Serving(Some(listener), Liar(answers)), RestartPolicy::EXPENDABLE);
    bed.remote("liar")
}

#[tokio::test(start_paused = true)]
async fn liar_is_shown_in_the_right_words_while_another_announcer_goes_on() {
    use PluginState::{Faulty, Refused, Stalled};
    let cases: &[(&str, PluginState, &str, Answers)] = &[
        ("says nothing", Stalled, "does not answer the hello", |_| vec![]),
        ("wrong name", Refused, "it calls itself \"other\"", |m| {
            to_hello(m, || vec![M::Hello(PluginHello { name: "other".to_owned(), ..hello() })])
        }),
        ("newer protocol", Refused, "it speaks protocol 7 to 9", |m| {
            let newer = PluginHello { protocol: 0, protocol_min: 7, protocol_max: 9, ..hello() };
            to_hello(m, || vec![M::Hello(newer.clone())])
        }),
        ("protocol not offered", Refused, "it chose protocol 7", |m| {
            to_hello(m, || vec![M::Hello(PluginHello { protocol: 7, ..hello() })])
        }),
        ("election", Refused, "not served yet", |m| {
            let capabilities = Capabilities { election: ferrocast_core::announce::Election::PerAddress, ..ALL };
            to_hello(m, || vec![M::Hello(PluginHello { capabilities: Some(capabilities.into()), ..hello() })])
        }),
        ("two hellos", Faulty, "says hello twice", |m| to_hello(m, || vec![M::Hello(hello()), M::Hello(hello())])),
        ("status first", Faulty, "before its hello", |m| to_hello(m, || vec![target(0, String::new())])),
        ("answer first", Faulty, "not a hello", |m| to_hello(m, || vec![M::Goodbye(Goodbye {})])),
        ("early good-bye", Faulty, "without being asked", |m| {
            to_hello(m, || vec![M::Hello(hello()), M::Goodbye(Goodbye {})])
        }),
        ("never accepts", Stalled, "does not answer an update", |m| to_end(m, |_| vec![])),
        ("accepts another", Faulty, "answers what was not asked", |m| {
            to_end(m, |_| vec![M::Accepted(Accepted { version: Some(Version { epoch: 7, generation: 99 }) })])
        }),
        ("reached the future", Faulty, "has reached generation 99", |m| {
            to_end(m, |version| vec![M::Accepted(Accepted { version }), target(99, String::new())])
        }),
        ("never content", Faulty, "every snapshot", |m| {
            to_end(m, |version| vec![M::NeedSnapshot(NeedSnapshot { version, reason: "more".to_owned() })])
        }),
    ];
    for (name, state, words, answers) in cases {
        let mut bed = Bed::new();
        let other = Recorder::start(ALL);
        bed.plugin("other", other.clone());
        let (liar, honest) = (lie(&mut bed, *answers), bed.remote("other"));
        for announcer in [&liar, &honest] {
            announcer.apply(desired(1, &["192.0.2.1/32"])).await.unwrap();
        }
        let info = in_state(&liar, *state, words).await;
        assert!(liar.observe().borrow().problem.contains(words), "{name}: {info:?}");
        reached(&honest, 1).await;
    }
}

#[tokio::test(start_paused = true)]
async fn flood_of_statuses_and_long_texts_are_dropped_and_counted() {
    let mut bed = Bed::new();
    let liar = lie(&mut bed, |message| {
        to_end(message, |version| {
            let flood = std::iter::repeat_with(|| target(1, "x".repeat(10_000))).take(1000);
            std::iter::once(M::Accepted(Accepted { version })).chain(flood).collect()
        })
    });
    liar.apply(desired(1, &["192.0.2.1/32"])).await.unwrap();
    let dropped = |info: &Arc<PluginInfo>| {
        info.dropped.get("status").is_some_and(|count| *count > 900) && info.excess.contains("status")
    };
    let info = liar.info().wait_for(dropped).await.unwrap().clone();
    assert!(info.dropped["text"] > 0 && info.excess.contains("text"), "{info:?}");
    assert_eq!(info.state, PluginState::Connected);
    assert!(liar.observe().borrow().targets["t"].reason.len() <= ferrocast_plugin_proto::TEXT_LEN_MAX);
}

#[tokio::test(start_paused = true)]
async fn socket_is_refused_when_it_or_its_folder_is_not_as_it_must_be() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let mut bed = Bed::new();
    let path = bed.dir.path().join("a.sock");
    std::fs::write(&path, "").unwrap();
    let remote = bed.remote("a");
    in_state(&remote, PluginState::Refused, "is not a socket").await;
    std::fs::remove_file(&path).unwrap();
    symlink(bed.dir.path().join("b.sock"), &path).unwrap();
    in_state(&remote, PluginState::Refused, "is a symbolic link").await;
    std::fs::remove_file(&path).unwrap();
    std::fs::set_permissions(bed.dir.path(), std::fs::Permissions::from_mode(0o770)).unwrap();
    in_state(&remote, PluginState::Refused, "group or others may write there").await;
    std::fs::set_permissions(bed.dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let settings = RemoteSettings { uids: [4_000_000].into(), ..bed.settings() };
    bed.plugin("c", Recorder::start(ALL));
    let strict = RemoteAnnouncer::start(&mut bed.supervisor, "c".into(), settings);
    in_state(&strict, PluginState::Refused, "none of those that may run plugins").await;
}
