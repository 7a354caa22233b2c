//! `plan` over a table of cases: `tests/plan/*.yaml` holds manifests and what must follow from them.
//!
//! A case has the objects of the named `common` lists (`use`) and its own (`given`), in a shorthand that [`cases::expand`] turns into
//! manifests: the kind with the name, then the fields. What follows is compared line by line; a part that a case does not name is
//! not compared.
#![expect(clippy::unwrap_used, reason = "a test ends with the first surprise")]
mod cases;
#[path = "plan/command.rs"]
mod command;

use std::collections::BTreeMap;

use cases::{Case, table};
use ferrocast::{
    manifests::Manifests,
    plan::{
        fleet::Fleet,
        json,
        objects::Objects,
        world::{Planner, Settings},
    },
};
use ferrocast_core::decide::DesiredBuilder;
use serde_json::Value;

/// Cases that there must be at least.
const CASES_MIN: usize = 150;

/// The plan of a case, as JSON.
fn plan(case: &Case) -> Value {
    let text = case.manifests();
    let mut manifests = Manifests::default();
    manifests.add_text("case.yaml", &text);
    assert!(manifests.errors.is_empty(), "{}: {:?}\n{text}", case.name, manifests.errors);
    let mut objects = Objects::new("metallb-system");
    objects.apply(manifests);
    let settings = Settings {
        class: case.options.class.as_deref().map(Into::into),
        ignore_exclude_label: case.options.ignore_exclude_lb,
        nodes: case.options.nodes,
        assume_endpoints: case.options.assume_endpoints,
    };
    let world = Planner::new(settings).advance(&objects);
    let mut out = Vec::new();
    let none = ferrocast::decider::Announcers::new();
    json::write(&world, &mut Fleet::new(&world, &mut DesiredBuilder::default()), &none, &mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}

/// The rows of one part, each on a line.
fn lines(plan: &Value, part: &str) -> Vec<String> {
    let rows = plan[part].as_array().unwrap().iter();
    rows.map(|row| match part {
        "services" => service(row),
        "decisions" => decision(row),
        "routes" => route(row),
        _ => configuration(row),
    })
    .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn list(value: &Value) -> String {
    let all: Vec<&str> = value.as_array().unwrap().iter().map(text).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(",") }
}

/// `namespace/name addresses pools code`, and which addresses are held.
fn service(row: &Value) -> String {
    let first = row["addressPools"].as_array().unwrap().first().unwrap_or(&Value::Null);
    assert_eq!(row["pool"], *first, "{row}");
    let (name, code) = (format!("{}/{}", text(&row["namespace"]), text(&row["name"])), text(&row["reason"]["code"]));
    let held = list(&row["held"]);
    let held = if held == "-" { String::new() } else { format!(" held={held}") };
    format!("{name} {} {} {code}{held}", list(&row["addresses"]), list(&row["addressPools"]))
}

/// `namespace/name address node code`, and the peers if it is announced.
fn decision(row: &Value) -> String {
    let (name, code) = (format!("{}/{}", text(&row["namespace"]), text(&row["name"])), text(&row["code"]));
    assert_eq!(row["announce"], code == "announced", "{row}");
    assert_eq!(row["announcer"], "bgp");
    assert!(!text(&row["message"]).is_empty(), "{row}");
    let peers = if code == "announced" { format!(" {}", list(&row["peers"])) } else { String::new() };
    format!("{name} {} {} {code}{peers}", text(&row["address"]), text(&row["node"]))
}

/// `node peer prefix nextHop services`, and what else is set.
fn route(row: &Value) -> String {
    let mut line = [&row["node"], &row["peer"], &row["prefix"], &row["nextHop"]].map(text).join(" ");
    line = format!("{line} {}", list(&row["services"]));
    for (field, short) in [("communities", "c"), ("largeCommunities", "l")] {
        if list(&row[field]) != "-" {
            line = format!("{line} {short}={}", list(&row[field]));
        }
    }
    if !row["localPref"].is_null() {
        line = format!("{line} p={}", row["localPref"]);
    }
    if row["attributes"] != serde_json::json!({}) {
        line = format!("{line} {}", row["attributes"]);
    }
    line
}

/// `kind namespace/name`, whether it is in force as written, and the rules that it breaks.
fn configuration(row: &Value) -> String {
    let valid = if row["valid"] == true { "valid" } else { "invalid" };
    for problem in row["problems"].as_array().unwrap() {
        assert!(!text(&problem["message"]).is_empty() && problem["rule"].is_string(), "{row}");
    }
    format!("{} {}/{} {valid}", text(&row["kind"]), text(&row["namespace"]), text(&row["name"]))
}

/// Runs the cases of one file; returns how many there are.
fn run(file: &str) -> usize {
    let cases = table(file);
    let mut failures = Vec::new();
    for case in &cases {
        let plan = plan(case);
        for (part, want) in &case.want {
            let got = lines(&plan, part);
            if got != *want {
                failures.push(format!(
                    "{file}: {}: {part}\n  wanted\n    {}\n  got\n    {}",
                    case.name,
                    want.join("\n    "),
                    got.join("\n    ")
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {} cases differ\n{}", failures.len(), cases.len(), failures.join("\n"));
    cases.len()
}

#[test]
fn announcement_follows_from_manifests() {
    run("plan/announcement.yaml");
}

#[test]
fn allocation_follows_from_manifests() {
    run("plan/allocation.yaml");
}

#[test]
fn routes_follow_from_manifests() {
    run("plan/routes.yaml");
}

#[test]
fn policies_reservations_and_held_addresses_follow_from_manifests() {
    run("plan/later.yaml");
}

#[test]
fn case_names_are_told_apart_and_there_are_enough() {
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for file in ["plan/announcement.yaml", "plan/allocation.yaml", "plan/routes.yaml", "plan/later.yaml"] {
        for case in table(file) {
            *names.entry(format!("{file}: {}", case.name)).or_default() += 1;
        }
    }
    let twice: Vec<_> = names.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(names.len() >= CASES_MIN, "only {} cases", names.len());
}
