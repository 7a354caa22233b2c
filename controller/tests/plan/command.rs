//! The command as a user runs it.
use std::{fs, path::Path, process::Command};

use serde_json::Value;

const CONFIGURATION: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: public, namespace: metallb-system}
spec: {addresses: [192.0.2.10-192.0.2.11]}
---
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {name: all, namespace: metallb-system}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: r1, namespace: metallb-system}
spec: {myASN: 64512, peerASN: 64513, peerAddress: 203.0.113.1}
";

fn service(name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{type: LoadBalancer, ports: [{{port: 80}}], selector: {{app: {name}}}}}\n"
    )
}

/// Exit code, standard output and standard error.
fn plan(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ferrocast")).arg("plan").args(args).output().unwrap();
    let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn write(dir: &Path, file: &str, text: &str) -> String {
    fs::create_dir_all(dir).unwrap();
    let path = dir.join(file);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn state_is_the_same_octets_at_every_run_and_says_what_is_assumed() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.yaml", &format!("{CONFIGURATION}{}", service("web")));
    let dir = dir.path().to_str().unwrap();
    let (code, first, _) = plan(&[dir, "-o", "json", "--nodes", "3", "--assume-endpoints"]);
    assert_eq!(code, Some(0));
    assert_eq!(plan(&[dir, "-o", "json", "--nodes", "3", "--assume-endpoints"]).1, first);
    let state: Value = serde_json::from_str(&first).unwrap();
    assert_eq!(state["version"], 1);
    assert_eq!(state["assumptions"]["nodes"], serde_json::json!(["node1", "node2", "node3"]));
    assert_eq!(state["assumptions"]["endpoints"], serde_json::json!(["default/web"]));
    assert_eq!(state["routes"].as_array().unwrap().len(), 3);
    let fields: Vec<&String> = state["decisions"][0].as_object().unwrap().keys().collect();
    assert_eq!(fields.len(), 9);
    let (_, strict, _) = plan(&[dir, "-o", "json"]);
    let strict: Value = serde_json::from_str(&strict).unwrap();
    assert!(strict.get("assumptions").is_none() && strict["decisions"] == serde_json::json!([]));
}

#[test]
fn document_that_does_not_parse_is_told_with_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    let bad =
        write(dir.path(), "b.yaml", "kind: Node\nmetadata: {name: node}\n---\nkind: Service\nmetadata:\n  name: [\n");
    let twice = write(dir.path(), "c.yaml", "kind: Node\nmetadata: {name: node}\n");
    let (code, out, error) = plan(&[dir.path().to_str().unwrap(), "-o", "json"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    let line = error.lines().find(|line| line.starts_with(&format!("{bad}:"))).unwrap_or_else(|| panic!("{error}"));
    let number: u64 = line[bad.len() + 1..].split(':').next().unwrap().parse().unwrap();
    assert!((6..=7).contains(&number), "{line}");
    assert!(error.contains(&format!("{twice}:1: Node node: given before, at {bad}:1")), "{error}");
    assert_eq!(plan(&["/nonexistent", "-o", "json"]).0, Some(1));
    assert_eq!(plan(&[]).0, Some(1));
}

#[test]
fn difference_names_services_routes_sessions_and_limits() {
    let dir = tempfile::tempdir().unwrap();
    let now = dir.path().join("now");
    let node = "---\napiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus: {addresses: [{type: InternalIP, address: 10.0.0.1}]}\n";
    write(&now, "a.yaml", &format!("{CONFIGURATION}{node}{}", service("web")));
    let now = now.to_str().unwrap();
    let relaxed = ["--against", now, "--assume-endpoints", "-o", "json"];
    let change = |text: &str| {
        let file = write(dir.path(), "change.yaml", text);
        let (code, out, error) = plan(&[&["-f", file.as_str()], &relaxed[..]].concat());
        let difference: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{error}"));
        let (text_code, shown, _) = plan(&["-f", file.as_str(), "--against", now, "--assume-endpoints"]);
        assert_eq!(text_code, code);
        (code, difference, shown)
    };
    let (code, same, shown) = change(&service("web"));
    assert_eq!((code, shown.as_str()), (Some(0), "Nothing would change.\n"), "{same}");

    let (code, more, shown) = change(&service("api"));
    assert_eq!(code, Some(2));
    assert_eq!(more["services"][0]["change"], "gains");
    assert_eq!(more["services"][0]["after"], serde_json::json!(["192.0.2.11"]));
    assert_eq!(more["routes"][0]["change"], "added");
    assert_eq!(more["routes"][0]["prefix"], "192.0.2.11/32");
    assert_eq!(more["limits"][0], serde_json::json!({"pool": "public", "family": "IPv4", "used": 2, "total": 2}));
    assert!(
        shown.contains("default/api gains 192.0.2.11") && shown.contains("192.0.2.11/32 added at peer r1, from n1"),
        "{shown}"
    );

    let (code, gone, _) = change("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: ClusterIP}\n");
    assert_eq!((code, &gone["services"][0]["change"]), (Some(2), &Value::from("loses")));
    assert_eq!(gone["routes"][0]["change"], "withdrawn");

    assert_eq!((&more["announcements"], &gone["announcements"]), (&serde_json::json!([]), &serde_json::json!([])));

    let peer = |spec: &str| {
        format!(
            "apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {{name: r1, namespace: metallb-system}}\nspec: {{{spec}}}\n"
        )
    };
    let (code, reset, shown) = change(&peer("myASN: 64512, peerASN: 64513, peerAddress: 203.0.113.1, holdTime: 30s"));
    assert_eq!(code, Some(2));
    assert_eq!(reset["sessions"], serde_json::json!([{"change": "resets", "node": "n1", "peer": "r1"}]));
    assert_eq!(reset["routes"], serde_json::json!([]));
    assert!(shown.contains("the session with r1 resets on n1"), "{shown}");
    let (_, moved, _) =
        change(&peer("myASN: 64512, peerASN: 64513, peerAddress: 203.0.113.1, nodeSelectors: [{matchLabels: {a: b}}]"));
    assert_eq!(moved["sessions"][0]["change"], "ends");
    assert_eq!(moved["routes"][0]["change"], "withdrawn");

    let advertisement = "apiVersion: metallb.io/v1beta1\nkind: BGPAdvertisement\nmetadata: {name: all, namespace: metallb-system}\nspec: {communities: [\"1:1\"]}\n";
    let (_, retold, _) = change(advertisement);
    assert_eq!(
        (&retold["routes"][0]["change"], &retold["routes"][0]["communities"]),
        (&Value::from("changed"), &serde_json::json!(["1:1"]))
    );

    let broken = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: public, namespace: metallb-system}\nspec: {addresses: [oops]}\n";
    let (code, invalid, shown) = change(broken);
    assert_eq!(code, Some(2), "the last valid version stays in force: {invalid}");
    assert_eq!((&invalid["services"], &invalid["routes"]), (&serde_json::json!([]), &serde_json::json!([])));
    assert_eq!(invalid["configuration"][0]["valid"], false);
    assert!(shown.contains("error: IPAddressPool public: spec.addresses[0]"), "{shown}");
}

#[test]
fn difference_names_what_other_announcers_gain_and_lose() {
    let dir = tempfile::tempdir().unwrap();
    let now = dir.path().join("now");
    let node = |name: &str, rack: &str| {
        format!("---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{rack: {rack}}}}}\n")
    };
    let class = "---\napiVersion: ferrocast.io/v1alpha1\nkind: AnnouncerClass\n\
                 metadata: {name: ospf, namespace: metallb-system}\n\
                 spec: {parametersSchema: {type: object, properties: {metric: {type: integer}}}}\n";
    let advertisement = |spec: &str| {
        format!(
            "---\napiVersion: ferrocast.io/v1alpha1\nkind: Advertisement\n\
             metadata: {{name: inside, namespace: metallb-system}}\nspec: {{announcer: ospf, {spec}}}\n"
        )
    };
    let (n1, n2, web) = (node("n1", "a"), node("n2", "b"), service("web"));
    write(&now, "a.yaml", &format!("{CONFIGURATION}{n1}{n2}{class}{}{web}", advertisement("parameters: {metric: 1}")));
    let now = now.to_str().unwrap();
    let change = |text: &str| {
        let file = write(dir.path(), "change.yaml", text);
        let arguments = ["-f", file.as_str(), "--against", now, "--assume-endpoints"];
        let (code, out, _) = plan(&[&arguments[..], &["-o", "json"]].concat());
        assert_eq!(code, Some(2), "{out}");
        let difference: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(difference["routes"].as_array().is_some_and(Vec::is_empty), text.contains("announcer"), "{out}");
        let rows = difference["announcements"].as_array().unwrap().iter();
        let row = |row: &Value| {
            assert_eq!((&row["announcer"], &row["advertisements"][0]), (&Value::from("ospf"), &Value::from("inside")));
            format!(
                "{} {} {} {}",
                text_of(&row["change"]),
                text_of(&row["node"]),
                text_of(&row["prefix"]),
                row["services"]
            )
        };
        (rows.map(row).collect::<Vec<_>>(), plan(&arguments).1)
    };
    let (rows, shown) = change(&advertisement("parameters: {metric: 2}, nodeSelectors: [{matchLabels: {rack: a}}]"));
    let web = r#"192.0.2.10/32 ["default/web"]"#;
    assert_eq!(rows, [format!("changed n1 {web}"), format!("withdrawn n2 {web}")]);
    assert!(
        shown.contains("192.0.2.10/32 changed by ospf, on n1") && shown.contains("withdrawn by ospf, on n2"),
        "{shown}"
    );
    let (rows, _) = change(&service("api"));
    let api = r#"192.0.2.11/32 ["default/api"]"#;
    assert_eq!(rows, [format!("added n1 {api}"), format!("added n2 {api}")]);
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}
