use super::*;

/// `KIND NAME SPEC` of each object.
fn objects(text: &str) -> Vec<String> {
    let converted = convert(text, "metallb-system");
    assert_eq!(converted.remarks.errors, [], "{text}");
    converted
        .objects
        .iter()
        .map(|o| format!("{} {} {}", o["kind"].as_str().unwrap(), o["metadata"]["name"].as_str().unwrap(), o["spec"]))
        .collect()
}

fn errors(text: &str) -> Vec<String> {
    let converted = convert(text, "metallb-system");
    assert!(converted.objects.is_empty(), "nothing is converted while something is not understood");
    converted.remarks.errors.iter().map(ToString::to_string).collect()
}

#[test]
fn final_version_is_converted_field_by_field() {
    let text = "peers:
- my-asn: 64512
  peer-asn: 64513
  peer-address: 10.0.0.1
  source-address: 10.0.0.2
  peer-port: 1179
  hold-time: 90s
  keepalive-time: 30s
  router-id: 10.0.0.2
  password: secret
  bfd-profile: fast
  ebgp-multihop: true
  node-selectors:
  - match-labels: {rack: a}
    match-expressions: [{key: tier, operator: In, values: [edge, core]}, {key: x, operator: Exists}]
bgp-communities: {no-advertise: 65535:65282}
address-pools:
- name: default
  protocol: bgp
  addresses: [192.0.2.0/24, 198.51.100.10-198.51.100.20]
  avoid-buggy-ips: true
  auto-assign: false
  bgp-advertisements:
  - aggregation-length: 32
    aggregation-length-v6: 128
    localpref: 100
    communities: [no-advertise, 64512:1]
- name: plain
  protocol: bgp
  addresses: [203.0.113.0/24]
- name: lan
  protocol: layer2
  addresses: [10.1.0.0/24]
bfd-profiles:
- {name: fast, receive-interval: 300, transmit-interval: 301, detect-multiplier: 4, echo-interval: 51, echo-mode: false, passive-mode: true, minimum-ttl: 254}
";
    assert_eq!(
        objects(text),
        [
            r#"Community communities {"communities":[{"name":"no-advertise","value":"65535:65282"}]}"#,
            r#"BFDProfile fast {"detectMultiplier":4,"echoInterval":51,"echoMode":false,"minimumTtl":254,"passiveMode":true,"receiveInterval":300,"transmitInterval":301}"#,
            r#"IPAddressPool default {"addresses":["192.0.2.0/24","198.51.100.10-198.51.100.20"],"autoAssign":false,"avoidBuggyIPs":true}"#,
            r#"BGPAdvertisement bgpadvertisement1 {"aggregationLength":32,"aggregationLengthV6":128,"communities":["no-advertise","64512:1"],"ipAddressPools":["default"],"localPref":100}"#,
            r#"IPAddressPool plain {"addresses":["203.0.113.0/24"]}"#,
            r#"BGPAdvertisement bgpadvertisement2 {"ipAddressPools":["plain"]}"#,
            r#"IPAddressPool lan {"addresses":["10.1.0.0/24"]}"#,
            r#"L2Advertisement l2advertisement1 {"ipAddressPools":["lan"]}"#,
            r#"BGPPeer peer1 {"bfdProfile":"fast","ebgpMultiHop":true,"holdTime":"90s","keepaliveTime":"30s","myASN":64512,"nodeSelectors":[{"matchExpressions":[{"key":"tier","operator":"In","values":["edge","core"]},{"key":"x","operator":"Exists"}],"matchLabels":{"rack":"a"}}],"password":"secret","peerASN":64513,"peerAddress":"10.0.0.1","peerPort":1179,"routerID":"10.0.0.2","sourceAddress":"10.0.0.2"}"#,
        ]
    );
}

#[test]
fn older_versions_mean_what_they_meant() {
    // v0.1, v0.2: no protocol, an empty list of advertisements is none.
    let oldest = "communities: {x: '1:2'}
address-pools:
- name: a
  cidr: [192.0.2.0/24]
  advertisements:
  - aggregation-length: 24
    communities: [x]
- name: quiet
  cidr: [198.51.100.0/24]
  advertisements: []
";
    let kinds: Vec<String> =
        objects(oldest).iter().map(|o| o.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        kinds,
        ["Community communities", "IPAddressPool a", "BGPAdvertisement bgpadvertisement1", "IPAddressPool quiet"]
    );
    // v0.3 to v0.5: arp and ndp, cidr with a protocol.
    for protocol in ["arp", "ndp", "layer2"] {
        let text = format!(
            "address-pools:\n- name: a\n  protocol: {protocol}\n  arp-network: 192.0.2.0/24\n  cidr: [192.0.2.0/28]\n"
        );
        let converted = convert(&text, "x");
        assert_eq!(converted.objects.len(), 2, "{protocol}");
        assert_eq!(converted.objects[1]["kind"], "L2Advertisement");
        assert_eq!(converted.remarks.warnings.len(), 1);
    }
    let v03 = "address-pools:\n- {name: a, protocol: bgp, cidr: [192.0.2.0/24]}\n";
    assert_eq!(objects(v03).len(), 2, "without bgp-advertisements there is the default one");
}

