//! Answers `ferrocast explain` over TLS: what one process knows of one subject, to those who may know.
pub mod gate;
pub mod relay;

use std::{future::IntoFuture as _, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::post,
};
use ferrocast_core::actor::{Actor, ActorError, CancellationToken};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::{Explanation, Subject, SubjectKind};
use crate::tls::{
    bounded::Bounded,
    listener::{Serving, TlsListener},
};
use gate::{Gate, Refusal};
use relay::Relay;

/// The audience of the tokens.
pub const AUDIENCE: &str = "ferrocast";
/// The ServiceAccount whose tokens are accepted, in the namespace that Ferrocast runs in. It has no rights.
pub const READER: &str = "ferrocast-reader";
/// The path.
pub const PATH: &str = "/v1/explain";
/// The ConfigMap with the authority of the certificates, and where the leading controller answers.
pub const AUTHORITY_MAP: &str = "ferrocast-explain-ca";
/// Its key with the authority.
pub const AUTHORITY_KEY: &str = "ca.crt";
/// Its key with the leading controller's address and port.
pub const CONTROLLER_KEY: &str = "controller";
/// The Secret with the authority and its key, for the controller only.
pub const AUTHORITY_SECRET: &str = "ferrocast-explain-authority";
/// The Secret with the certificate that all servers have.
pub const SERVER_SECRET: &str = "ferrocast-explain-cert";

/// Connections at once; each is one request.
const CONNECTIONS_MAX: usize = 64;
/// Longest connection: the wait to be let in, and the answer.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);
/// Largest request, octets: a kind and a name.
const REQUEST_LEN_MAX: usize = 4 * 1024;

/// The user that the tokens are of, where Ferrocast runs in `namespace`.
#[must_use]
pub fn reader(namespace: &str) -> String {
    format!("system:serviceaccount:{namespace}:{READER}")
}

/// The name that all servers' certificates have, where Ferrocast runs in `namespace`; nobody resolves it.
#[must_use]
pub fn server_name(namespace: &str) -> String {
    format!("ferrocast-explain.{namespace}.svc")
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Question {
    /// Of what kind the subject is.
    pub kind: SubjectKind,
    /// Its name.
    pub name: String,
    /// The leading controller is meant, whoever is asked.
    #[serde(default)]
    pub to_controller: bool,
}

impl From<&Subject> for Question {
    fn from(subject: &Subject) -> Self {
        let (kind, name) = match subject {
            Subject::Service(key) => (SubjectKind::Service, key.to_string()),
            Subject::Address(ip) => (SubjectKind::Address, ip.to_string()),
            Subject::Node(name) => (SubjectKind::Node, name.clone()),
            Subject::Peer(name) => (SubjectKind::Peer, name.clone()),
        };
        Self { kind, name, to_controller: false }
    }
}

/// Knows something.
#[async_trait]
pub trait Explainer: Send + Sync + 'static {
    /// What it knows of a subject.
    ///
    /// # Errors
    /// In words, why it cannot tell now.
    async fn explain(&self, subject: &Subject) -> Result<Explanation, String>;
}

/// Serves an [`Explainer`].
pub struct ExplainServer {
    addr: SocketAddr,
    serving: Serving,
    gate: Arc<Gate>,
    answering: Arc<Answering>,
}

/// What answers those who were let in.
struct Answering {
    explainer: Box<dyn Explainer>,
    relay: Option<Relay>,
}

/// A token that was accepted.
#[derive(Clone)]
struct Token(String);

impl ExplainServer {
    /// A server on `addr` with the certificate that `serving` holds; without `relay` it is the controller's own.
    #[must_use]
    pub fn new(
        addr: SocketAddr,
        serving: Serving,
        gate: Gate,
        explainer: Box<dyn Explainer>,
        relay: Option<Relay>,
    ) -> Self {
        Self { addr, serving, gate: Arc::new(gate), answering: Arc::new(Answering { explainer, relay }) }
    }

    async fn serve(&self, listener: TcpListener, stop: CancellationToken) -> Result<(), ActorError> {
        let listener = TlsListener::new(listener, self.serving.clone());
        let listener = Bounded::new(listener, CONNECTIONS_MAX, CONNECTION_TIME_MAX);
        // Who asks is looked at before the question is read.
        let router = Router::new()
            .route(PATH, post(answer))
            .layer(DefaultBodyLimit::max(REQUEST_LEN_MAX))
            .with_state(self.answering.clone())
            .layer(middleware::from_fn_with_state(self.gate.clone(), admitted));
        let serve = axum::serve(listener, router).into_future();
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            served = serve => served.map_err(|error| ActorError::Failed(Box::new(error))),
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("ferrocast_explain_requests_total", "outcome" => outcome).increment(1);
}

async fn admitted(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = shown.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
    match gate.admit(&token).await {
        Ok(()) => {
            request.extensions_mut().insert(Token(token));
            next.run(request).await
        }
        Err(refusal) => {
            let (status, outcome) = match refusal {
                Refusal::Token => (StatusCode::UNAUTHORIZED, "refused"),
                Refusal::Busy | Refusal::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            };
            count(outcome);
            (status, refusal.to_string()).into_response()
        }
    }
}

async fn answer(
    State(answering): State<Arc<Answering>>,
    Extension(Token(token)): Extension<Token>,
    Json(question): Json<Question>,
) -> Response {
    let subject = match Subject::new(question.kind, &question.name) {
        Ok(subject) => subject,
        Err(why) => return (StatusCode::BAD_REQUEST, why).into_response(),
    };
    let answer = match &answering.relay {
        Some(relay) if question.to_controller => relay.ask(&question, &token).await,
        _ => answering.explainer.explain(&subject).await,
    };
    match answer {
        Ok(explanation) => {
            count("answered");
            Json(explanation).into_response()
        }
        Err(why) => {
            count("unavailable");
            (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
        }
    }
}

impl Actor for ExplainServer {
    const NAME: &'static str = "explain";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let Some(listener) = crate::http::listen(self.addr, "explain", &stop).await else { return Ok(()) };
        self.serve(listener, stop).await
    }
}
