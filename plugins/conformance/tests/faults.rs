//! A right plugin passes everything; each of the wrong ones fails exactly the check that is about its fault.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests own their tasks; a test may fail where it stands"
)]
use std::{sync::Arc, time::Duration};

use ferrocast_conformance::{Options, Outcome, Probe, Report, Subject, run};
use ferrocast_plugin_proto::v1alpha1::announcer_server::AnnouncerServer;
use plugin::{Fault, Plugin};
use tokio::net::UnixListener;
use tonic::transport::Server;

mod plugin;

/// What the wrong plugin fails, and words of what is seen.
const FAULTS: &[(Fault, &str, &str)] = &[
    (Fault::AcceptsBeforeStoring, "restart-after-accepted", "generation"),
    (Fault::AppliesHalfUpdates, "restart-mid-update", "there though they should not be"),
    (Fault::ClaimsVersionsNeverSent, "status-honest", "a version that was never sent"),
    (Fault::CrashesAtTenThousand, "ten-thousand", "crashed"),
    (Fault::CrashesAtWrongParameters, "wrong-parameters", "crashed"),
    (Fault::FloodsStatuses, "status-rate", "statuses within a second"),
    (Fault::FlapsOnRepeat, "repeat", "10 missing"),
    (Fault::ForgetsWithdrawals, "withdrawal", "4 there though they should not be"),
    (Fault::HoldsLongerThanProposed, "hello", "301"),
    (Fault::IgnoresBaseMismatch, "base-mismatch", "Accepted"),
    (Fault::IgnoresCount, "count-mismatch", "Accepted"),
    (Fault::IgnoresDrain, "drain", "1 not draining"),
    (Fault::IgnoresEmptySnapshots, "empty", "6 there though they should not be"),
    (Fault::IgnoresShutdownWithdraw, "shutdown-withdraw", "10 there though they should not be"),
    (Fault::InventsPrefixes, "status-honest", "never sent"),
    (Fault::KeepsForEver, "orphan-hold-expiry", "10 there though they should not be"),
    (Fault::KeepsStale, "stale", "7 there though they should not be"),
    (Fault::LiesAboutReached, "snapshot", "1 missing"),
    (Fault::NeverReaches, "snapshot", "has reached nothing"),
    (Fault::OldEpochAsBase, "stale-epoch", "Accepted"),
    (Fault::OversizedReasons, "status-limits", "1025 octets"),
    (Fault::ReachesBeforeAccepting, "accepted-first", "before it was accepted"),
    (Fault::ServesTwoCalls, "second-call", "both are open"),
    (Fault::SpeaksAnyProtocol, "protocol-range", "protocol 1"),
    (Fault::TakesAnyPrefix, "wrong-prefix", "Accepted"),
    (Fault::TakesProvisionalForComplete, "provisional", "7 missing"),
    (Fault::WithdrawsAtKeep, "shutdown-keep", "10 missing"),
    (Fault::WithdrawsOnHostLoss, "orphan-hold", "10 missing"),
];
/// Long enough to see a flap of the wrong plugins, and a network that lives in memory.
const SETTLE: Duration = Duration::from_millis(200);
/// Everything here is in memory; what takes longer is broken.
const TIME_LIMIT: Duration = Duration::from_secs(5);

async fn report_of(fault: Fault) -> Report {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("right.sock");
    let plugin = Plugin::new(fault);
    let listener = UnixListener::bind(&socket).unwrap();
    let incoming = futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let service = AnnouncerServer::new(plugin.clone()).max_decoding_message_size(4 << 20);
    let server = tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    let probe = Probe::Function(Arc::new(move || plugin.network()));
    let options = Options { probe: Some(probe), settle: SETTLE, time_limit: TIME_LIMIT, ..Options::default() };
    let report = run(Subject::Socket(socket), &options).await;
    server.abort();
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn right_plugin_passes_everything_that_can_be_checked() {
    let report = report_of(Fault::None).await;
    assert!(report.is_good(), "{report}");
    let passed = |check: &&ferrocast_conformance::Checked| check.outcome == Outcome::Passed { not_probed: false };
    let others: Vec<&str> = report.checks.iter().filter(|check| !passed(check)).map(|check| check.name).collect();
    assert_eq!(others, ["preview", "plugin-restart"], "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_plugin_fails_exactly_the_check_about_its_fault() {
    let runs = FAULTS.iter().map(|(fault, check, seen)| async move {
        let report = report_of(*fault).await;
        let found = report.check(check).map(|checked| &checked.outcome);
        match found {
            Some(Outcome::Failed(finding)) if report.failed() == [*check] && finding.seen.contains(seen) => None,
            _ => Some(format!("{fault:?} should fail {check} with {seen:?}, and nothing else:\n{report}")),
        }
    });
    let wrong: Vec<String> = futures::future::join_all(runs).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
