//! Differences for people and for machines.
use std::{
    collections::BTreeMap,
    fmt::Display,
    io::{self, Write},
    net::IpAddr,
    sync::Arc,
};

use ferrocast_core::config::Severity;
use ipnet::IpNet;
use serde::Serialize;

use super::{
    diff::{self, RouteChange, RouteDifference, ServiceChange, ServiceDifference, SessionChange},
    fleet::Fleet,
    json::{ProblemRow, ReasonRow, RouteRow, Rows, ShownCache, reason},
    world::World,
};

/// Lines of one part shown to people; JSON has all.
const LINES_MAX: usize = 200;
/// Names in one list shown to people.
const NAMES_MAX: usize = 6;

/// Two states with what their nodes announce.
pub struct Comparison<'a> {
    /// What is.
    pub old: &'a World,
    /// What its nodes announce.
    pub old_fleet: &'a mut Fleet,
    /// What would be.
    pub new: &'a World,
    /// What its nodes would announce.
    pub new_fleet: &'a mut Fleet,
}

#[derive(Serialize)]
struct ServiceRow<'a> {
    namespace: &'a str,
    name: &'a str,
    change: &'static str,
    before: &'a [IpAddr],
    after: &'a [IpAddr],
    held: &'a [IpAddr],
    reason: ReasonRow<'a>,
}

#[derive(Serialize)]
struct ChangedRoute<'a> {
    change: &'static str,
    #[serde(flatten)]
    route: RouteRow<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AnnouncementRow<'a> {
    change: &'static str,
    announcer: &'a str,
    node: &'a str,
    prefix: IpNet,
    /// Names of the Advertisements.
    advertisements: Vec<&'a str>,
    services: Vec<&'a str>,
}

#[derive(Serialize)]
struct SessionRow<'a> {
    change: &'static str,
    node: &'a str,
    peer: &'a str,
}

#[derive(Serialize)]
struct LimitRow<'a> {
    pool: &'a str,
    family: String,
    used: u64,
    total: u64,
}

#[derive(Serialize)]
struct ConfigurationRow<'a> {
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
    valid: bool,
    problems: Vec<ProblemRow<'a>>,
}

fn word_of_service(change: ServiceChange) -> &'static str {
    match change {
        ServiceChange::Gains => "gains",
        ServiceChange::Loses => "loses",
        ServiceChange::Changes => "changes",
        ServiceChange::Stays => "stays",
    }
}

fn word_of_route(change: RouteChange) -> &'static str {
    match change {
        RouteChange::Added => "added",
        RouteChange::Changed => "changed",
        RouteChange::Withdrawn => "withdrawn",
    }
}

fn word_of_session(change: SessionChange) -> &'static str {
    match change {
        SessionChange::Starts => "starts",
        SessionChange::Resets => "resets",
        SessionChange::Ends => "ends",
    }
}

