//! Watches the next hops in a router's kernel while something happens, more often than `eventually` looks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};
use ferrocast_tests::process::sh;
use ferrocast_tests::wait::Stopwatch;
use serde_json::Value;

/// Pause between two looks, ms: short against the two seconds that a next hop may be absent.
const LOOK_INTERVAL_MS: u64 = 10;

/// What was seen, each state with the time from which on it was there, s since the beginning.
pub(crate) struct Seen(Vec<(f32, BTreeSet<String>)>);

/// A thread that looks until it is told to stop.
pub(crate) struct Watching {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Seen>>,
}

fn hops(netns: &str, prefix: &str) -> Result<BTreeSet<String>> {
    let printed = sh(&format!("ip -n {netns} -j -4 route show {prefix}"))?;
    let routes: Vec<Value> = serde_json::from_str(&printed).unwrap_or_default();
    let several = routes.iter().flat_map(|route| route["nexthops"].as_array().into_iter().flatten());
    Ok(several.chain(&routes).filter_map(|hop| hop["gateway"].as_str().map(str::to_owned)).collect())
}

impl Watching {
    /// Begins to watch a prefix at a router.
    pub(crate) fn start(netns: &'static str, prefix: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = thread::spawn(move || {
            let began = Stopwatch::start();
            let mut seen: Vec<(f32, BTreeSet<String>)> = Vec::new();
            while !told.load(Ordering::Relaxed) {
                let now = hops(netns, &prefix)?;
                if seen.last().is_none_or(|(_, last)| *last != now) {
                    seen.push((began.seconds(), now));
                }
                thread::sleep(Duration::from_millis(LOOK_INTERVAL_MS));
            }
            Ok(Seen(seen))
        });
        Self { stop, thread }
    }

    /// What it has seen.
    pub(crate) fn end(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the watching thread panicked"))?
    }
}

impl Seen {
    /// Was there ever no next hop at all?
    pub(crate) fn ever_empty(&self) -> bool {
        self.0.iter().any(|(_, hops)| hops.is_empty())
    }

    /// How often the set changed.
    pub(crate) fn changes(&self) -> usize {
        self.0.len().saturating_sub(1)
    }

    /// How long a next hop was absent at the longest, until it came back; seconds.
    pub(crate) fn longest_absence(&self, hop: &str) -> f32 {
        let mut since: Option<f32> = None;
        let mut longest: f32 = 0.0;
        for (at, hops) in &self.0 {
            if hops.contains(hop) {
                longest = longest.max(since.take().map_or(0.0, |since| at - since));
            } else {
                since.get_or_insert(*at);
            }
        }
        longest
    }
}
