//! The checks, in the order in which they are made.
mod ends;
mod hello;
mod restarts;
mod updates;

use std::time::Duration;

use ferrocast_core::announce::Shutdown;
use futures::future::BoxFuture;
use tokio::time::{Instant, timeout};

use crate::{
    Options, Subject,
    lab::{Lab, Result, Stop, failed},
    notes::Rule,
    report::{Checked, Finding, Outcome, Report},
    set::Set,
};

/// How many times the time limit a whole check may take: it waits for convergence some times.
const CHECK_WAITS_MAX: u32 = 10;
/// What a check may take beyond: answers, holds, and starts.
const CHECK_TIME: Duration = Duration::from_secs(60);
/// How long the announcer has to clean up when all is done.
const FAREWELL: Duration = Duration::from_secs(5);

/// One check.
struct Check {
    name: &'static str,
    demand: &'static str,
    /// What must have passed for this one to mean anything.
    needs: Option<&'static str>,
    run: for<'a, 'b> fn(&'a mut Lab<'b>) -> BoxFuture<'a, Result>,
}

macro_rules! check {
    ($name:literal, $needs:expr, $run:path, $demand:literal) => {
        Check { name: $name, demand: $demand, needs: $needs, run: |lab| Box::pin($run(lab)) }
    };
}

/// What most checks build upon.
const SNAPSHOT: Option<&str> = Some("snapshot");

/// What those build upon that look at the network while there is no host.
const HOLD: Option<&str> = Some("orphan-hold");

/// All of them.
const CHECKS: &[Check] = &[
    check!("hello", None, hello::hello, "the plugin says who it is, what it can do, and holds no longer than proposed"),
    check!(
        "protocol-range",
        None,
        hello::protocol_range,
        "a host of another protocol is answered with protocol 0 and the plugin's range"
    ),
    check!("snapshot", None, updates::snapshot, "a snapshot is accepted, then reached by every target"),
    check!("empty", SNAPSHOT, updates::empty, "an empty snapshot withdraws everything"),
    check!("difference", SNAPSHOT, updates::difference, "a difference adds what is new, and keeps the rest"),
    check!("withdrawal", SNAPSHOT, updates::withdrawal, "what a difference withdraws is gone"),
    check!("repeat", SNAPSHOT, updates::repeat, "the same set again, as snapshot and as difference, moves nothing"),
    check!("drain", SNAPSHOT, updates::drain, "an announcement drains, and becomes active again"),
    check!(
        "base-mismatch",
        SNAPSHOT,
        updates::base_mismatch,
        "a difference from what the plugin has not got is answered NeedSnapshot, and changes nothing"
    ),
    check!(
        "count-mismatch",
        SNAPSHOT,
        updates::count_mismatch,
        "an update that ends with another count is answered NeedSnapshot, and changes nothing"
    ),
    check!("unknown-fields", SNAPSHOT, updates::unknown_fields, "fields of a later version are ignored"),
    check!(
        "wrong-parameters",
        SNAPSHOT,
        updates::wrong_parameters,
        "parameters that are none are rejected or failed with a reason, and do no harm"
    ),
    check!("wrong-prefix", SNAPSHOT, updates::wrong_prefix, "a prefix that is none is not accepted, and does no harm"),
    check!(
        "configuration",
        SNAPSHOT,
        updates::configuration,
        "a change of the configuration alone is a version of its own"
    ),
    check!(
        "stale-epoch",
        SNAPSHOT,
        restarts::stale_epoch,
        "versions of another epoch are neither older nor newer nor a base"
    ),
    check!(
        "orphan-hold",
        SNAPSHOT,
        restarts::orphan_hold,
        "nothing is withdrawn while the host is away within the hold"
    ),
    check!("restart-before-hello", HOLD, restarts::before_hello, "a host that ends before its hello does no harm"),
    check!(
        "restart-mid-update",
        HOLD,
        restarts::mid_update,
        "nothing of half an update is in force, before and after the host ends"
    ),
    check!("restart-after-accepted", HOLD, restarts::after_accepted, "what was accepted is there for the next host"),
    check!("provisional", HOLD, restarts::provisional, "a provisional set withdraws nothing"),
    check!("stale", SNAPSHOT, restarts::stale, "what the next host's snapshot lacks is withdrawn"),
    check!("second-call", SNAPSHOT, restarts::second_call, "a second call ends the first"),
    check!("ten-thousand", SNAPSHOT, updates::ten_thousand, "10,000 announcements converge, and one change among them"),
    check!(
        "preview",
        SNAPSHOT,
        updates::preview,
        "what is foretold is what comes true, for every target, and foretelling changes nothing"
    ),
    check!("shutdown-keep", SNAPSHOT, ends::keep, "Shutdown with keep is answered Goodbye, and takes nothing away"),
    check!(
        "shutdown-withdraw",
        SNAPSHOT,
        ends::withdraw,
        "Shutdown with withdraw takes everything away, then says Goodbye"
    ),
    check!(
        "orphan-hold-expiry",
        SNAPSHOT,
        restarts::expiry,
        "everything is withdrawn when the hold is over, and back with the next host"
    ),
    check!(
        "plugin-restart",
        SNAPSHOT,
        ends::plugin_restart,
        "a plugin that restarts converges, and leaves nothing stale"
    ),
    check!("status-limits", None, limits, "texts, names and lists of statuses are within their limits"),
    check!("status-rate", None, rate, "at most ten statuses in a second"),
    check!(
        "status-honest",
        None,
        honest,
        "statuses speak only of versions and prefixes that were sent, and give reasons"
    ),
    check!("accepted-first", None, accepted_first, "a version is accepted before it is reached"),
];

