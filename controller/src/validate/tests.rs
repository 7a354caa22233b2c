//! The command on manifests as people write them.
use super::*;

fn of(text: &str) -> Report {
    report(&[("a.yaml".to_owned(), text.to_owned())], "metallb-system").unwrap()
}

const POOL: &str =
    "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: p, namespace: metallb-system}\n";

#[test]
fn problems_are_told_with_file_object_field_value_and_rule() {
    let report = of(&format!("{POOL}spec: {{addresses: [10.0.0.9-10.0.0.1], autoasign: true}}\n"));
    assert!(report.has_error());
    let want = [
        "a.yaml: error: IPAddressPool p: spec.addresses[0]: \"10.0.0.9-10.0.0.1\": invalid IP range \"10.0.0.9-10.0.0.1\": range end 10.0.0.1 lies below its start 10.0.0.9: write start-end, 10.0.0.1-10.0.0.9 [rangeBackwards]",
        "a.yaml: warning: IPAddressPool p: spec.autoasign: \"true\": no such field: it has no effect: check the spelling against `kubectl explain` [unknownField]",
        "1 object: 1 error, 1 warning",
    ];
    assert_eq!(report.text().lines().collect::<Vec<_>>(), want);
    let json = report.json();
    let object = &json["configuration"][0];
    assert_eq!((&object["valid"], &object["problems"][0]["rule"]), (&json!(false), &json!("rangeBackwards")));
    assert_eq!(object["problems"][0]["suggestion"], "write start-end, 10.0.0.1-10.0.0.9");
}

#[test]
fn exit_is_clean_when_there_are_only_warnings() {
    let report = of(&format!("{POOL}spec: {{addresses: [10.0.0.0/24], autoasign: true}}\n"));
    assert!(!report.has_error());
    assert_eq!(report.count(Severity::Warning), 1);
}

#[test]
fn object_of_another_namespace_is_not_in_force_and_said_so() {
    let text = format!("{POOL}spec: {{addresses: [10.0.0.0/24]}}\n").replace("metallb-system", "other");
    let report = of(&text);
    let problems: Vec<_> = report.entries.values().flat_map(|e| &e.problems).collect();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!((problems[0].rule, &*problems[0].value), ("wrongNamespace", "other"));
    assert!(problems[0].to_string().contains("resource must be created in metallb-system namespace"));
}

#[test]
fn other_groups_kinds_and_lists_are_read_as_kubectl_does() {
    let report = of(
        "kind: Community\napiVersion: example.com/v1\nmetadata: {name: x}\n---\nkind: List\nitems:\n- kind: IPAddressPool\n  apiVersion: metallb.io/v1beta1\n  metadata: {name: p}\n  spec: {addresses: [10.0.0.0/24]}\n- kind: IPAddressPool\n  apiVersion: metallb.io/v1\n  metadata: {name: q}\n  spec: {addresses: [10.0.1.0/24]}\n",
    );
    let all: Vec<_> = report.entries.values().map(|e| e.problems.len()).collect();
    assert_eq!(all, [0, 1], "{report:?}");
}

#[test]
fn object_written_twice_is_an_error_and_the_first_counts() {
    let one = format!("{POOL}spec: {{addresses: [10.0.0.0/24]}}\n");
    let report = of(&format!("{one}---\n{}", one.replace("10.0.0.0/24", "x")));
    assert_eq!((report.count(Severity::Error), report.count(Severity::Warning)), (1, 0), "{}", report.text());
    assert!(report.text().contains("[duplicate]"));
}

#[test]
fn secret_that_is_not_in_the_files_is_a_warning() {
    let peer = "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {name: r}\nspec: {myASN: 1, peerASN: 2, peerAddress: 192.0.2.1, passwordSecret: {name: s}}\n";
    let report = of(peer);
    assert_eq!((report.count(Severity::Error), report.count(Severity::Warning)), (0, 1), "{}", report.text());
    let empty = of(&format!("{peer}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n"));
    assert_eq!(empty.count(Severity::Error), 1, "{}", empty.text());
    let whole =
        of(&format!("{peer}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData: {{password: x}}\n"));
    assert_eq!(whole.text(), "1 object: 0 errors, 0 warnings\n");
}

#[test]
fn file_that_is_not_yaml_is_named_with_its_line() {
    let error = report(&[("b.yaml".to_owned(), "kind: [\n".to_owned())], "metallb-system").unwrap_err();
    let text = format!("{error:#}");
    assert!(text.starts_with("b.yaml: not YAML") && text.contains("line"), "{text}");
}

#[test]
fn surroundings_in_the_files_are_looked_at() {
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {rack: a}}\nspec: {podCIDRs: [10.0.0.0/25]}\nstatus: {addresses: [{type: InternalIP, address: 192.0.2.1}]}\n";
    let report = of(&format!("{POOL}spec: {{addresses: [10.0.0.0/24]}}\n---\n{node}"));
    assert!(report.text().contains("10.0.0.0/25 is the network of the pods of Node n1"), "{}", report.text());
}
