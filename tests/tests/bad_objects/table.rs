//! The bad objects: each with the field and the value that whoever refuses it must name.

use serde_json::{Value, json};

/// One bad object.
pub(crate) struct Bad {
    /// Its name, which says what is wrong with it.
    pub(crate) name: &'static str,
    /// Its kind.
    pub(crate) kind: &'static str,
    /// Its spec.
    pub(crate) spec: Value,
    /// What the message must contain: the field's name, and the value where there is one.
    pub(crate) words: &'static [&'static str],
    /// Where only Ferrocast can know what is wrong, not the schema: it must say this too.
    pub(crate) advice: &'static str,
}

fn bad(
    name: &'static str,
    kind: &'static str,
    spec: Value,
    words: &'static [&'static str],
    advice: &'static str,
) -> Bad {
    Bad { name, kind, spec, words, advice }
}

/// Pools, peers, advertisements, communities and profiles that nobody can mean.
pub(crate) fn table() -> Vec<Bad> {
    let mut all = pools();
    all.extend(peers());
    all.extend(advertisements());
    all.extend(others());
    all.extend(policies());
    all
}

fn pools() -> Vec<Bad> {
    let pool = |name, spec, words, advice| bad(name, "IPAddressPool", spec, words, advice);
    vec![
        pool("half-a-range", json!({"addresses": ["10.9.0.1-"]}), &["addresses", "10.9.0.1-"], "range"),
        pool("octet-too-great", json!({"addresses": ["10.9.0.300/24"]}), &["addresses", "10.9.0.300/24"], "CIDR"),
        pool("reversed", json!({"addresses": ["10.9.0.9-10.9.0.1"]}), &["addresses", "10.9.0.9-10.9.0.1"], "below"),
        pool("two-families", json!({"addresses": ["10.9.0.1-fd09::1"]}), &["addresses", "10.9.0.1-fd09::1"], "famil"),
        pool("mask-too-long", json!({"addresses": ["10.9.1.0/33"]}), &["addresses", "10.9.1.0/33"], "CIDR"),
        pool("host-name", json!({"addresses": ["lb.example.com"]}), &["addresses", "lb.example.com"], "CIDR"),
        pool("no-addresses", json!({"addresses": []}), &["addresses"], ""),
        pool("addresses-left-out", json!({"autoAssign": true}), &["addresses"], ""),
        pool("text-for-list", json!({"addresses": "10.9.2.0/24"}), &["addresses"], ""),
        pool("number-for-text", json!({"addresses": [7]}), &["addresses"], ""),
        pool("text-for-flag", json!({"addresses": ["10.9.3.0/24"], "autoAssign": "maybe"}), &["autoAssign"], ""),
        pool("overlaps-lab", json!({"addresses": ["10.50.0.128/25"]}), &["addresses", "10.50.0.128/25"], "lab"),
        pool(
            "misspelt-field",
            json!({"addresses": ["10.9.4.0/24"], "avoidBugyIPs": true}),
            &["avoidBugyIPs"],
            "no such field",
        ),
        pool(
            "priority-in-words",
            json!({"addresses": ["10.9.5.0/24"], "serviceAllocation": {"priority": "high"}}),
            &["priority"],
            "",
        ),
        pool(
            "namespace-twice",
            json!({"addresses": ["10.9.6.0/24"], "serviceAllocation": {"namespaces": ["a", "a"]}}),
            &["namespaces", "a"],
            "uplicate",
        ),
        pool(
            "selector-operator",
            json!({"addresses": ["10.9.7.0/24"], "serviceAllocation": {"namespaceSelectors": [
                {"matchExpressions": [{"key": "team", "operator": "Within", "values": ["x"]}]}]}}),
            &["namespaceSelectors", "Within"],
            "",
        ),
    ]
}

