//! How far a plugin has come: from an [`Observed`] to a [`Status`](wire::Status), and back with every limit enforced.
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use ferrocast_core::announce::{Announcement, Observed, TargetObserved};
use imbl::OrdMap;
use ipnet::IpNet;
use prost::{
    Message as _,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use crate::{
    FAILURES_MAX, FAILURES_TOTAL_MAX, MESSAGE_LEN_MAX, TARGET_NAME_LEN_MAX, TARGETS_MAX, TEXT_LEN_MAX, text,
    v1alpha1 as wire,
};

/// Longest status that is made, octets: half of what a message may have.
const STATUS_LEN_MAX: usize = MESSAGE_LEN_MAX / 2;

/// What a plugin tells of `observed`; `version` finds the version that a generation of its own stands for.
#[must_use]
pub fn status(observed: &Observed, version: impl Fn(u64) -> Option<wire::Version>) -> wire::Status {
    let mut budget = Budget { failures: FAILURES_TOTAL_MAX, octets: STATUS_LEN_MAX };
    let targets = observed.targets.iter().take(TARGETS_MAX);
    let targets = targets.map(|(name, target)| target_status(name, target, version(target.generation), &mut budget));
    wire::Status { targets: targets.collect(), problem: text::cut(observed.problem.clone(), TEXT_LEN_MAX) }
}

/// What a status may still contain.
struct Budget {
    failures: usize,
    octets: usize,
}

fn target_status(
    name: &str,
    target: &TargetObserved,
    reached: Option<wire::Version>,
    budget: &mut Budget,
) -> wire::TargetStatus {
    let mut failures = Vec::new();
    for (prefix, reason) in target.refused.iter().take(FAILURES_MAX.min(budget.failures)) {
        let failure = wire::Failure { prefix: prefix.to_string(), reason: text::cut(reason.to_string(), TEXT_LEN_MAX) };
        let Some(left) = budget.octets.checked_sub(failure.encoded_len()) else { break };
        budget.octets = left;
        failures.push(failure);
    }
    budget.failures -= failures.len();
    wire::TargetStatus {
        name: text::cut(name.to_owned(), TARGET_NAME_LEN_MAX),
        up: target.up,
        reached,
        announced: target.announced as u64,
        failures,
        failures_total: target.refused.len() as u64,
        reason: text::cut(target.reason.clone(), TEXT_LEN_MAX),
    }
}

/// What was left out of what a plugin told, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Statuses beyond [`STATUSES_PER_S_MAX`](crate::STATUSES_PER_S_MAX).
    pub statuses: u64,
    /// Targets beyond [`TARGETS_MAX`], told twice, or with a name that is none.
    pub targets: u64,
    /// Failures beyond [`FAILURES_MAX`] and [`FAILURES_TOTAL_MAX`], or of prefixes that were never sent.
    pub failures: u64,
    /// Texts of which the rest was cut off.
    pub texts: u64,
}

impl Dropped {
    /// Counts that one, too.
    pub fn add(&mut self, other: Self) {
        self.statuses += other.statuses;
        self.targets += other.targets;
        self.failures += other.failures;
        self.texts += other.texts;
    }

