//! The API server's client.
use std::{path::Path, time::Duration};

use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{Client, Config, client::ConfigExt as _, config::Kubeconfig};
use tower::{BoxError, ServiceBuilder};

/// Longest wait for a TCP connection to the API server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// No client can be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig cannot be read or used.
    #[error("kubeconfig")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// Neither `$KUBECONFIG` nor a ServiceAccount is there.
    #[error("no cluster to talk to: give --kubeconfig, set $KUBECONFIG, or run in a pod with a ServiceAccount")]
    Infer(#[from] kube::config::InferConfigError),
    /// TLS or the like.
    #[error("client")]
    Client(#[from] kube::Error),
}

/// A client for `kubeconfig`, else `$KUBECONFIG`, else the pod's ServiceAccount.
///
/// Retries are left to the callers, who know their deadlines.
///
/// # Errors
/// [`ClientError`] says what is missing.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    let mut config = match kubeconfig {
        Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &Default::default()).await?,
        None => Config::infer().await?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.default_retry = false;
    Ok(client(config)?)
}

/// The library's own client, but that no small segment waits for an acknowledgement: the first request over a new connection
/// follows the end of the TLS handshake, which a server acknowledges no earlier than after 40 ms if it has nothing to say yet.
///
/// Through a proxy the library's own is used as it is.
fn client(config: Config) -> kube::Result<Client> {
    if config.proxy_url.is_some() {
        return Client::try_from(config);
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(connector)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(legacy::Client::builder(TokioExecutor::new()).build(connector));
    Ok(Client::new(service, config.default_namespace))
}
