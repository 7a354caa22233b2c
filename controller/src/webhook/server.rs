//! Serves the webhook over TLS.
use std::{future::IntoFuture as _, net::SocketAddr, sync::Arc};

use axum::{Json, Router, extract::DefaultBodyLimit, extract::State, http::StatusCode, routing::post};
use ferrocast_core::actor::{Actor, ActorError, CancellationToken};
use kube::core::{
    DynamicObject,
    admission::{AdmissionRequest, AdmissionResponse, AdmissionReview},
};
use tokio::net::TcpListener;

use super::review::{Reviewer, Verdict};
use crate::tls::listener::{Serving, TlsListener};

/// Largest request, octets: an object and its former self, each at most 1.5 MiB in the API server's store.
const REQUEST_LEN_MAX: usize = 4 * 1024 * 1024;

/// Serves a [`Reviewer`].
pub struct WebhookServer {
    addr: SocketAddr,
    serving: Serving,
    reviewer: Arc<Reviewer>,
}

impl WebhookServer {
    /// A server on `addr` with the certificate that `serving` holds.
    #[must_use]
    pub fn new(addr: SocketAddr, serving: Serving, reviewer: Reviewer) -> Self {
        Self { addr, serving, reviewer: Arc::new(reviewer) }
    }

    /// MetalLB's paths, so that its users' own configurations go on working, and one for every kind.
    fn router(&self) -> Router {
        let mut router = Router::new().route("/validate", post(answer));
        for kind in [
            "v1beta1-ipaddresspool",
            "v1beta1-bgpadvertisement",
            "v1beta1-l2advertisement",
            "v1beta1-community",
            "v1beta1-bfdprofile",
            "v1beta2-bgppeer",
            "v1beta1-bgppeer",
        ] {
            router = router.route(&format!("/validate-metallb-io-{kind}"), post(answer));
        }
        router.layer(DefaultBodyLimit::max(REQUEST_LEN_MAX)).with_state(self.reviewer.clone())
    }
}

async fn answer(
    State(reviewer): State<Arc<Reviewer>>,
    Json(review): Json<AdmissionReview<DynamicObject>>,
) -> Result<Json<AdmissionReview<DynamicObject>>, (StatusCode, String)> {
    let request: AdmissionRequest<DynamicObject> = review
        .try_into()
        .map_err(|_| (StatusCode::BAD_REQUEST, "an AdmissionReview without a request\n".to_owned()))?;
    let Verdict { allowed, message, warnings } = reviewer.review(&request).await;
    let outcome = if allowed { "allowed" } else { "denied" };
    metrics::counter!("ferrocast_webhook_requests_total", "outcome" => outcome).increment(1);
    let mut response = AdmissionResponse::from(&request);
    if !allowed {
        tracing::info!(kind = request.kind.kind, name = request.name, message, "denied by the webhook");
        response = response.deny(message);
    }
    response.warnings = (!warnings.is_empty()).then_some(warnings);
    Ok(Json(response.into_review()))
}

impl Actor for WebhookServer {
    const NAME: &'static str = "webhook";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let Some(listener) = crate::http::listen(self.addr, "the webhook", &stop).await else { return Ok(()) };
        self.serve(listener, stop).await
    }
}

impl WebhookServer {
    async fn serve(&self, listener: TcpListener, stop: CancellationToken) -> Result<(), ActorError> {
        let listener = TlsListener::new(listener, self.serving.clone());
        let serve = axum::serve(listener, self.router()).into_future();
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            served = serve => served.map_err(|error| ActorError::Failed(Box::new(error))),
        }
    }
}
