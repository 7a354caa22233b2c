//! An announcer of this process as a plugin, by the SDK.
use std::sync::Arc;

use ferrocast_conformance::{Options, Report, Subject, run};
use ferrocast_core::{actor::CancellationToken, announce::Announcer};

/// Serves the announcer on a socket of its name, and drives it there.
pub(crate) async fn a_socket(announcer: Arc<dyn Announcer>, options: &Options) -> Report {
    let (dir, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
    let socket = dir.path().join(format!("{}.sock", announcer.name()));
    let listener = ferrocast_plugin_sdk::listen(&socket, 0o600).unwrap();
    let sdk = ferrocast_plugin_sdk::Options::for_socket(&socket);
    let server = tokio::spawn(ferrocast_plugin_sdk::serve(listener, announcer, sdk, stop.clone()));
    let report = run(Subject::Socket(socket), options).await;
    stop.cancel();
    server.await.unwrap().unwrap();
    report
}