impl Comparison<'_> {
    /// Writes every difference as JSON, row by row; was there any?
    ///
    /// # Errors
    /// What writing returns.
    pub fn write_json(&mut self, out: &mut impl Write) -> io::Result<bool> {
        let (mut any, old, new) = (false, self.old, self.new);
        write!(out, "{{\"version\":1")?;
        let mut rows = Rows::begin(out, "services")?;
        for change in diff::services(old, new) {
            any = true;
            rows.push(&ServiceRow {
                namespace: change.key.namespace(),
                name: change.key.name(),
                change: word_of_service(change.change),
                before: &change.before,
                after: &change.after,
                held: &change.held,
                reason: change.reason_after,
            })?;
        }
        rows.end()?;
        let mut rows = Rows::begin(out, "routes")?;
        let mut cache = ShownCache::default();
        diff::routes(self.old_fleet, self.new_fleet, |change| {
            any = true;
            let services = change.services.iter().map(|key| key.as_str()).collect();
            let shown = cache.get(change.told);
            let route = shown.row(change.node, change.peer, change.prefix, change.next_hop, services);
            rows.push(&ChangedRoute { change: word_of_route(change.change), route })
        })?;
        rows.end()?;
        let mut rows = Rows::begin(out, "announcements")?;
        diff::announcements(old, new, |change| {
            any = true;
            rows.push(&AnnouncementRow {
                change: word_of_route(change.change),
                announcer: change.announcer,
                node: change.node,
                prefix: change.prefix,
                advertisements: change.announcement.terms.iter().map(|terms| &*terms.advertisement).collect(),
                services: change.announcement.services.iter().map(|key| key.as_str()).collect(),
            })
        })?;
        rows.end()?;
        let mut rows = Rows::begin(out, "sessions")?;
        for change in diff::sessions(self.old_fleet, self.new_fleet) {
            any = true;
            rows.push(&SessionRow { change: word_of_session(change.change), node: &change.node, peer: &change.peer })?;
        }
        rows.end()?;
        let mut rows = Rows::begin(out, "limits")?;
        for limit in diff::limits(old, new) {
            any = true;
            let family = limit.family.to_string();
            rows.push(&LimitRow { pool: &limit.pool, family, used: limit.used, total: limit.total })?;
        }
        rows.end()?;
        let mut rows = Rows::begin(out, "configuration")?;
        for verdict in diff::configuration(old, new) {
            any = true;
            let (kind, namespace, name) = &verdict.key;
            let problems = verdict.problems.iter().map(ProblemRow::from).collect();
            rows.push(&ConfigurationRow { kind, namespace, name, valid: verdict.valid, problems })?;
        }
        rows.end()?;
        out.write_all(b"}\n")?;
        Ok(any)
    }

    /// Writes every difference for people; was there any?
    ///
    /// # Errors
    /// What writing returns.
    pub fn write_text(&mut self, out: &mut impl Write) -> io::Result<bool> {
        let mut any = false;
        let services = diff::services(self.old, self.new).iter().map(service_line).collect();
        any |= part(out, "Services", services)?;
        any |= part(out, "Routes", self.route_lines())?;
        any |= part(out, "Announcements", self.announcement_lines())?;
        any |= part(out, "Sessions", self.session_lines())?;
        let full = |limit: &diff::LimitDifference| {
            let diff::LimitDifference { pool, family, used, total } = limit;
            format!("pool {pool}: {used} of {total} {family} addresses are used")
        };
        any |= part(out, "Limits", diff::limits(self.old, self.new).iter().map(full).collect())?;
        let mut problems = Vec::new();
        for verdict in diff::configuration(self.old, self.new) {
            let (kind, _, name) = &verdict.key;
            if verdict.problems.is_empty() {
                problems.push(format!("{kind} {name}: nothing is wrong with it any more"));
            }
            problems.extend(verdict.problems.iter().map(|problem| problem_line(kind, name, problem)));
        }
        any |= part(out, "Configuration", problems)?;
        if !any {
            writeln!(out, "Nothing would change.")?;
        }
        Ok(any)
    }

    /// One line per peer, prefix and change, with the nodes.
    fn route_lines(&mut self) -> Vec<String> {
        let mut peers: BTreeMap<Arc<str>, BTreeMap<(IpNet, RouteChange), Names>> = BTreeMap::new();
        let note = |change: &RouteDifference<'_>| {
            let of_peer = peers.entry(change.peer.clone()).or_default();
            of_peer.entry((change.prefix, change.change)).or_default().push(change.node);
            Ok::<(), std::convert::Infallible>(())
        };
        let Ok(()) = diff::routes(self.old_fleet, self.new_fleet, note);
        let lines = peers.iter().flat_map(|(peer, changes)| {
            changes.iter().map(move |((prefix, change), nodes)| {
                format!("{prefix} {} at peer {peer}, from {}", word_of_route(*change), nodes.listed())
            })
        });
        lines.collect()
    }

    /// One line per announcer besides BGP, prefix and change, with the nodes.
    fn announcement_lines(&self) -> Vec<String> {
        let mut lines: BTreeMap<(Arc<str>, IpNet, RouteChange), Names> = BTreeMap::new();
        let Ok(()) = diff::announcements(self.old, self.new, |change| {
            let key = (change.announcer.clone(), change.prefix, change.change);
            lines.entry(key).or_default().push(change.node);
            Ok::<(), std::convert::Infallible>(())
        });
        let line = |((announcer, prefix, change), nodes): (&(Arc<str>, IpNet, RouteChange), &Names)| {
            format!("{prefix} {} by {announcer}, on {}", word_of_route(*change), nodes.listed())
        };
        lines.iter().map(line).collect()
    }

    fn session_lines(&mut self) -> Vec<String> {
        let mut lines: BTreeMap<(Arc<str>, SessionChange), Vec<Arc<str>>> = BTreeMap::new();
        for change in diff::sessions(self.old_fleet, self.new_fleet) {
            lines.entry((change.peer, change.change)).or_default().push(change.node);
        }
        let line = |((peer, change), nodes): (&(Arc<str>, SessionChange), &Vec<Arc<str>>)| {
            format!("the session with {peer} {} on {}", word_of_session(*change), listed(nodes))
        };
        lines.iter().map(line).collect()
    }
}