#[test]
fn what_is_not_understood_is_told_with_line_and_column() {
    let cases: &[(&str, &[&str])] = &[
        (
            "peers:\n- my-asn: 1\n  peer-asn: 2\n  peer-address: 10.0.0.1\n  colour: red\n",
            &["5:3: peers[0]: unknown field \"colour\""],
        ),
        (
            "peers:\n- my-asn: x\n  peer-asn: 2\n  peer-address: 10.0.0.1\n",
            &["2:11: peers[0].my-asn: expected a whole number"],
        ),
        ("peers:\n- peer-asn: 2\n  peer-address: 10.0.0.1\n", &["2:3: peers[0].my-asn: missing"]),
        (
            "peers:\n- {my-asn: 1, peer-asn: 2, peer-address: router}\n",
            &["2:28: peers[0].peer-address: \"router\" is not an IP address"],
        ),
        (
            "peers:\n- {my-asn: 1, peer-asn: 2, peer-address: 10.0.0.1, hold-time: soon}\n",
            &["2:52: peers[0].hold-time: \"soon\""],
        ),
        (
            "peers:\n- {my-asn: 1, peer-asn: 2, peer-address: 10.0.0.1, bfd-profile: x}\n",
            &["peers[0].bfd-profile: there is no BFD profile \"x\""],
        ),
        ("peers: 5\n", &["1:8: peers: expected a list, found a single value"]),
        (
            "address-pools:\n- name: a\n  addresses: [192.0.2.0/24]\n",
            &["address-pools[0].protocol: missing: bgp or layer2"],
        ),
        (
            "address-pools:\n- name: a\n  protocol: rip\n  addresses: [192.0.2.0/24]\n",
            &["3:3: address-pools[0].protocol: unknown protocol \"rip\""],
        ),
        ("address-pools:\n- {name: a, protocol: bgp}\n", &["2:3: address-pools[0]: a pool needs addresses"]),
        (
            "address-pools:\n- {protocol: bgp, addresses: [192.0.2.0/24]}\n",
            &["address-pools[0].name: a pool needs a name"],
        ),
        (
            "address-pools:\n- {name: a, protocol: bgp, addresses: [192.0.2.0/24], bgp-advertisements: [{communities: [nobody]}]}\n",
            &["bgp-advertisements[0].communities: \"nobody\" is neither"],
        ),
        (
            "address-pools:\n- {name: a, protocol: layer2, addresses: [192.0.2.0/24], bgp-advertisements: [{}]}\n",
            &["a layer 2 pool cannot have bgp-advertisements"],
        ),
        ("bgp-communities: {x: '70000:1'}\n", &["1:22: bgp-communities.x: \"70000:1\" is no BGP community"]),
        ("a: [\n", &["not YAML"]),
        ("peerz: []\npools: []\n", &["1:1: unknown field \"peerz\"", "2:1: unknown field \"pools\""]),
    ];
    for (text, want) in cases {
        let errors = errors(text);
        assert_eq!(errors.len(), want.len(), "{text}: {errors:?}");
        for (error, part) in errors.iter().zip(*want) {
            assert!(error.contains(part), "{text}: {part:?} is not in {error:?}");
        }
    }
}

#[test]
fn places_inside_a_config_map_are_those_of_the_file() {
    let text = "apiVersion: v1
kind: ConfigMap
metadata: {name: config, namespace: metallb-system}
data:
  config: |
    peers:
    - my-asn: 1
      peer-asn: 2
      peer-address: 10.0.0.1
      colour: red
";
    assert_eq!(errors(text).len(), 1);
    assert!(errors(text)[0].starts_with("10:7: peers[0]: unknown field"), "{:?}", errors(text));
    assert_eq!(objects(&text.replace("      colour: red\n", "")).len(), 1);
    assert!(errors("kind: ConfigMap\ndata: {other: x}\n")[0].contains("no key config"));
}

#[test]
fn name_that_no_resource_can_have_is_changed_with_a_warning() {
    let converted = convert("address-pools:\n- {name: My Pool, protocol: bgp, addresses: [192.0.2.0/24]}\n", "x");
    assert_eq!(converted.objects[0]["metadata"]["name"], "my-pool");
    assert!(converted.remarks.warnings[0].message.contains("\"my-pool\""));
    assert_eq!(converted.objects[1]["spec"]["ipAddressPools"][0], "my-pool");
}
