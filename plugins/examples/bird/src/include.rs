//! The include file: what BIRD is told, as text.
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use ferrocast_core::announce::{Announcement, AnnouncementState, Desired};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The protocol of BIRD that has the IPv4 routes.
pub(crate) const PROTOCOL_V4: &str = "ferrocast4";
/// The same for IPv6.
pub(crate) const PROTOCOL_V6: &str = "ferrocast6";
/// What the file begins with. It declares the attributes, so that bird.conf can use them behind the line that includes it.
const HEAD: &str = "\
# Written by the plugin ferrocast-bird: what is changed here is lost.
attribute int ferrocast_draining;
attribute int ferrocast_metric;
attribute int ferrocast_tag;
";
/// What a line of a route begins with.
const ROUTE: &str = "route ";

/// Routes as they stand in the file, one line each, by prefix.
pub(crate) type Routes = BTreeMap<IpNet, String>;

/// What becomes of a desired set.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) routes: Routes,
    /// Those whose parameters are wrong, and why.
    pub(crate) refused: BTreeMap<IpNet, Cow<'static, str>>,
}

/// What an Advertisement may say to this plugin. announcer.yaml has the same as a schema.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// Lower is better, as everywhere in OSPF and RIP.
    metric: Option<u16>,
    /// For whoever sorts routes by it.
    tag: Option<u32>,
}

/// What to tell BIRD of a desired set.
pub(crate) fn plan(desired: &Desired) -> Plan {
    let mut plan = Plan::default();
    for (prefix, announcement) in &desired.announcements {
        match route(prefix, announcement) {
            _ if announcement.state == AnnouncementState::Withdrawn => {}
            Ok(line) => drop(plan.routes.insert(*prefix, line)),
            Err(reason) => drop(plan.refused.insert(*prefix, reason.into())),
        }
    }
    plan
}

/// The line of one route. If several Advertisements name a metric or a tag, the lowest counts.
///
/// A blackhole: BIRD needs some destination, and OSPF and RIP then name the node itself as next hop. No kernel may ever see it.
fn route(prefix: &IpNet, announcement: &Announcement) -> Result<String, String> {
    let mut attributes = BTreeMap::new();
    for terms in &*announcement.terms {
        let Some(parameters) = &terms.parameters else { continue };
        let Parameters { metric, tag } = read_parameters(parameters)
            .map_err(|error| format!("the parameters of {} are wrong: {error}", terms.advertisement))?;
        for (name, value) in [("ferrocast_metric", metric.map(u32::from)), ("ferrocast_tag", tag)] {
            if let Some(value) = value {
                attributes.entry(name).and_modify(|now: &mut u32| *now = value.min(*now)).or_insert(value);
            }
        }
    }
    if announcement.state == AnnouncementState::Draining {
        attributes.insert("ferrocast_draining", 1);
    }
    let words: String = attributes.iter().map(|(name, value)| format!(" {name} = {value};")).collect();
    let block = if words.is_empty() { String::new() } else { format!(" {{{words} }}") };
    Ok(format!("{ROUTE}{prefix} blackhole{block};"))
}

/// An object, and nothing that only resembles one.
fn read_parameters(json: &str) -> serde_json::Result<Parameters> {
    let object: Map<String, Value> = serde_json::from_str(json)?;
    Parameters::deserialize(Value::Object(object))
}

/// The whole file.
pub(crate) fn text(routes: &Routes) -> String {
    let mut text = HEAD.to_owned();
    for (protocol, channel, is_v4) in [(PROTOCOL_V4, "ipv4", true), (PROTOCOL_V6, "ipv6", false)] {
        text.push_str(&format!("protocol static {protocol} {{\n  {channel} {{ import all; export none; }};\n"));
        for (_, line) in routes.iter().filter(|(prefix, _)| prefix.addr().is_ipv4() == is_v4) {
            text.push_str(&format!("  {line}\n"));
        }
        text.push_str("}\n");
    }
    text
}

