//! Asks one server of explanations over TLS.
use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::http::{Request, StatusCode, header};
use ferrocast_core::actor::chain;
use futures::future::{Either, select};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{
    Explanation, Fact,
    serve::{PATH, Question},
};

/// Longest wait for a connection. In a cluster's network it takes a few milliseconds; a node that is away does not answer at all.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(1);
/// The code of those who cannot be reached.
pub(super) const NOT_REACHED: &str = "notReached";
/// Largest answer, octets: a Service at a thousand peers has a tenth of that.
const ANSWER_LEN_MAX: usize = 4 * 1024 * 1024;

/// Asks servers whose certificates are of one authority and for one name.
pub(super) struct Asker {
    connector: TlsConnector,
    name: ServerName<'static>,
    token: String,
    time_max: Duration,
}

/// Why somebody has not answered.
fn not_reached(why: impl Into<String>) -> Fact {
    Fact::new(NOT_REACHED, why)
}

impl Asker {
    /// An asker that trusts `authority` (PEM) to vouch for `name`, shows `token`, and waits for `time_max` for an answer.
    ///
    /// # Errors
    /// In words, if authority or name cannot be used.
    pub(super) fn new(authority: &str, name: String, token: String, time_max: Duration) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            let certificate = certificate.map_err(|error| error.to_string())?;
            roots.add(certificate).map_err(|error| error.to_string())?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name, token, time_max })
    }

    /// Asks.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) async fn ask(&self, at: SocketAddr, question: &Question) -> Result<Explanation, Fact> {
        let late = || Err(not_reached(format!("no answer within {} s", self.time_max.as_secs())));
        tokio::time::timeout(self.time_max, self.exchange(at, question)).await.unwrap_or_else(|_| late())
    }

    async fn exchange(&self, at: SocketAddr, question: &Question) -> Result<Explanation, Fact> {
        let stream = tokio::time::timeout(CONNECT_TIME_MAX, TcpStream::connect(at)).await;
        let stream = stream.map_err(|_| not_reached("no connection in time"))?;
        let stream = stream.map_err(|error| not_reached(error.to_string()))?;
        // One small request and its answer: nothing is gained by gathering octets.
        stream.set_nodelay(true).map_err(|error| not_reached(error.to_string()))?;
        let stream = self.connector.connect(self.name.clone(), stream).await;
        let stream = stream.map_err(|error| not_reached(format!("TLS: {error}")))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| not_reached(chain(&error)))?;
        let body = serde_json::to_vec(question).map_err(|error| not_reached(error.to_string()))?;
        let request = Request::post(PATH)
            .header(header::HOST, at.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| not_reached(error.to_string()))?;
        let answer = std::pin::pin!(async move {
            let response = sender.send_request(request).await.map_err(|error| not_reached(chain(&error)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_LEN_MAX).collect().await;
            Ok((status, body.map_err(|error| not_reached(error.to_string()))?.to_bytes()))
        });
        let (status, body) = match select(answer, std::pin::pin!(connection)).await {
            Either::Left((answered, _)) => answered?,
            Either::Right((_, answer)) => answer.await?,
        };
        read(status, &body)
    }
}

fn read(status: StatusCode, body: &[u8]) -> Result<Explanation, Fact> {
    let words = || String::from_utf8_lossy(body).trim().to_owned();
    match status {
        StatusCode::OK => serde_json::from_slice(body)
            .map_err(|error| Fact::new("notUnderstood", format!("its answer cannot be read: {error}"))),
        StatusCode::UNAUTHORIZED => Err(Fact::new("refused", words())),
        StatusCode::SERVICE_UNAVAILABLE => Err(Fact::new("notReady", words())),
        status => Err(Fact::new("notUnderstood", format!("it answers {status}: {}", words()))),
    }
}