/// The names of all checks, with what each demands.
#[must_use]
pub fn names() -> Vec<(&'static str, &'static str)> {
    CHECKS.iter().map(|check| (check.name, check.demand)).collect()
}

/// Drives the subject through all checks, one after the other, and leaves its network empty.
pub async fn run(mut subject: Subject, options: &Options) -> Report {
    let mut report = Report::default();
    let mut lab = Lab::new(&mut subject, options);
    for check in CHECKS.iter().filter(|check| options.only.is_empty() || options.only.iter().any(|o| o == check.name)) {
        let because = check.needs.filter(|needs| report.lacks(needs));
        let began = Instant::now();
        let outcome = match because {
            Some(because) => Outcome::NotRun { because },
            None => outcome(&mut lab, check).await,
        };
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        report.checks.push(Checked { name: check.name, demand: check.demand, outcome, took_ms });
        if !lab.hello.name.is_empty() {
            (report.name, report.version) = (lab.hello.name.clone(), lab.hello.plugin_version.clone());
        }
    }
    clean_up(&mut lab).await;
    report
}

async fn outcome(lab: &mut Lab<'_>, check: &Check) -> Outcome {
    lab.believed = false;
    let time_max = lab.options.time_limit * CHECK_WAITS_MAX + CHECK_TIME;
    let ended = timeout(time_max, (check.run)(lab)).await;
    lab.lose();
    match ended {
        Ok(Ok(())) => Outcome::Passed { not_probed: lab.believed },
        Ok(Err(Stop::NotApplicable(reason))) => Outcome::NotApplicable { reason },
        Ok(Err(Stop::Failed(finding))) => Outcome::Failed(finding),
        Err(_) => Outcome::Failed(Finding {
            expected: format!("the check ends within {time_max:?}"),
            seen: "it did not".into(),
            advice: "the plugin takes messages too slowly, or not at all".into(),
        }),
    }
}

/// Takes away what the checks have left. A subject that does not do it has failed elsewhere already.
async fn clean_up(lab: &mut Lab<'_>) {
    let farewell = async {
        lab.connect().await?;
        lab.begin_with(&Set::default()).await?;
        lab.shut_down(Shutdown::Withdraw, FAREWELL).await
    };
    drop(timeout(CHECK_TIME, farewell).await);
}

/// What was noted about all statuses so far; if there were none, some are provoked first.
async fn noted(lab: &mut Lab<'_>, rule: Rule, expected: &str, advice: &str) -> Result {
    if lab.notes.statuses() == 0 {
        lab.connect().await?;
        lab.begin_with(&lab.set(0..10)).await?;
        lab.listen(lab.options.settle).await;
    }
    match lab.notes.breach(rule) {
        Some(seen) => Err(failed(expected, seen, advice)),
        None => Ok(()),
    }
}

async fn limits(lab: &mut Lab<'_>) -> Result {
    let advice =
        "cut texts at 1 KiB and names at 253 octets, list at most 1,024 failures and count the rest in failures_total";
    noted(lab, Rule::Limits, "a status within the limits of the protocol", advice).await
}

async fn rate(lab: &mut Lab<'_>) -> Result {
    let advice = "send a status when something changed, and not before 100 ms have passed since the last one; the newest replaces those between";
    noted(lab, Rule::Rate, "at most 10 statuses in a second", advice).await
}

async fn honest(lab: &mut Lab<'_>) -> Result {
    let advice = "report only what the host has sent: the version last reached as it came in its Begin, failures by their prefixes as \
                  they came, each with a reason";
    noted(lab, Rule::Honest, "a status speaks of what was sent", advice).await
}

async fn accepted_first(lab: &mut Lab<'_>) -> Result {
    let advice = "send Accepted once the update is stored, and only then statuses about it";
    noted(lab, Rule::AcceptedFirst, "Accepted comes before a status that says reached", advice).await
}
