//! `explain` over a table of mistakes: `tests/explain/cases.yaml` holds manifests and the codes that must say what is wrong with them.
//! The form of a case is that of `tests/plan.rs`.
#![expect(clippy::unwrap_used, reason = "a test ends with the first surprise")]
mod cases;

use std::process::Command;

use cases::{Case, table};
use ferrocast::{
    explain::{Explanation, Subject, SubjectKind, from_plan},
    manifests::Manifests,
    plan::{objects::Objects, world::Settings},
};

/// Cases that there must be at least.
const CASES_MIN: usize = 40;

fn explain(case: &Case) -> Explanation {
    let mut manifests = Manifests::default();
    manifests.add_text("case.yaml", &case.manifests());
    assert!(manifests.errors.is_empty(), "{}: {:?}", case.name, manifests.errors);
    let mut objects = Objects::new("metallb-system");
    objects.apply(manifests);
    let (kind, name) = case.explain.split_once(' ').unwrap();
    let kind = match kind {
        "service" => SubjectKind::Service,
        "address" => SubjectKind::Address,
        "node" => SubjectKind::Node,
        _ => SubjectKind::Peer,
    };
    from_plan::explain(&Subject::new(kind, name).unwrap(), &objects, Settings::default())
}

fn lines(explanation: &Explanation, part: &str) -> Vec<String> {
    let services = explanation.services.iter();
    let name = |service: &ferrocast::explain::ServiceExplained| format!("{}/{}", service.namespace, service.name);
    match part {
        "facts" => explanation.facts.iter().map(|fact| fact.code.clone()).collect(),
        "services" => services.map(|service| format!("{} {}", name(service), service.reason.code)).collect(),
        "nodes" => services
            .flat_map(|service| service.nodes.iter().map(move |node| (service, node)))
            .map(|(service, node)| {
                let address = node.address.map_or_else(|| "-".to_owned(), |ip| ip.to_string());
                assert_eq!(node.announce, node.reason.code == "announced");
                assert!(!node.reason.message.is_empty());
                format!("{} {address} {} {}", name(service), node.node, node.reason.code)
            })
            .collect(),
        "peers" => services
            .flat_map(|service| &service.nodes)
            .flat_map(|node| node.peers.iter().map(move |peer| (node, peer)))
            .map(|(node, peer)| {
                assert_eq!(peer.desired, peer.reason.code == "sent");
                format!("{} {} {}", node.node, peer.peer, peer.reason.code)
            })
            .collect(),
        "sessions" => {
            let sessions = explanation.sessions.iter();
            sessions.map(|s| format!("{} {} {} {}", s.node, s.peer, s.reason.code, s.routes)).collect()
        }
        _ => {
            let object = |message: &str| message.split(": ").next().unwrap_or_default().to_owned();
            explanation.configuration.iter().map(|fact| object(&fact.message)).collect()
        }
    }
}

#[test]
fn mistake_is_named_by_its_code() {
    let cases = table("explain/cases.yaml");
    let mut failures = Vec::new();
    for case in &cases {
        let explanation = explain(case);
        for (part, want) in &case.want {
            let got = lines(&explanation, part);
            if got != *want {
                failures.push(format!(
                    "explain/cases.yaml: {}: {part}\n  wanted\n    {}\n  got\n    {}",
                    case.name,
                    want.join("\n    "),
                    got.join("\n    ")
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {} cases differ\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
}

#[test]
fn command_explains_from_a_directory_for_people_and_machines() {
    let dir = tempfile::tempdir().unwrap();
    let all = table("explain/cases.yaml");
    let case = all.iter().find(|case| case.name == "nothing is wrong").unwrap();
    std::fs::write(dir.path().join("all.yaml"), case.manifests()).unwrap();
    let run = |args: &[&str]| {
        let command = Command::new(env!("CARGO_BIN_EXE_ferrocast"))
            .arg("explain")
            .args(args)
            .arg("--from")
            .arg(dir.path())
            .output();
        let output = command.unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (done, text, _) = run(&["service", "default/web"]);
    assert!(done && text.contains("192.0.2.10") && text.contains("announced: by BGPAdvertisement"), "{text}");
    let (done, text, _) = run(&["peer", "r1", "-o", "json"]);
    let explanation: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(done && explanation["sessions"][0]["routes"] == 1, "{text}");
    let (done, _, error) = run(&["address", "somewhere"]);
    assert!(!done && error.contains("is not an IP address"), "{error}");
}
