//! Hosts that end and come again.
use std::time::Duration;

use ferrocast_plugin_proto::v1alpha1::HostHello;
use tokio::time::{Instant, sleep};

use crate::{
    lab::{Answer, Base, Lab, Result, Said, Stop, Update, failed},
    notes::show,
    wire::{Call, CallError},
};

/// The hold that is proposed to see it end, s.
const HOLD_SHORT_S: u32 = 1;
/// How long after the end of the hold everything must be gone.
const HOLD_SLACK: Duration = Duration::from_secs(4);
/// How far back the generations of the next epoch begin.
const BACK: u64 = 50;

/// The next host finds what the last one left: what the plugin says that it has.
fn still_has(lab: &Lab<'_>) -> Result {
    let has = lab.hello.accepted;
    let should = lab.accepted.as_ref().map(|(version, _)| *version);
    if has == should {
        return Ok(());
    }
    let words = |version: Option<ferrocast_plugin_proto::v1alpha1::Version>| {
        version.map_or("none".to_owned(), |version| show(version.epoch, version.generation))
    };
    let advice = "store an update before Accepted is sent, keep it when the call ends, and say its version in the next PluginHello; \
                  nothing of an update without its End counts";
    Err(failed(format!("PluginHello.accepted is {}", words(should)), words(has), advice))
}

pub(super) async fn stale_epoch(lab: &mut Lab<'_>) -> Result {
    lab.socket()?;
    lab.connect_with(&lab.set(0..10)).await?;
    let (old, newest) = (lab.accepted.clone(), lab.generation);
    lab.connect().await?;
    lab.generation -= BACK;
    let advice = "compare epoch and generation for equality; never order versions of different epochs";
    let taken = lab.begin_with(&lab.set(5..15)).await;
    let lower = lab.generation;
    lab.generation = newest.max(lower);
    taken.map_err(|stop| match stop {
        Stop::Failed(finding) => {
            failed("a snapshot of a new epoch with a lower generation is Accepted", finding.seen, advice)
        }
        other => other,
    })?;
    lab.converged().await?;
    // The generation accepted last, but of the epoch before.
    let Some((mut base, _)) = old else { return Ok(()) };
    base.generation = lower;
    let set = lab.set(5..16);
    match lab.update(&Update::new(&set, Base::Claimed(base))).await? {
        Answer::NeedSnapshot(_) => {}
        answer => return Err(failed("NeedSnapshot for a base of another epoch", format!("{answer:?}"), advice)),
    }
    lab.accept(&Update::new(&set, Base::Snapshot)).await?;
    lab.converged().await
}

pub(super) async fn before_hello(lab: &mut Lab<'_>) -> Result {
    let socket = lab.socket()?;
    lab.connect_with(&lab.set(0..10)).await?;
    let expected = lab.expected();
    lab.lose();
    if let Err(error) = Call::open_without_a_word(&socket, lab.options.settle / 2).await {
        return Err(crate::lab::broken("a call without a hello", &error));
    }
    lab.stays(&expected, lab.options.settle / 2, "a call without a hello changes nothing").await?;
    lab.connect().await?;
    still_has(lab)?;
    lab.begin_with(&lab.set(0..10)).await?;
    lab.converged().await
}

pub(super) async fn mid_update(lab: &mut Lab<'_>) -> Result {
    lab.socket()?;
    lab.connect_with(&lab.set(0..10)).await?;
    let expected = lab.expected();
    lab.begin(&Update::new(&lab.set(5..20), Base::Accepted)).await?;
    let advice = "gather the chunks of an update, and put them in force at its End, all at once";
    lab.stays(&expected, lab.options.settle, advice).await?;
    lab.lose();
    lab.stays(&expected, lab.options.settle / 2, advice).await?;
    lab.connect().await?;
    still_has(lab)?;
    lab.begin_with(&lab.set(5..20)).await?;
    lab.converged().await
}

pub(super) async fn after_accepted(lab: &mut Lab<'_>) -> Result {
    lab.socket()?;
    lab.connect_with(&lab.set(0..10)).await?;
    lab.accept(&Update::new(&lab.set(5..20), Base::Accepted)).await?;
    lab.connect().await?;
    still_has(lab)?;
    lab.begin_with(&lab.set(5..20)).await?;
    lab.converged().await
}