    /// By name.
    #[must_use]
    pub fn by_kind(&self) -> [(&'static str, u64); 4] {
        [("status", self.statuses), ("target", self.targets), ("failure", self.failures), ("text", self.texts)]
    }

    fn clean(&mut self, text: &str, len_max: usize) -> String {
        let (clean, cut) = text::clean(text, len_max);
        self.texts += u64::from(cut);
        clean
    }
}

/// The octets are not a message of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not a message of the protocol: {0}")]
pub struct Malformed(String);

impl From<prost::DecodeError> for Malformed {
    fn from(error: prost::DecodeError) -> Self {
        Self(error.to_string())
    }
}

/// Reads a message of a plugin that is not trusted. In memory a list costs many times what it costs on the wire, where an empty
/// element has two octets: of lists that are too long, only as much is read as they may have.
///
/// # Errors
/// [`Malformed`].
pub fn read_message(octets: &[u8]) -> Result<(wire::PluginMessage, Dropped), Malformed> {
    let mut dropped = Dropped::default();
    if !is_status(octets) {
        return Ok((wire::PluginMessage::decode(octets)?, dropped));
    }
    let (mut status, mut failures_left) = (wire::Status::default(), FAILURES_TOTAL_MAX);
    for_fields(octets, |tag, _, content| match (tag, content) {
        (STATUS, Some(content)) => for_fields(content, |tag, _, content| {
            match (tag, content) {
                (STATUS_TARGETS, Some(_)) if status.targets.len() == TARGETS_MAX => dropped.targets += 1,
                (STATUS_TARGETS, Some(target)) => {
                    status.targets.push(read_target(target, &mut failures_left, &mut dropped)?);
                }
                (STATUS_PROBLEM, Some(problem)) => {
                    status.problem =
                        std::str::from_utf8(problem).map_err(|error| Malformed(error.to_string()))?.to_owned();
                }
                _ => {}
            }
            Ok(())
        }),
        _ => Ok(()),
    })?;
    let message = Some(wire::plugin_message::Message::Status(status));
    Ok((wire::PluginMessage { message }, dropped))
}

/// Numbers of fields; the protocol's text has them, too, and never changes them.
const STATUS: u32 = 5;
const STATUS_TARGETS: u32 = 1;
const STATUS_PROBLEM: u32 = 2;
const TARGET_FAILURES: u32 = 5;

/// Is this message a status? Only looked at, not read.
#[must_use]
pub fn is_status(mut octets: &[u8]) -> bool {
    matches!(decode_key(&mut octets), Ok((STATUS, WireType::LengthDelimited)))
}

fn read_target(
    octets: &[u8],
    failures_left: &mut usize,
    dropped: &mut Dropped,
) -> Result<wire::TargetStatus, Malformed> {
    let (mut rest, mut failures) = (Vec::new(), Vec::new());
    for_fields(octets, |tag, whole, content| {
        match content {
            Some(_) if tag == TARGET_FAILURES && failures.len() >= FAILURES_MAX.min(*failures_left) => {
                dropped.failures += 1;
            }
            Some(failure) if tag == TARGET_FAILURES => failures.push(wire::Failure::decode(failure)?),
            _ => rest.extend_from_slice(whole),
        }
        Ok(())
    })?;
    *failures_left -= failures.len();
    let target = wire::TargetStatus::decode(&*rest)?;
    Ok(wire::TargetStatus { failures, ..target })
}

/// Each field: number, the field as a whole, and what is in it if it has a length.
fn for_fields<'a>(
    mut octets: &'a [u8],
    mut see: impl FnMut(u32, &'a [u8], Option<&'a [u8]>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !octets.is_empty() {
        let whole = octets;
        let (tag, wire_type) = decode_key(&mut octets)?;
        let content = if wire_type == WireType::LengthDelimited {
            let len = usize::try_from(decode_varint(&mut octets)?).unwrap_or(usize::MAX);
            let Some((content, rest)) = octets.split_at_checked(len) else {
                return Err(Malformed("a field is longer than its message".to_owned()));
            };
            octets = rest;
            Some(content)
        } else {
            skip_field(wire_type, tag, &mut octets, DecodeContext::default())?;
            None
        };
        see(tag, &whole[..whole.len() - octets.len()], content)?;
    }
    Ok(())
}

/// A status as the host believes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// By name.
    pub targets: BTreeMap<Arc<str>, TargetObserved>,
    /// What keeps the plugin as a whole from working; empty: nothing.
    pub problem: String,
    /// What was left out.
    pub dropped: Dropped,
}

/// Reads a status: `sent` is what the plugin was sent, `accepted` the generation of `epoch` that it accepted last. What it has
/// reached of another epoch counts as nothing.
///
/// # Errors
/// It says that it has reached what it has not accepted; in words.
pub fn told(
    status: &wire::Status,
    epoch: u64,
    accepted: u64,
    sent: &OrdMap<IpNet, Arc<Announcement>>,
) -> Result<Told, String> {
    let mut told = Told::default();
    told.problem = told.dropped.clean(&status.problem, TEXT_LEN_MAX);
    for target in &status.targets {
        if target.name.is_empty()
            || target.name.len() > TARGET_NAME_LEN_MAX
            || target.name.chars().any(char::is_control)
            || told.targets.contains_key(&*target.name)
        {
            told.dropped.targets += 1;
            continue;
        }
        let generation =
            target.reached.filter(|reached| reached.epoch == epoch).map_or(0, |reached| reached.generation);
        if generation > accepted {
            return Err(format!(
                "it says that target {:?} has reached generation {generation}, but has accepted no more than {accepted}",
                target.name
            ));
        }
        let read = read_told(target, generation, sent, &mut told.dropped);
        told.targets.insert(target.name.as_str().into(), read);
    }
    Ok(told)
}

fn read_told(
    target: &wire::TargetStatus,
    generation: u64,
    sent: &OrdMap<IpNet, Arc<Announcement>>,
    dropped: &mut Dropped,
) -> TargetObserved {
    let mut refused = BTreeMap::new();
    for failure in &target.failures {
        match failure.prefix.parse().ok().filter(|prefix| sent.contains_key(prefix)) {
            Some(prefix) => {
                refused.insert(prefix, Cow::Owned(dropped.clean(&failure.reason, TEXT_LEN_MAX)));
            }
            None => dropped.failures += 1,
        }
    }
    let mut reason = dropped.clean(&target.reason, TEXT_LEN_MAX);
    let more = target.failures_total.saturating_sub(target.failures.len() as u64);
    if more > 0 {
        reason = format!("{reason} ({more} more announcements fail)").trim_start().to_owned();
    }
    let announced = usize::try_from(target.announced).unwrap_or(usize::MAX);
    TargetObserved { up: target.up, generation, announced, refused, reason }
}
