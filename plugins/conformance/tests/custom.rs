//! The announcer of the example `custom` keeps the contract, in this process through the trait and behind a socket through the SDK.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests own their tasks; a test may fail where it stands"
)]
mod behind;
#[path = "../../examples/custom/src/file.rs"]
mod file;

use std::{error::Error, fs, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use ferrocast_conformance::{InProcess, Network, Options, Probe, Subject, run};
use ferrocast_core::{actor::Supervisor, announce::Announcer};

/// What the file says.
fn network(text: &str) -> Network {
    let lines = text.lines().map(|line| line.split_once(' ').unwrap_or((line, "")));
    lines.map(|(prefix, state)| (prefix.parse().unwrap(), state == "draining")).collect()
}

fn options(file: PathBuf) -> Options {
    let probe = move || network(&fs::read_to_string(&file).unwrap_or_default());
    Options { probe: Some(Probe::Function(Arc::new(probe))), ..Options::default() }
}

/// Lives of the announcer, one after another.
struct Lives(PathBuf, Option<Supervisor>);

#[async_trait]
impl InProcess for Lives {
    async fn start(&mut self) -> Result<Arc<dyn Announcer>, Box<dyn Error + Send + Sync>> {
        if let Some(mut before) = self.1.take() {
            before.stop_token().cancel();
            before.join().await?;
        }
        Ok(file::start(self.1.insert(Supervisor::default()), self.0.clone()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn file_announcer_passes_through_the_trait() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("announced.txt");
    let report = run(Subject::InProcess(Box::new(Lives(file.clone(), None))), &options(file)).await;
    assert!(report.is_good(), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn file_announcer_passes_behind_a_socket() {
    let (dir, mut supervisor) = (tempfile::tempdir().unwrap(), Supervisor::default());
    let file = dir.path().join("announced.txt");
    let report = behind::a_socket(file::start(&mut supervisor, file.clone()), &options(file)).await;
    assert!(report.is_good(), "{report}");
}
