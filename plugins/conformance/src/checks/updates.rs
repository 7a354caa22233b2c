//! What becomes of updates within one call.
use ferrocast_core::announce::AnnouncementState::{Active, Draining};
use ferrocast_plugin_proto::v1alpha1::{self as proto, Version, host_message};
use tokio::time::Instant;

use crate::{
    lab::{ANSWER_TIME_MAX, Answer, Base, Lab, Result, Said, Stop, Update, broken, failed},
    look::watched,
    set::{Set, prefix},
    wire::CallError,
};

/// Announcements in the large set: what a node of a large cluster may have.
const MANY: u32 = 10_000;
/// How many times longer than usual the network may lag behind for so many.
const MANY_LAG: u32 = 10;
/// How far beyond everything that was sent a version is that was never sent.
const FAR: u64 = 1_000_000;

pub(super) async fn snapshot(lab: &mut Lab<'_>) -> Result {
    lab.connect_with(&lab.set(0..20)).await?;
    if lab.expected().is_empty() {
        let reasons: Vec<String> = lab.status.iter().flat_map(|s| &s.targets).map(|t| t.reason.clone()).collect();
        let advice =
            "its network must work for the checks to mean something; see the reasons, --configuration and --parameters";
        return Err(failed("announcements that do not all fail", format!("all have failed: {reasons:?}"), advice));
    }
    Ok(())
}

pub(super) async fn empty(lab: &mut Lab<'_>) -> Result {
    lab.connect_with(&lab.set(0..6)).await?;
    lab.accept(&Update::new(&Set::default(), Base::Snapshot)).await?;
    lab.converged().await
}

pub(super) async fn difference(lab: &mut Lab<'_>) -> Result {
    lab.connect_with(&lab.set(0..10)).await?;
    lab.change_to(&lab.set(0..20)).await?;
    // Any number of chunks, none included.
    lab.change_to(&lab.set(0..20)).await
}

pub(super) async fn withdrawal(lab: &mut Lab<'_>) -> Result {
    let set = lab.set(0..10);
    lab.connect_with(&set).await?;
    let gone: Vec<_> = set.states.keys().take(4).copied().collect();
    lab.change_to(&set.without(&gone)).await
}

pub(super) async fn repeat(lab: &mut Lab<'_>) -> Result {
    let set = lab.set(0..10);
    lab.connect_with(&set).await?;
    let expected = lab.expected();
    let advice = "compare the new set with what is announced, and do only what differs";
    for base in [Base::Snapshot, Base::Accepted] {
        let update = Update::new(&set, base);
        let watch = watched(lab.probe(), expected.clone(), advice);
        tokio::select! {
            stop = watch => return Err(stop),
            accepted = lab.accept(&update) => accepted?,
        }
        lab.stays(&expected, lab.options.settle, advice).await?;
        lab.reached().await?;
    }
    Ok(())
}

pub(super) async fn drain(lab: &mut Lab<'_>) -> Result {
    let set = lab.set(0..10);
    lab.connect_with(&set).await?;
    let draining = prefix(&lab.capabilities(), 3);
    for state in [Draining, Active] {
        lab.accept(&Update::new(&set.with(draining, state), Base::Accepted)).await?;
        lab.reached().await?;
        let advice = "a draining prefix stays announced, less attractive than others' (with the capability drain), until it is withdrawn or active again";
        lab.shows(&lab.expected(), lab.options.settle, advice).await?;
    }
    Ok(())
}

/// The answer is NeedSnapshot, and what was there before is there still; then a snapshot is taken in the same call.
async fn needs_snapshot(lab: &mut Lab<'_>, update: &Update<'_>, advice: &str) -> Result {
    let (before, expected) = (lab.accepted.clone(), lab.expected());
    match lab.update(update).await? {
        Answer::NeedSnapshot(_) => {}
        answer => return Err(failed("NeedSnapshot", format!("{answer:?}"), advice)),
    }
    let stay = "what was accepted before stays in force until another update is accepted";
    lab.stays(&expected, lab.options.settle, stay).await?;
    if lab.accepted != before {
        return Err(failed("nothing accepted", "it was", advice));
    }
    lab.accept(&Update::new(update.set, Base::Snapshot)).await?;
    lab.converged().await
}