/// A problem on one line.
pub(super) fn problem_line(kind: &str, name: &str, problem: &ferrocast_core::config::Problem) -> String {
    let severity = if problem.severity == Severity::Error { "error" } else { "warning" };
    let mut line = format!("{severity}: {kind} {name}");
    for part in [&problem.field, &problem.message, &problem.suggestion] {
        if !part.is_empty() {
            line = format!("{line}: {part}");
        }
    }
    line
}

/// Writes a part if it has lines; had it?
fn part(out: &mut impl Write, title: &str, lines: Vec<String>) -> io::Result<bool> {
    if lines.is_empty() {
        return Ok(false);
    }
    writeln!(out, "{title}")?;
    for line in lines.iter().take(LINES_MAX) {
        writeln!(out, "  {line}")?;
    }
    if let Some(more) = lines.len().checked_sub(LINES_MAX).filter(|more| *more > 0) {
        writeln!(out, "  … and {more} more: -o json has all")?;
    }
    Ok(true)
}

/// Some names, of which so many are kept as are shown.
#[derive(Default)]
struct Names {
    first: Vec<Arc<str>>,
    more: usize,
}

impl Names {
    fn push(&mut self, name: &Arc<str>) {
        if self.first.len() < NAMES_MAX {
            self.first.push(name.clone());
        } else {
            self.more += 1;
        }
    }

    fn listed(&self) -> String {
        enumeration(&self.first, self.more)
    }
}

fn listed<T: Display>(names: &[T]) -> String {
    let (first, rest) = names.split_at(names.len().min(NAMES_MAX));
    enumeration(first, rest.len())
}

fn enumeration<T: Display>(first: &[T], more: usize) -> String {
    let shown: Vec<String> = first.iter().map(ToString::to_string).collect();
    match more {
        0 => shown.join(", "),
        _ => format!("{} and {more} more", shown.join(", ")),
    }
}

fn service_line(change: &ServiceDifference<'_>) -> String {
    let (key, ReasonRow { code, message }) = (change.key, change.reason_after);
    let only =
        |a: &[IpAddr], b: &[IpAddr]| listed(&a.iter().filter(|ip| !b.contains(ip)).copied().collect::<Vec<IpAddr>>());
    let (lost, gained) = (only(&change.before, &change.after), only(&change.after, &change.before));
    let why = if message.is_empty() { code.to_owned() } else { format!("{code}: {message}") };
    match change.change {
        ServiceChange::Gains => format!("{key} gains {gained}"),
        ServiceChange::Loses => format!("{key} loses {lost} ({why})"),
        ServiceChange::Changes => format!("{key} loses {lost} and gains {gained}"),
        ServiceChange::Stays if !change.held.is_empty() => format!("{key} holds {} ({why})", listed(&change.held)),
        ServiceChange::Stays => format!("{key}: {} becomes {why}", change.reason_before.code),
    }
}

/// Writes a whole state for people: Services with their addresses, and what is wrong.
///
/// # Errors
/// What writing returns.
pub fn write_state(world: &World, out: &mut impl Write) -> io::Result<()> {
    let mut lines = Vec::new();
    for (key, service) in &world.services {
        let ReasonRow { code, message } = reason(world, service);
        let addresses = if service.ingress.is_empty() { "no address".to_owned() } else { listed(&service.ingress) };
        let words = if message.is_empty() { String::new() } else { format!(": {message}") };
        lines.push(format!("{key}  {addresses}  {code}{words}"));
    }
    let mut any = part(out, "Services", lines)?;
    let problems = world.verdicts.iter().flat_map(|verdict| {
        let (kind, _, name) = &verdict.key;
        verdict.problems.iter().map(move |problem| problem_line(kind, name, problem))
    });
    any |= part(out, "Configuration", problems.collect())?;
    if !any {
        writeln!(out, "No Service of type LoadBalancer, and nothing is wrong with the configuration.")?;
    }
    Ok(())
}