/// The routes of a file that [`text`] has made.
pub(crate) fn routes(text: &str) -> Routes {
    let lines = text.lines().map(str::trim).filter_map(|line| {
        let prefix = line.strip_prefix(ROUTE)?.split_whitespace().next()?;
        Some((prefix.parse().ok()?, line.to_owned()))
    });
    lines.collect()
}

/// Replaces the file, of which a reader never sees a half, not even after a loss of power.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferrocast_core::{announce::Terms, model::ServiceKey};
    use std::sync::Arc;

    fn announcement(state: AnnouncementState, parameters: &[&str]) -> Arc<Announcement> {
        let terms = |json: &&str| Terms {
            advertisement: "adv".into(),
            parameters: (!json.is_empty()).then(|| (*json).into()),
            ..Terms::default()
        };
        let services = Arc::new([ServiceKey::new("ns", "svc")].into());
        Arc::new(Announcement { state, terms: parameters.iter().map(terms).collect(), services, weight: None })
    }

    fn set(of: &[(&str, AnnouncementState, &[&str])]) -> Desired {
        let announcements = of
            .iter()
            .map(|(prefix, state, parameters)| (prefix.parse::<IpNet>().unwrap(), announcement(*state, parameters)));
        Desired { generation: 1, announcements: announcements.collect(), ..Desired::default() }
    }

    #[test]
    fn file_has_a_route_per_prefix_with_what_the_filters_need() {
        use AnnouncementState::{Active, Draining, Withdrawn};
        let desired = set(&[
            ("192.0.2.1/32", Active, &[""]),
            ("192.0.2.2/32", Draining, &["{}"]),
            ("192.0.2.3/32", Withdrawn, &["{"]),
            ("198.51.100.0/24", Active, &[r#"{"metric": 20, "tag": 7}"#, r#"{"metric": 10}"#, r#"{"tag": 9}"#]),
            ("2001:db8::1/128", Draining, &[r#"{"metric": 0}"#]),
        ]);
        let plan = plan(&desired);
        let whole = text(&plan.routes);
        let want = "\
protocol static ferrocast4 {
  ipv4 { import all; export none; };
  route 192.0.2.1/32 blackhole;
  route 192.0.2.2/32 blackhole { ferrocast_draining = 1; };
  route 198.51.100.0/24 blackhole { ferrocast_metric = 10; ferrocast_tag = 7; };
}
protocol static ferrocast6 {
  ipv6 { import all; export none; };
  route 2001:db8::1/128 blackhole { ferrocast_draining = 1; ferrocast_metric = 0; };
}
";
        assert_eq!(whole, format!("{HEAD}{want}"));
        assert!(plan.refused.is_empty());
        assert_eq!(routes(&whole), plan.routes, "what was written is read again");
        assert!(routes(&text(&Routes::new())).is_empty());
    }

    #[test]
    fn prefix_with_wrong_parameters_is_refused_with_the_reason_and_the_others_are_not() {
        let wrong = [
            ("{", "EOF"),
            ("[]", "expected a map"),
            (r#"{"metric": 65536}"#, "65536"),
            (r#"{"metric": "low"}"#, "low"),
            (r#"{"cost": 1}"#, "unknown field `cost`"),
        ];
        for (json, words) in wrong {
            let desired = set(&[
                ("192.0.2.1/32", AnnouncementState::Active, &["", json]),
                ("192.0.2.2/32", AnnouncementState::Active, &[""]),
            ]);
            let plan = plan(&desired);
            assert_eq!(plan.routes.len(), 1, "{json}");
            let reason = &plan.refused[&"192.0.2.1/32".parse().unwrap()];
            assert!(reason.contains(words) && reason.contains("parameters of adv"), "{json}: {reason}");
        }
    }

    #[test]
    fn file_is_replaced_as_a_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bird.conf");
        for content in ["one", "two"] {
            write(&path, content).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write(&dir.path().join("absent/bird.conf"), "").is_err());
    }
}