fn peers() -> Vec<Bad> {
    let peer = |name, change: Value, words, advice| {
        let mut spec = json!({"myASN": 64_600, "peerASN": 64_599, "peerAddress": "10.99.0.13"});
        if let (Some(spec), Some(change)) = (spec.as_object_mut(), change.as_object()) {
            spec.extend(change.clone());
            spec.retain(|_, value| !value.is_null());
        }
        bad(name, "BGPPeer", spec, words, advice)
    };
    vec![
        peer("peer-without-address", json!({"peerAddress": null}), &["peerAddress"], ""),
        peer("own-as-zero", json!({"myASN": 0}), &["myASN"], ""),
        peer("own-as-left-out", json!({"myASN": null}), &["myASN"], ""),
        peer("peer-as-too-great", json!({"peerASN": 4_294_967_296_u64}), &["peerASN", "4294967296"], "4294967295"),
        peer("peer-as-left-out", json!({"peerASN": null}), &["peerASN"], ""),
        peer("peer-as-negative", json!({"peerASN": -1}), &["peerASN", "-1"], ""),
        peer("address-out-of-range", json!({"peerAddress": "10.99.0.999"}), &["peerAddress", "10.99.0.999"], ""),
        peer("port-too-great", json!({"peerPort": 70_000}), &["peerPort", "70000"], "16384"),
        peer("port-in-words", json!({"peerPort": "bgp"}), &["peerPort"], ""),
        peer("hold-time-too-short", json!({"holdTime": "1s"}), &["holdTime", "1s"], "3"),
        peer("hold-time-in-words", json!({"holdTime": "ninety"}), &["holdTime", "ninety"], "90s"),
        peer(
            "keepalive-beyond-hold",
            json!({"holdTime": "9s", "keepaliveTime": "30s"}),
            &["keepaliveTime", "30s"],
            "hold",
        ),
        peer("router-id-in-words", json!({"routerID": "router-1"}), &["routerID", "router-1"], "IPv4"),
        peer("two-peer-as", json!({"dynamicASN": "external"}), &["peerASN", "dynamicASN"], ""),
        peer("unknown-dynamic-as", json!({"peerASN": null, "dynamicASN": "any"}), &["dynamicASN", "any"], "internal"),
        peer("source-in-words", json!({"sourceAddress": "here"}), &["sourceAddress", "here"], ""),
        peer("multihop-inside", json!({"peerASN": 64_600, "ebgpMultiHop": true}), &["ebgpMultiHop"], ""),
        peer("two-passwords", json!({"password": "hidden-word", "passwordSecret": {"name": "frr"}}), &["password"], ""),
        peer("misspelt-peer-field", json!({"peerAdress": "10.99.0.13"}), &["peerAdress"], "no such field"),
        peer("selectors-as-text", json!({"nodeSelectors": "all"}), &["nodeSelectors"], ""),
    ]
}

fn advertisements() -> Vec<Bad> {
    let advertisement = |name, spec, words, advice| bad(name, "BGPAdvertisement", spec, words, advice);
    vec![
        advertisement("length-too-great", json!({"aggregationLength": 40}), &["aggregationLength", "40"], "32"),
        advertisement("shorter-than-pool", json!({"aggregationLength": 16}), &["aggregationLength", "16"], "lab"),
        advertisement("no-community", json!({"communities": ["a:b:c"]}), &["communities", "a:b:c"], ""),
        advertisement("preference-negative", json!({"localPref": -1}), &["localPref", "-1"], ""),
        advertisement("pool-twice", json!({"ipAddressPools": ["lab", "lab"]}), &["ipAddressPools", "lab"], "uplicate"),
        advertisement("pool-as-text", json!({"ipAddressPools": "lab"}), &["ipAddressPools"], ""),
        advertisement(
            "aggregate-of-selected",
            json!({"aggregationLength": 24, "serviceSelectors": [{"matchLabels": {"a": "b"}}]}),
            &["aggregationLength", "serviceSelectors"],
            "",
        ),
        advertisement("misspelt-peers", json!({"peer": ["frr"]}), &["peer"], "no such field"),
    ]
}

fn others() -> Vec<Bad> {
    let community = |value: &str| json!({"communities": [{"name": "here", "value": value}]});
    vec![
        bad("community-too-great", "Community", community("70000:1"), &["value", "70000:1"], "65535"),
        bad("community-in-words", "Community", community("much"), &["value", "much"], ""),
        bad(
            "alias-twice",
            "Community",
            json!({"communities": [{"name": "x", "value": "1:1"}, {"name": "x", "value": "1:2"}]}),
            &["communities", "x"],
            "uplicate",
        ),
        bad("profile-in-words", "BFDProfile", json!({"receiveInterval": "fast"}), &["receiveInterval"], ""),
        bad("profile-too-fast", "BFDProfile", json!({"transmitInterval": 5}), &["transmitInterval", "5"], "60000"),
        bad("interfaces-as-text", "L2Advertisement", json!({"interfaces": "eth0"}), &["interfaces"], ""),
    ]
}

fn policies() -> Vec<Bad> {
    let policy = |name, spec, words, advice| bad(name, "BGPPeerPolicy", spec, words, advice);
    vec![
        policy("policy-no-family", json!({"session": {"families": []}}), &["families"], "IPv4, IPv6 or both"),
        policy(
            "policy-hop-to-itself",
            json!({"session": {"nextHopIPv4": "127.0.0.1"}}),
            &["nextHopIPv4", "127.0.0.1"],
            "loopback",
        ),
        policy(
            "policy-as-zero",
            json!({"routes": {"extendedCommunities": ["rt:0:1"]}}),
            &["extendedCommunities", "rt:0:1"],
            "AS 0 is reserved",
        ),
        policy(
            "policy-session-of-a-part",
            json!({"advertisements": ["x"], "session": {"passive": true}}),
            &["session"],
            "carries every advertisement",
        ),
        policy("policy-weightless", json!({"routes": {"linkBandwidth": {"weight": "Fixed"}}}), &["value"], "65535"),
        policy("policy-far", json!({"session": {"ttlSecurityHops": 255}}), &["ttlSecurityHops", "255"], "254"),
    ]
}
