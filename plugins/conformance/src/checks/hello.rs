//! Who the plugin says that it is.
use ferrocast_plugin_proto::{
    ORPHAN_HOLD_S, PROTOCOL_MAX, PROTOCOL_MIN, VERSION_LEN_MAX,
    v1alpha1::{Election, HostHello, PluginHello},
};

use crate::lab::{Lab, Result, Stop, failed};

/// A protocol number that will not come to be in our time.
const PROTOCOL_FAR: u32 = 4_000_000_000;
/// A hold shorter than any plugin would choose by itself, s.
const HOLD_SHORT_S: u32 = 2;
/// Longest DNS label. Source: RFC 1123.
const NAME_LEN_MAX: usize = 63;

pub(super) async fn hello(lab: &mut Lab<'_>) -> Result {
    lab.connect().await?;
    let expected_name = match lab.socket() {
        Ok(path) if path.extension().is_some_and(|extension| extension == "sock") => {
            path.file_stem().map(|stem| stem.to_string_lossy().into_owned())
        }
        _ => None,
    };
    about_itself(&lab.hello, expected_name.as_deref())?;
    if lab.life().is_some() {
        return Ok(());
    }
    for hold in [ORPHAN_HOLD_S, HOLD_SHORT_S] {
        lab.become_another();
        lab.dial(HostHello { orphan_hold_s: hold, ..lab.host_hello() }).await?;
        let answered = lab.hello.orphan_hold_s;
        if answered > hold {
            let advice = "answer orphan_hold_s with what the host proposed, or less";
            return Err(failed(format!("orphan_hold_s of at most {hold}"), format!("{answered}"), advice));
        }
    }
    Ok(())
}

fn about_itself(hello: &PluginHello, expected_name: Option<&str>) -> Result {
    let PluginHello { protocol, name, plugin_version, .. } = hello;
    if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(protocol) {
        let advice = "answer the highest protocol number that both sides speak";
        return Err(failed(format!("protocol {PROTOCOL_MIN} to {PROTOCOL_MAX}"), format!("{protocol}"), advice));
    }
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_label = (1..=NAME_LEN_MAX).contains(&name.len())
        && name.chars().all(letters)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !is_label {
        let advice = "the name is that of the AnnouncerClass and of the socket: lower case letters, digits and dashes";
        return Err(failed("a name that is a DNS label of at most 63 characters", format!("{name:?}"), advice));
    }
    if let Some(expected) = expected_name.filter(|expected| expected != name) {
        let advice = "take the name from the socket's file, or the file from the name";
        return Err(failed(format!("the name {expected:?}, as the socket's file has it"), format!("{name:?}"), advice));
    }
    if plugin_version.len() > VERSION_LEN_MAX {
        let seen = format!("{} octets", plugin_version.len());
        return Err(failed(format!("a version of at most {VERSION_LEN_MAX} octets"), seen, "shorten plugin_version"));
    }
    let Some(capabilities) = hello.capabilities else {
        return Err(failed(
            "capabilities",
            "none",
            "say what the plugin can do: nothing is asked of one that can do nothing",
        ));
    };
    if !capabilities.ipv4 && !capabilities.ipv6 {
        let advice = "set ipv4, ipv6 or both: otherwise the plugin is never given a prefix";
        return Err(failed("a family that it announces", "neither IPv4 nor IPv6", advice));
    }
    if capabilities.election() != Election::None {
        let advice = "announcers that need election are not served yet: say ELECTION_NONE";
        return Err(failed("ELECTION_NONE", format!("{:?}", capabilities.election()), advice));
    }
    Ok(())
}

pub(super) async fn protocol_range(lab: &mut Lab<'_>) -> Result {
    lab.socket()?;
    let kept = lab.hello.clone();
    lab.become_another();
    lab.dial(HostHello { protocol_min: PROTOCOL_FAR, protocol_max: PROTOCOL_FAR, ..lab.host_hello() }).await?;
    let PluginHello { protocol, protocol_min, protocol_max, .. } = std::mem::replace(&mut lab.hello, kept);
    if protocol != 0 || protocol_min == 0 || protocol_min > protocol_max {
        let advice = "compare the host's range with the plugin's own; if none fits, answer protocol 0 and the own range, and do no more";
        let seen = format!("protocol {protocol}, range {protocol_min} to {protocol_max}");
        return Err(failed("protocol 0, and a range from 1 or more up", seen, advice));
    }
    lab.connect().await.map_err(|stop| match stop {
        Stop::Failed(finding) => failed("the next host is served", finding.seen, finding.advice),
        other => other,
    })
}
