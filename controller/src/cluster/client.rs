//! The API server's client.
use std::{path::Path, time::Duration};

use kube::{Client, Config, config::Kubeconfig};

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
    Ok(Client::try_from(config)?)
}
