//! Runs the cases of a suite one after another over one shared context, in namespaces of the suite's own.
//!
//! A test target of this kind has `harness = false`: it prints what Rust's own harness prints, and can skip with a reason.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;

use crate::process::sh;
use crate::wait::{Stopwatch, bounded};

/// Set in the process that is already inside the namespaces.
const INSIDE: &str = "FERROCAST_TESTS_INSIDE";
/// Set to run what takes many minutes too.
const LONG: &str = "FERROCAST_TESTS_LONG";
/// The longest that one ordinary case may take, s.
const CASE_TIME_MAX_S: u64 = 300;
/// The longest that one long case may take, s.
const LONG_CASE_TIME_MAX_S: u64 = 1_200;
/// The longest that the shared context may take to stand, s (the first start of a binary reads it from disk).
const START_TIME_MAX_S: u64 = 120;

/// What the cases of one suite share.
pub trait Context: Sized {
    /// Brings everything up; files go to `dir`.
    ///
    /// # Errors
    /// When something does not come up: with its log's tail.
    fn start(dir: &Path) -> impl Future<Output = Result<Self>>;

    /// What a reader of a failure wants to see: logs' tails, routes.
    fn diagnose(&self) -> String;
}

/// One case: its name, whether it takes many minutes, and what it does.
pub struct Case<C> {
    /// The function's name, a sentence.
    pub name: &'static str,
    /// Runs only with `--long`.
    pub long: bool,
    /// The case itself.
    pub run: for<'a> fn(&'a mut C) -> LocalBoxFuture<'a, Result<()>>,
}

/// The cases of a suite by the names of their functions: `cases![a, b]`, or `cases![a, b; long: c]`.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => { $crate::cases![$($name),*; long:] };
    ($($name:ident),* $(,)?; long: $($slow:ident),* $(,)?) => {
        vec![
            $($crate::runner::Case { name: stringify!($name), long: false, run: |context| Box::pin($name(context)) },)*
            $($crate::runner::Case { name: stringify!($slow), long: true, run: |context| Box::pin($slow(context)) },)*
        ]
    };
}

/// What became of one case.
enum Outcome {
    Passed,
    Failed(anyhow::Error),
    Skipped(String),
}

/// Runs a suite: `main` of a test target. Without the right to make namespaces every case is skipped, with the reason.
///
/// `dir` is `env!("CARGO_TARGET_TMPDIR")`: logs are kept there, in a folder of the suite's name, until its next run.
#[must_use]
pub fn main<C: Context>(suite: &str, dir: &str, cases: Vec<Case<C>>) -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if std::env::args().any(|argument| argument == "--list") {
        cases.iter().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let (chosen, other): (Vec<_>, Vec<_>) = cases
        .into_iter()
        .partition(|case| filters.is_empty() || filters.iter().any(|filter| case.name.contains(filter.as_str())));
    let mut tally = Tally { filtered: other.len(), ..Tally::default() };
    if chosen.is_empty() {
        return tally.report();
    }
    if let Err(reason) = namespaces_allowed() {
        for case in &chosen {
            tally.count(case.name, Outcome::Skipped(reason.clone()));
        }
        return tally.report();
    }
    if !is_inside() {
        return enter_namespaces();
    }
    match run_inside(&PathBuf::from(dir).join(suite), &chosen, &mut tally) {
        Ok(()) => tally.report(),
        Err(error) => {
            println!("suite {suite} did not start: {error:#}");
            tally.failed += chosen.len();
            tally.report()
        }
    }
}

/// Counts in the words of Rust's harness, so that one script can add up both.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
    filtered: usize,
}

impl Tally {
    fn count(&mut self, name: &str, outcome: Outcome) {
        match outcome {
            Outcome::Passed => {
                self.passed += 1;
                println!("test {name} ... ok");
            }
            Outcome::Skipped(reason) => {
                self.skipped += 1;
                println!("test {name} ... skipped: {reason}");
            }
            Outcome::Failed(error) => {
                self.failed += 1;
                println!("test {name} ... FAILED\n{error:#}");
            }
        }
    }

    fn report(&self) -> ExitCode {
        let verdict = if self.failed == 0 { "ok" } else { "FAILED" };
        let Self { passed, failed, skipped, filtered } = self;
        println!(
            "\ntest result: {verdict}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured; {filtered} filtered out\n"
        );
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn unshare() -> Command {
    let mut command = Command::new("setpriv");
    // The whole of it dies with this process: unshare with its parent, the process namespace with its first process.
    command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]);
    command.arg("--mount-proc");
    command
}

/// Whether this process already is inside namespaces of its own.
#[must_use]
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Whether namespaces can be made.
///
/// # Errors
/// Why they cannot.
pub fn namespaces_allowed() -> Result<(), String> {
    if is_inside() {
        return Ok(());
    }
    let tried = unshare().arg("true").stdin(Stdio::null()).stderr(Stdio::null()).status();
    match tried {
        Ok(status) if status.success() => Ok(()),
        _ => Err("needs root, to make network namespaces".to_owned()),
    }
}

/// Starts this program again inside fresh namespaces and ends as it ends.
#[must_use]
pub fn enter_namespaces() -> ExitCode {
    let again = std::env::current_exe().context("finding this program").and_then(|program| {
        let status = unshare().arg(program).args(std::env::args().skip(1)).env(INSIDE, "1").process_group(0).status();
        status.context("starting unshare")
    });
    match again {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A private `/run` (the names of network namespaces, FRR's sockets) and a loopback that works: the first thing to do inside.
///
/// # Errors
/// When `mount` or `ip` fails.
pub fn furnish() -> Result<()> {
    sh("mount -t tmpfs tmpfs /run")?;
    fs::create_dir_all("/run/netns")?;
    sh("ip link set lo up").map(drop)
}

fn run_inside<C: Context>(dir: &Path, cases: &[Case<C>], tally: &mut Tally) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir)?;
    furnish()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let began = Stopwatch::start();
        let mut context = bounded("starting the suite", Duration::from_secs(START_TIME_MAX_S), C::start(dir)).await?;
        println!("suite stands after {:.1} s", began.seconds());
        for case in cases {
            let began = Stopwatch::start();
            let outcome = run_case(case, &mut context).await;
            let failed = matches!(outcome, Outcome::Failed(_));
            tally.count(case.name, outcome);
            println!("     took {:.1} s", began.seconds());
            if failed {
                println!("{}", context.diagnose());
            }
        }
        Ok(())
    })
}

async fn run_case<C: Context>(case: &Case<C>, context: &mut C) -> Outcome {
    let long = std::env::var(LONG).is_ok_and(|value| !value.is_empty());
    if case.long && !long {
        return Outcome::Skipped("takes many minutes: tests/run --long".to_owned());
    }
    let limit = Duration::from_secs(if case.long { LONG_CASE_TIME_MAX_S } else { CASE_TIME_MAX_S });
    let run = AssertUnwindSafe((case.run)(context)).catch_unwind();
    match tokio::time::timeout(limit, run).await {
        Ok(Ok(Ok(()))) => Outcome::Passed,
        Ok(Ok(Err(error))) => Outcome::Failed(error),
        Ok(Err(_panic)) => Outcome::Failed(anyhow!("panicked, see above")),
        Err(_) => Outcome::Failed(anyhow!("took longer than {limit:?}")),
    }
}
