//! `plan` of a custom binary says what its own announcer would do.
use std::process::Command;

use serde_json::{Value, json};

const MANIFESTS: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: public, namespace: metallb-system}
spec: {addresses: [192.0.2.10/32]}
---
apiVersion: ferrocast.io/v1alpha1
kind: AnnouncerClass
metadata: {name: file, namespace: metallb-system}
spec: {}
---
apiVersion: ferrocast.io/v1alpha1
kind: Advertisement
metadata: {name: to-file, namespace: metallb-system}
spec: {announcer: file}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, selector: {app: web}, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], ipFamilies: [IPv4], ports: [{port: 80}]}
";

#[test]
fn plan_foretells_what_the_own_announcer_would_do_and_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (manifests, file) = (dir.path().join("a.yaml"), dir.path().join("announced.txt"));
    std::fs::write(&manifests, MANIFESTS).unwrap();
    let mut plan = Command::new(env!("CARGO_BIN_EXE_ferrocast-with-file"));
    plan.arg("plan").arg(&manifests).args(["--assume-endpoints", "-o", "json"]).env("FERROCAST_FILE", &file);
    let output = plan.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = json!({
        "announcer": "file", "node": "n1", "target": "network", "prefix": "192.0.2.10/32", "nextHop": null,
        "attributes": {"line": "192.0.2.10/32"},
    });
    assert_eq!(document["foretold"], json!([row]), "{document}");
    assert!(!file.exists(), "the file was written");
}