pub(super) async fn orphan_hold(lab: &mut Lab<'_>) -> Result {
    lab.socket()?;
    lab.connect_with(&lab.set(0..10)).await?;
    let expected = lab.expected();
    lab.lose();
    let advice = "when the call ends, keep everything announced for orphan_hold_s; the host is back by then";
    lab.stays(&expected, lab.options.settle, advice).await?;
    lab.connect().await?;
    still_has(lab)?;
    lab.stays(&expected, lab.options.settle / 2, "a hello alone changes nothing").await?;
    lab.begin_with(&lab.set(0..10)).await?;
    lab.stays(&expected, lab.options.settle / 2, "the new host's set is the same: nothing has to move").await?;
    lab.reached().await
}

pub(super) async fn provisional(lab: &mut Lab<'_>) -> Result {
    lab.connect_with(&lab.set(0..10)).await?;
    let expected = lab.expected();
    lab.connect().await?;
    lab.accept(&Update { provisional: true, ..Update::new(&lab.set(0..3), Base::Snapshot) }).await?;
    if lab.life().is_none() {
        let advice = "a provisional set is not complete: add what is in it, withdraw nothing for not being in it";
        lab.stays(&expected, lab.options.settle, advice).await?;
    }
    lab.accept(&Update::new(&lab.set(0..10), Base::Snapshot)).await?;
    lab.converged().await
}

pub(super) async fn stale(lab: &mut Lab<'_>) -> Result {
    lab.socket()?;
    lab.connect_with(&lab.set(0..10)).await?;
    lab.connect().await?;
    lab.begin_with(&lab.set(7..12)).await?;
    lab.reached().await?;
    let advice = "the first snapshot of a new host is the whole truth: withdraw what is announced and not in it";
    lab.shows(&lab.expected(), lab.options.settle, advice).await
}

pub(super) async fn second_call(lab: &mut Lab<'_>) -> Result {
    let socket = lab.socket()?;
    lab.connect_with(&lab.set(0..10)).await?;
    let expected = lab.expected();
    let hello = HostHello { epoch: fastrand::u64(1..), ..lab.host_hello() };
    let second = Call::open(&socket, hello, lab.options.time_limit).await;
    let _second = second.map_err(|error| crate::lab::broken("a second call", &error))?;
    let until = Instant::now() + crate::lab::ANSWER_TIME_MAX;
    loop {
        match lab.receive(until).await {
            Ok(Said::Status) => {}
            Err(CallError::Ended(_)) => break,
            _ => {
                let advice = "end the call that is open when another begins: its host is dead, and the kernel has not said so yet";
                return Err(failed("the first call ends when a second begins", "both are open", advice));
            }
        }
    }
    lab.stays(&expected, lab.options.settle / 2, "a second call alone withdraws nothing").await
}

pub(super) async fn expiry(lab: &mut Lab<'_>) -> Result {
    lab.socket()?;
    if lab.options.probe.is_none() {
        return Err(Stop::NotApplicable("without --probe nobody sees what is withdrawn while there is no host".into()));
    }
    lab.become_another();
    let hello = HostHello { orphan_hold_s: HOLD_SHORT_S, ..lab.host_hello() };
    lab.dial(hello.clone()).await?;
    let set = lab.set(0..10);
    lab.begin_with(&set).await?;
    lab.converged().await?;
    lab.lose();
    sleep(Duration::from_secs(u64::from(HOLD_SHORT_S))).await;
    let advice =
        "when the host is away for longer than orphan_hold_s, withdraw everything: nobody vouches for it any more";
    lab.shows(&super::super::Network::new(), HOLD_SLACK, advice).await?;
    // The same host: it was not dead, it was held up.
    lab.dial(hello).await?;
    let known = lab.accepted.as_ref().map(|(version, _)| *version);
    let base = match lab.hello.accepted.is_some() && lab.hello.accepted == known {
        true => Base::Accepted,
        false => Base::Snapshot,
    };
    lab.accept(&Update::new(&set, base)).await?;
    lab.reached().await?;
    let advice = "what was withdrawn at the end of the hold must be announced again with the next update, whatever it is the difference from";
    lab.shows(&lab.expected(), lab.options.settle, advice).await
}
