//! What has arrived at the far end, and when: routes from a BGP session, or the floor's reports of what it saw.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ferrocast_bgp::router::ArrivalHook;
use ferrocast_tests::wait::bounded;
use tokio::sync::watch;

/// What happened to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// It is announced, and was not before.
    Appeared,
    /// It was announced and is not any more.
    Vanished,
}

/// The stamps of all arrivals since the last [`Arrivals::forget`], in their order.
#[derive(Default)]
struct Log {
    present: HashSet<IpAddr>,
    appeared: Vec<Instant>,
    vanished: Vec<Instant>,
    updates: usize,
}

/// Collects arrivals; clones share what they know.
#[derive(Clone, Default)]
pub(crate) struct Arrivals {
    log: Arc<Mutex<Log>>,
    news: Arc<watch::Sender<u64>>,
}

impl Arrivals {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that these addresses appeared and vanished at `at`; repeats do not count.
    pub(crate) fn note(
        &self,
        appeared: impl Iterator<Item = IpAddr>,
        vanished: impl Iterator<Item = IpAddr>,
        at: Instant,
    ) {
        let mut log = self.log();
        for ip in vanished {
            if log.present.remove(&ip) {
                log.vanished.push(at);
            }
        }
        for ip in appeared {
            if log.present.insert(ip) {
                log.appeared.push(at);
            }
        }
        log.updates += 1;
        drop(log);
        self.news.send_modify(|version| *version += 1);
    }

    /// For a router whose UPDATEs are to be noted here.
    #[must_use]
    pub(crate) fn hook(&self) -> ArrivalHook {
        let arrivals = self.clone();
        Arc::new(move |arrival| {
            let update = arrival.update;
            let addresses = |prefixes: &[ipnet::IpNet]| prefixes.iter().map(ipnet::IpNet::addr).collect::<Vec<_>>();
            let (appeared, vanished) = (addresses(&update.reach), addresses(&update.withdrawn));
            arrivals.note(appeared.into_iter(), vanished.into_iter(), arrival.at);
        })
    }

    /// Starts the stamps anew; what is present stays known.
    pub(crate) fn forget_stamps(&self) {
        let mut log = self.log();
        log.appeared.clear();
        log.vanished.clear();
        log.updates = 0;
    }

    /// Starts anew altogether, as when a session has ended.
    pub(crate) fn forget(&self) {
        *self.log() = Log::default();
    }

    /// How many addresses are present now.
    #[must_use]
    pub(crate) fn present(&self) -> usize {
        self.log().present.len()
    }

    /// How many messages have arrived since the stamps were forgotten.
    #[must_use]
    pub(crate) fn updates(&self) -> usize {
        self.log().updates
    }

    /// The stamp of the `number`th arrival of this kind, counted from 1; waits for it.
    ///
    /// # Errors
    /// When it does not come in time.
    pub(crate) async fn stamp(&self, what: What, number: usize, within: Duration) -> Result<Instant> {
        let name = format!("arrival {number} ({what:?})");
        let mut news = self.news.subscribe();
        let found = bounded(&name, within, async {
            loop {
                news.borrow_and_update();
                if let Some(stamp) = self.known(what, number) {
                    return Ok(stamp);
                }
                news.changed().await.context("the receiver has ended")?;
            }
        });
        let found = found.await;
        found.with_context(|| {
            let log = self.log();
            format!("{} appeared, {} vanished, {} present", log.appeared.len(), log.vanished.len(), log.present.len())
        })
    }

    fn known(&self, what: What, number: usize) -> Option<Instant> {
        let log = self.log();
        let stamps = match what {
            What::Appeared => &log.appeared,
            What::Vanished => &log.vanished,
        };
        stamps.get(number.checked_sub(1)?).copied()
    }

    /// Waits until `count` addresses are present.
    ///
    /// # Errors
    /// When they are not in time.
    pub(crate) async fn wait_for_present(&self, count: usize, within: Duration) -> Result<()> {
        let mut news = self.news.subscribe();
        let what = format!("{count} routes at the receiver");
        let done = bounded(&what, within, async {
            loop {
                news.borrow_and_update();
                if self.present() == count {
                    return Ok(());
                }
                news.changed().await.context("the receiver has ended")?;
            }
        });
        done.await.with_context(|| format!("{} are", self.present()))
    }
}
