//! Explanations of a live cluster: asks every speaker, and the controller that leads.
//!
//! They are shown a ten-minute token of the ServiceAccount `ferrocast-reader`, which has no rights and is good for nothing else:
//! that the user may make one is the authorisation. The user's own token goes to the API server only.
mod merge;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use ferrocast_api::SpeakerStatus;
use futures::{StreamExt as _, stream};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, ServiceAccount},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PostParams},
};

use super::{
    Explanation, Fact, Subject,
    asker::{Asker, NOT_REACHED},
    serve::{AUDIENCE, AUTHORITY_KEY, AUTHORITY_MAP, CONTROLLER_KEY, Question, READER, server_name},
};
use crate::{cli::ExplainArgs, cluster::client::connect};
use merge::{Answers, merge};

/// Life of the token, s: the shortest that the API server grants.
const TOKEN_LIFE_S: i64 = 600;
/// Longest wait for one answer, the way there included: a node that is away delays the rest by so much.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(3);
/// Speakers that are asked to pass the question on to a controller that cannot be reached, before it counts as away.
const RELAYS_MAX: usize = 2;
/// Who is told when the controller has not answered.
const CONTROLLER: &str = "the controller";
/// Servers asked at once: a few hundred nodes take a few rounds, and no more sockets than a shell allows.
const ASKED_AT_ONCE: usize = 64;

/// Explains `subject` by what the cluster's speakers and controller say.
///
/// # Errors
/// No cluster, no right to ask, or nobody who answers.
pub(super) async fn explain(subject: &Subject, args: &ExplainArgs) -> anyhow::Result<Explanation> {
    let client = connect(args.kubeconfig.as_deref()).await?;
    let namespace = &args.ferrocast_namespace;
    let (token, map, speakers) =
        tokio::join!(token(&client, namespace), authority(&client, namespace), speakers(&client, &args.namespace));
    // Who lacks all rights is told of that to the token, the one that counts, whichever answer came first.
    let (token, map, mut speakers) = (token?, map?, speakers?);
    if let Subject::Node(name) = subject {
        speakers.retain(|(node, _)| node == name);
    }
    let data = map.data.unwrap_or_default();
    let authority = data.get(AUTHORITY_KEY).map(String::as_str).unwrap_or_default();
    let asker = Asker::new(authority, server_name(namespace), token, ANSWER_TIME_MAX)
        .map_err(|why| anyhow!("{AUTHORITY_KEY} of the ConfigMap {namespace}/{AUTHORITY_MAP} cannot be used: {why}"))?;
    let question = Question::from(subject);
    let controller = data.get(CONTROLLER_KEY).map(String::as_str);
    let (controller, spoken) =
        tokio::join!(ask(&asker, &question, CONTROLLER, controller), ask_speakers(&asker, &question, &speakers));
    let mut answers = gather(&asker, question, controller, spoken).await;
    if speakers.is_empty() {
        let none = format!("no speaker has told by a SpeakerStatus in namespace {} where it answers", args.namespace);
        answers.unanswered.push(Fact::new("notServed", none));
    }
    if answers.is_empty() {
        let why: Vec<&str> = answers.unanswered.iter().map(|fact| &*fact.message).collect();
        bail!("nobody answers: {}", why.join("; "));
    }
    Ok(merge(subject, answers))
}

/// What one speaker answered, and where it is.
type Spoken<'a> = (Option<&'a str>, Result<Explanation, Fact>);

/// Asks every speaker.
async fn ask_speakers<'a>(asker: &Asker, question: &Question, speakers: &'a [Speaker]) -> Vec<Spoken<'a>> {
    let asked = speakers.iter().map(async |(node, at)| {
        let who = format!("the speaker of node {node}");
        (at.as_deref(), ask(asker, question, &who, at.as_deref()).await)
    });
    stream::iter(asked).buffer_unordered(ASKED_AT_ONCE).collect().await
}

/// All answers. A controller that cannot be reached from here is asked through speakers that can be.
async fn gather(
    asker: &Asker,
    question: Question,
    controller: Result<Explanation, Fact>,
    spoken: Vec<Spoken<'_>>,
) -> Answers {
    let question = Question { to_controller: true, ..question };
    let mut controller = controller;
    let relays = spoken.iter().filter(|(_, answer)| answer.is_ok()).take(RELAYS_MAX);
    for (at, _) in relays {
        if !controller.as_ref().is_err_and(|why| why.code == NOT_REACHED) {
            break;
        }
        if let Ok(answer) = ask(asker, &question, CONTROLLER, *at).await {
            controller = Ok(answer);
        }
    }
    let mut answers = Answers::default();
    match controller {
        Ok(answer) => answers.controller = Some(answer),
        Err(why) => answers.unanswered.push(why),
    }
    for (_, answer) in spoken {
        match answer {
            Ok(answer) => answers.speakers.push(answer),
            Err(why) => answers.unanswered.push(why),
        }
    }
    answers
}

/// Asks one; a failure says who it is.
async fn ask(asker: &Asker, question: &Question, who: &str, at: Option<&str>) -> Result<Explanation, Fact> {
    let Some(at) = at else {
        return Err(Fact::new("notServed", format!("{who} does not say where it answers: it runs without --explain")));
    };
    let told = |why: Fact| Fact::new(&why.code, format!("{who} at {at}: {}", why.message));
    let addr: SocketAddr = at.parse().map_err(|_| told(Fact::new(NOT_REACHED, "that is no address")))?;
    asker.ask(addr, question).await.map_err(told)
}

/// Makes the token.
async fn token(client: &Client, namespace: &str) -> anyhow::Result<String> {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let spec = TokenRequestSpec {
        audiences: Some(vec![AUDIENCE.to_owned()]),
        expiration_seconds: Some(TOKEN_LIFE_S),
        ..TokenRequestSpec::default()
    };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let granted = api.create_token_request(READER, &PostParams::default(), &request).await.with_context(|| {
        format!("cannot make a token of the ServiceAccount {namespace}/{READER}: the ClusterRole ferrocast-explain is the right to it")
    })?;
    granted.status.and_then(|status| status.token).context("the API server has granted no token")
}

/// What to trust, and where the controller is.
async fn authority(client: &Client, namespace: &str) -> anyhow::Result<ConfigMap> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let found = api.get(AUTHORITY_MAP).await;
    found.with_context(|| {
        format!("cannot read the ConfigMap {namespace}/{AUTHORITY_MAP}: a controller with --explain writes it")
    })
}

/// A node with a speaker, and where that answers.
type Speaker = (String, Option<String>);

/// All speakers.
async fn speakers(client: &Client, namespace: &str) -> anyhow::Result<Vec<Speaker>> {
    let api: Api<SpeakerStatus> = Api::namespaced(client.clone(), namespace);
    let list = api.list(&ListParams::default()).await;
    let list = list.with_context(|| format!("cannot list the SpeakerStatuses in namespace {namespace}"))?;
    let told = |status: SpeakerStatus| (status.name_any(), status.status.and_then(|status| status.explain));
    Ok(list.into_iter().map(told).collect())
}
