//! Communities: values, aliases and the names that RFCs gave.
use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use super::{
    CommunitySpec,
    check::{Report, Wrong},
};
use crate::announce::{Community, ExtendedCommunity};

/// Aliases over all Community objects: value and the object's name.
pub(super) type Aliases = BTreeMap<String, (Community, Arc<str>)>;

/// Names that need no Community object; an alias of the same name comes before them.
///
/// Source: <https://www.iana.org/assignments/bgp-well-known-communities>
const WELL_KNOWN: [(&str, Community); 5] = [
    ("graceful-shutdown", Community::Standard(65535, 0)),
    ("blackhole", Community::Standard(65535, 666)),
    ("no-export", Community::Standard(65535, 65281)),
    ("no-advertise", Community::Standard(65535, 65282)),
    ("no-export-subconfed", Community::Standard(65535, 65283)),
];

/// How communities are written.
const HOW: &str = "write a:b or large:a:b:c";

/// Reads `a:b` or `large:a:b:c`; an error continues "invalid community value …".
pub(super) fn parse(text: &str) -> Result<Community, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let half = |part: &str| {
        decimal(part)
            .and_then(|n| u16::try_from(n).ok())
            .ok_or_else(|| format!(": {part:?} is not a number from 0 to 65535"))
    };
    let word = |part: &str| decimal(part).ok_or_else(|| format!(": {part:?} is not a number from 0 to 4294967295"));
    match parts.as_slice() {
        [a, b] => Ok(Community::Standard(half(a)?, half(b)?)),
        ["large", a, b, c] => Ok(Community::Large(word(a)?, word(b)?, word(c)?)),
        _ => Err(String::new()),
    }
}

/// Subtypes of the extended communities that have a name here. Source: RFC 4360 §4, §5.
const NAMED_SUBTYPES: [(&str, u8); 2] = [("rt", 0x02), ("soo", 0x03)];

/// Reads `rt:…` and `soo:…` with an AS number or an IPv4 address in front, or `0x` and 16 hexadecimal digits.
///
/// Source: RFC 4360 §3.1, §3.2, RFC 5668 §2
pub(super) fn parse_extended(text: &str) -> Result<ExtendedCommunity, Wrong> {
    let wrong = |why: String| {
        let message = format!("invalid extended community {text:?}{why}");
        let form = "write rt:64512:100, soo:64512:100, rt:192.0.2.1:100, or 0x and 16 hexadecimal digits";
        Wrong::new("extendedCommunityInvalid", message, form)
    };
    if let Some(digits) = text.strip_prefix("0x") {
        let value = (digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| u64::from_str_radix(digits, 16).ok())
            .flatten();
        return value.map(|v| ExtendedCommunity(v.to_be_bytes())).ok_or_else(|| wrong(String::new()));
    }
    let parts: Vec<&str> = text.split(':').collect();
    let [name, global, local] = parts[..] else { return Err(wrong(String::new())) };
    let known = NAMED_SUBTYPES.iter().find(|(known, _)| *known == name);
    let (_, subtype) = known.ok_or_else(|| wrong(String::new()))?;
    let short = || {
        let number = decimal(local).and_then(|n| u16::try_from(n).ok());
        number.ok_or_else(|| wrong(format!(": {local:?} is not a number from 0 to 65535, as goes with {global}")))
    };
    let (kind, octets) = if let Ok(ip) = global.parse::<Ipv4Addr>() {
        (0x01, [ip.octets().as_slice(), &short()?.to_be_bytes()].concat())
    } else {
        let neither = || wrong(format!(": {global:?} is neither an AS number nor an IPv4 address"));
        let asn = decimal(global).ok_or_else(neither)?;
        match u16::try_from(asn) {
            Ok(0) => return Err(wrong(": AS 0 is reserved".to_owned())),
            Ok(asn) => {
                let number =
                    decimal(local).ok_or_else(|| wrong(format!(": {local:?} is not a number from 0 to 4294967295")))?;
                (0x00, [asn.to_be_bytes().as_slice(), &number.to_be_bytes()].concat())
            }
            Err(_) => (0x02, [asn.to_be_bytes().as_slice(), &short()?.to_be_bytes()].concat()),
        }
    };
    let mut community = [kind, *subtype, 0, 0, 0, 0, 0, 0];
    community[2..].copy_from_slice(&octets);
    Ok(ExtendedCommunity(community))
}

/// A decimal number without sign.
fn decimal(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Checks everything about a Community object that concerns no other object.
pub(super) fn check(spec: &CommunitySpec, report: &mut Report) -> Option<Arc<[(String, Community)]>> {
    let mut read: Vec<(String, Community)> = Vec::with_capacity(spec.communities.len());
    for (i, (name, value)) in spec.communities.iter().enumerate() {
        let at = format!("spec.communities[{i}]");
        if name.is_empty() {
            report.error("nameEmpty", format!("{at}.name"), "", "a community alias must have a name", "write one");
        } else if read.iter().any(|(other, _)| other == name) {
            let message = format!("duplicate definition of community {name:?}: the object has it already");
            report.error("duplicate", format!("{at}.name"), name, message, "define it once");
        }
        match parse(value) {
            Ok(community) => read.push((name.clone(), community)),
            Err(why) => report.wrong(format!("{at}.value"), value, invalid(value, &why)),
        }
    }
    (!report.has_error()).then(|| read.into())
}

/// Adds an object's aliases, unless an older object has one of them, which is reported.
pub(super) fn admit(
    aliases: &mut Aliases,
    object: &Arc<str>,
    own: &[(String, Community)],
    report: &mut Report,
) -> bool {
    let mut free = true;
    for (i, (name, _)) in own.iter().enumerate() {
        if let Some((_, other)) = aliases.get(name) {
            let message =
                format!("duplicate definition of community {name:?}: the older Community {other:?} defines it");
            report.error("aliasConflict", format!("spec.communities[{i}].name"), name, message, "use another name");
            free = false;
        }
    }
    if free {
        aliases.extend(own.iter().map(|(name, value)| (name.clone(), (*value, object.clone()))));
    }
    free
}

/// What a text in `communities` of an advertisement stands for.
pub(super) fn resolve(text: &str, aliases: &Aliases) -> Result<Community, Wrong> {
    if let Some((value, _)) = aliases.get(text) {
        return Ok(*value);
    }
    if let Some((_, value)) = WELL_KNOWN.iter().find(|(name, _)| *name == text) {
        return Ok(*value);
    }
    if text.contains(':') {
        return parse(text).map_err(|why| invalid(text, &why));
    }
    let message = format!("unknown community {text:?}: no Community object defines this alias");
    Err(Wrong::new(
        "communityUnknown",
        message,
        "write a:b, large:a:b:c, an alias, or a well-known name such as no-export",
    ))
}

fn invalid(text: &str, why: &str) -> Wrong {
    Wrong::new("communityInvalid", format!("invalid community value {text:?}{why}"), HOW)
}