pub(super) async fn base_mismatch(lab: &mut Lab<'_>) -> Result {
    lab.socket()?;
    lab.connect_with(&lab.set(0..10)).await?;
    let base = Base::Claimed(Version { epoch: lab.epoch, generation: lab.generation + FAR });
    let advice = "compare Begin.base with the version accepted last, epoch and generation; if they differ, answer NeedSnapshot and apply nothing";
    needs_snapshot(lab, &Update::new(&lab.set(0..12), base), advice).await
}

pub(super) async fn count_mismatch(lab: &mut Lab<'_>) -> Result {
    lab.socket()?;
    lab.connect_with(&lab.set(0..10)).await?;
    let advice = "count the whole set after the update, and compare with End.announcements before it is in force";
    let set = lab.set(0..12);
    needs_snapshot(lab, &Update { excess: 1, ..Update::new(&set, Base::Accepted) }, advice).await
}

pub(super) async fn unknown_fields(lab: &mut Lab<'_>) -> Result {
    lab.socket()?;
    let set = lab.set(0..10);
    lab.connect_with(&set).await?;
    lab.accept(&Update { unknown_fields: true, ..Update::new(&lab.set(0..12), Base::Accepted) }).await?;
    lab.converged().await
}

pub(super) async fn wrong_parameters(lab: &mut Lab<'_>) -> Result {
    let right = lab.set(0..10);
    lab.connect_with(&right).await?;
    for parameters in ["{", "[]", r#"{"conformance": {"not": "known"}}"#] {
        let wrong = Set { parameters: parameters.into(), ..right.clone() };
        match lab.update(&Update::new(&wrong, Base::Accepted)).await? {
            Answer::Accepted => {}
            Answer::Rejected(reason) if !reason.is_empty() => {}
            answer => {
                let advice =
                    "answer Rejected with a reason, or accept, and report the announcements as failed with a reason";
                return Err(failed(
                    format!("{parameters} is rejected with a reason, or accepted"),
                    format!("{answer:?}"),
                    advice,
                ));
            }
        }
    }
    lab.accept(&Update::new(&right, Base::Snapshot)).await?;
    lab.converged().await
}

pub(super) async fn wrong_prefix(lab: &mut Lab<'_>) -> Result {
    lab.socket()?;
    let set = lab.set(0..10);
    lab.connect_with(&set).await?;
    let expected = lab.expected();
    let version = lab.begin(&Update::new(&set, Base::Accepted)).await?;
    let announcements = vec![proto::Announcement {
        prefix: "not a prefix".into(),
        state: proto::State::Active.into(),
        terms: 1,
        services: vec!["conformance/check".into()],
        ..proto::Announcement::default()
    }];
    let chunk = proto::Chunk { announcements, ..proto::Chunk::default() };
    let end = proto::End { version: Some(version), announcements: set.states.len() as u64 + 1 };
    for message in [host_message::Message::Chunk(chunk), host_message::Message::End(end)] {
        // It may have ended the call already.
        drop(lab.call()?.send(message).await);
    }
    let until = Instant::now() + ANSWER_TIME_MAX;
    let advice =
        "read every prefix before anything is in force; answer Rejected with the text in question, and stay alive";
    loop {
        match lab.receive(until).await {
            Ok(Said::Status) => {}
            Ok(Said::Answer(Answer::Rejected(reason), _)) if !reason.is_empty() => break,
            Ok(Said::Answer(Answer::NeedSnapshot(_), _)) | Err(CallError::Ended(_)) => break,
            Ok(Said::Answer(answer, _)) => return Err(failed("Rejected with a reason", format!("{answer:?}"), advice)),
            Ok(Said::Goodbye) => return Err(failed("Rejected with a reason", "Goodbye", advice)),
            Err(error) => return Err(broken("a prefix that is none", &error)),
        }
    }
    lab.stays(&expected, lab.options.settle, advice).await?;
    lab.connect_with(&set).await
}

