//! Accepts TLS connections; a client that is slow to shake hands delays nobody.
use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use axum::serve::Listener;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::authority::Certified;

/// Handshakes under way at once; further connections wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 64;
/// Longest handshake.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// Pause after an error of accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The configuration that new connections are served with; `None`: there is no certificate yet, connections are closed.
pub type Serving = Arc<ArcSwapOption<ServerConfig>>;

/// What a server shows of itself with this certificate.
///
/// # Errors
/// In words, if the certificate or its key cannot be read.
pub fn server_config(certified: &Certified) -> Result<ServerConfig, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certified.certificate.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| format!("certificate: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(certified.key.as_bytes()).map_err(|error| format!("key: {error}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

type Handshake = BoxFuture<'static, Option<(TlsStream<TcpStream>, SocketAddr)>>;

/// A [`Listener`] whose connections have shaken hands.
pub struct TlsListener {
    tcp: TcpListener,
    serving: Serving,
    handshakes: FuturesUnordered<Handshake>,
}

impl TlsListener {
    /// Serves what `serving` holds at the time of each connection.
    #[must_use]
    pub fn new(tcp: TcpListener, serving: Serving) -> Self {
        Self { tcp, serving, handshakes: FuturesUnordered::new() }
    }

    fn start(&self, stream: TcpStream, peer: SocketAddr) {
        let Some(config) = self.serving.load_full() else { return };
        // An answer follows the end of the handshake at once: it must not wait until that has been acknowledged.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "TCP_NODELAY");
        }
        let accept = TlsAcceptor::from(config).accept(stream);
        let handshake = async move {
            match tokio::time::timeout(HANDSHAKE_TIME_MAX, accept).await {
                Ok(Ok(stream)) => Some((stream, peer)),
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "TLS handshake failed");
                    None
                }
                Err(_) => None,
            }
        };
        self.handshakes.push(handshake.boxed());
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                accepted = self.tcp.accept(), if self.handshakes.len() < HANDSHAKES_MAX => match accepted {
                    Ok((stream, peer)) => self.start(stream, peer),
                    Err(error) => {
                        tracing::debug!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(done) = self.handshakes.next(), if !self.handshakes.is_empty() => {
                    if let Some(connection) = done {
                        return connection;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}
