//! The HTTP port: metrics and health for everybody, details from loopback only.
use std::{
    future::IntoFuture as _,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{ConnectInfo, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use ferrocast_core::actor::{Actor, ActorError, CancellationToken};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

/// How often the metrics recorder tidies up (it does not do so by itself).
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);
/// Wait between attempts to bind the port.
const BIND_RETRY: Duration = Duration::from_secs(2);

/// "Address family not supported" on Linux.
const EAFNOSUPPORT: i32 = 97;

/// Starts recording metrics for this process.
///
/// # Errors
/// If a recorder is installed already.
pub fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new().install_recorder()?;
    metrics_process::Collector::default().describe();
    Ok(handle)
}

type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;
type Lines = Arc<dyn Fn() -> String + Send + Sync>;
type Document = Arc<dyn Fn() -> Value + Send + Sync>;

/// What a role serves.
#[derive(Clone)]
pub struct Pages {
    /// Recorded metrics.
    pub metrics: PrometheusHandle,
    /// Metrics computed from a snapshot when asked for, in the text format.
    pub lines: Lines,
    /// Why it is not ready, if it is not.
    pub ready: Check,
    /// JSON documents by path, from loopback only.
    pub documents: Vec<(&'static str, Document)>,
    /// Where `/v1/drain` is noted, from loopback only; `None`: there is nothing to drain.
    pub drained: Option<Arc<watch::Sender<bool>>>,
}

/// Serves the [`Pages`].
pub struct Admin {
    addr: SocketAddr,
    pages: Pages,
}

impl Admin {
    /// A server on `addr`.
    #[must_use]
    pub fn new(addr: SocketAddr, pages: Pages) -> Self {
        Self { addr, pages }
    }

    fn router(&self) -> Router {
        let mut local = Router::new();
        for (path, document) in &self.pages.documents {
            let document = document.clone();
            local = local.route(path, get(move || std::future::ready(Json(document()))));
        }
        if let Some(drained) = &self.pages.drained {
            local = local.route(
                "/v1/drain",
                get(is_drained)
                    .post(|state| drain(state, true))
                    .delete(|state| drain(state, false))
                    .with_state(drained.clone()),
            );
        }
        let local = local.layer(middleware::from_fn(loopback_only));
        Router::new()
            .route("/metrics", get(render))
            .route("/healthz", get(|| std::future::ready("ok\n")))
            .route("/readyz", get(readyz))
            .with_state(self.pages.clone())
            .merge(local)
    }
}

async fn render(State(pages): State<Pages>) -> Response {
    metrics_process::Collector::default().collect();
    let body = pages.metrics.render() + &(pages.lines)();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], body).into_response()
}

async fn readyz(State(pages): State<Pages>) -> Response {
    match (pages.ready)() {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

/// Whether the node is drained.
async fn is_drained(State(drained): State<Arc<watch::Sender<bool>>>) -> Json<Value> {
    Json(json!({"drained": *drained.borrow()}))
}

/// Drains the node, or undoes that.
async fn drain(State(drained): State<Arc<watch::Sender<bool>>>, wanted: bool) -> Json<Value> {
    if drained.send_replace(wanted) != wanted {
        tracing::info!(drained = wanted, "told over HTTP");
    }
    Json(json!({"drained": wanted}))
}

async fn loopback_only(ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request, next: Next) -> Response {
    if peer.ip().to_canonical().is_loopback() {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "from loopback only\n").into_response()
    }
}

/// Listens on `addr`; on a host without IPv6, every address means every IPv4 address.
async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(addr).await {
        Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT) && addr.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, addr.port())).await
        }
        bound => bound,
    }
}

/// Listens on `addr` as soon as that can be had; `None`: told to stop before. `what` is served there, for the log.
pub(crate) async fn listen(addr: SocketAddr, what: &str, stop: &CancellationToken) -> Option<TcpListener> {
    loop {
        match bind(addr).await {
            Ok(listener) => {
                tracing::info!(%addr, "serving {what}");
                return Some(listener);
            }
            Err(error) => tracing::error!(%addr, %error, "cannot serve {what}, trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(BIND_RETRY) => {}
        }
    }
}

impl Actor for Admin {
    const NAME: &'static str = "admin";

    async fn run(&mut self, stop: CancellationToken) -> Result<(), ActorError> {
        let Some(listener) = listen(self.addr, "HTTP", &stop).await else { return Ok(()) };
        let service = self.router().into_make_service_with_connect_info::<SocketAddr>();
        let mut serve = std::pin::pin!(axum::serve(listener, service).into_future());
        let mut upkeep = tokio::time::interval(UPKEEP_PERIOD);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                served = &mut serve => return served.map_err(|e| ActorError::Failed(Box::new(e))),
                _ = upkeep.tick() => self.pages.metrics.run_upkeep(),
            }
        }
    }
}