pub(super) async fn configuration(lab: &mut Lab<'_>) -> Result {
    let set = lab.set(0..10);
    lab.connect_with(&set).await?;
    let expected = lab.expected();
    let entries = lab.options.configuration.clone();
    lab.accept(&Update { configuration: Some(entries.clone()), ..Update::new(&set, Base::Accepted) }).await?;
    lab.stays(&expected, lab.options.settle, "the entries are the same: nothing has to move").await?;
    lab.reached().await?;
    for name in entries.keys() {
        let mut broken = entries.clone();
        broken.insert(name.clone(), (r#"{"conformance": ["not what is expected"]"#.into(), entries[name].1));
        match lab.update(&Update { configuration: Some(broken), ..Update::new(&set, Base::Accepted) }).await? {
            Answer::Accepted => {}
            Answer::Rejected(reason) if !reason.is_empty() => {}
            answer => {
                let advice = "answer Rejected and say which entry is not understood, without quoting a secret";
                return Err(failed(
                    format!("a wrong entry {name:?} is rejected with a reason"),
                    format!("{answer:?}"),
                    advice,
                ));
            }
        }
    }
    lab.begin_with(&set).await?;
    lab.converged().await
}

pub(super) async fn preview(lab: &mut Lab<'_>) -> Result {
    let of_another = |reason: &str| Stop::NotApplicable(reason.to_owned());
    if lab.in_process().is_none() {
        return Err(of_another("a plugin outside of the speaker's process does not foretell"));
    }
    lab.connect_with(&lab.set(0..10)).await?;
    let (expected, more) = (lab.expected(), lab.set(5..15));
    let foretold = lab.life().map(|life| (life.preview(&more), life.preview(&more)));
    let Some((Some(first), Some(second))) = foretold else {
        return Err(of_another("the announcer does not foretell"));
    };
    let advice = "work it out from the two arguments alone: keep nothing, send nothing";
    if first != second {
        return Err(failed("the same answer to the same question", "two answers", advice));
    }
    lab.stays(&expected, lab.options.settle / 2, advice).await?;
    lab.change_to(&more).await?;
    let visible = lab.expected();
    let targets = lab.status.iter().flat_map(|status| &status.targets).map(|target| target.name.clone());
    for name in targets.collect::<Vec<_>>() {
        let routes = first.get(name.as_str()).map(|routes| routes.keys().copied().collect::<Vec<_>>());
        if routes.as_ref().is_none_or(|routes| !routes.iter().eq(visible.keys())) {
            let expected = format!("target {name:?} is foretold the {} prefixes that it then gets", visible.len());
            let advice = "foretell by the code that announces";
            return Err(failed(expected, format!("{routes:?}"), advice));
        }
    }
    Ok(())
}

pub(super) async fn ten_thousand(lab: &mut Lab<'_>) -> Result {
    lab.connect_with(&lab.set(0..10)).await?;
    let many = |finding: Stop| match finding {
        Stop::Failed(mut finding) => {
            finding.expected = format!("with {MANY} announcements: {}", finding.expected);
            Stop::Failed(finding)
        }
        other => other,
    };
    for (numbers, base) in [(0..MANY, Base::Snapshot), (1..MANY, Base::Accepted), (1..10, Base::Accepted)] {
        lab.accept(&Update::new(&lab.set(numbers), base)).await.map_err(many)?;
        lab.converged_with(lab.options.settle * MANY_LAG).await.map_err(many)?;
    }
    Ok(())
}
