//! `ferrocast migrate check`: from manifests with statuses to what would differ from MetalLB.
#![expect(clippy::unwrap_used, reason = "a test ends with the first surprise")]
use ferrocast::{
    manifests::Manifests,
    migrate::check::{Report, judge, show},
    plan::objects::Objects,
};

const NAMESPACE: &str = "metallb-system";

const BASE: &str = "
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.0.2.11}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2, annotations: {ferrocast.io/bgp-source-addresses: '192.0.2.22, fd00::22'}}
status: {addresses: [{type: InternalIP, address: 192.0.2.12}]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: main, namespace: metallb-system}
spec: {addresses: [198.51.100.0/24]}
---
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {name: main, namespace: metallb-system}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: tor, namespace: metallb-system}
spec: {myASN: 64500, peerASN: 64501, peerAddress: 192.0.2.1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {type: LoadBalancer, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], ipFamilies: [IPv4], ports: [{port: 80}]}
status: {loadBalancer: {ingress: [{ip: 198.51.100.77}]}}
";

fn report(more: &str) -> Report {
    let mut manifests = Manifests::default();
    manifests.add_text("test.yaml", &format!("{BASE}---{more}"));
    assert!(manifests.errors.is_empty(), "{:?}", manifests.errors);
    let mut objects = Objects::new(NAMESPACE);
    objects.apply(manifests);
    judge(&objects, None, Vec::new())
}

fn text(report: &Report) -> String {
    let mut out = Vec::new();
    show::text(report, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn nothing_differs_where_every_status_is_kept() {
    let report = report("");
    assert!(!report.differs(), "{}", text(&report));
    assert!(text(&report).contains("Addresses: 1 stay as they are"));
}

#[test]
fn each_difference_is_told_of_the_object_or_address_it_applies_to() {
    for (name, more, words) in [
        (
            "an address of no pool",
            "
apiVersion: v1
kind: Service
metadata: {name: stray, namespace: default}
spec: {type: LoadBalancer, clusterIP: 10.96.0.2, clusterIPs: [10.96.0.2], ipFamilies: [IPv4], ports: [{port: 80}]}
status: {loadBalancer: {ingress: [{ip: 203.0.113.1}]}}",
            "default/stray 203.0.113.1 would be neither announced nor removed (addressNotOurs",
        ),
        (
            "a Service that MetalLB gave nothing",
            "
apiVersion: v1
kind: Service
metadata: {name: new, namespace: default}
spec: {type: LoadBalancer, clusterIP: 10.96.0.2, clusterIPs: [10.96.0.2], ipFamilies: [IPv4], ports: [{port: 80}]}",
            "default/new would get 198.51.100.0; MetalLB has given none",
        ),
        (
            "a mixed range",
            "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: mixed, namespace: metallb-system}
spec: {addresses: [1.2.3.4-fc00::1]}",
            "IPAddressPool mixed spec.addresses[0] (rangeMixedFamilies): MetalLB does not notice it; here this object is not in force",
        ),
        (
            "an overlap",
            "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: second, namespace: metallb-system}
spec: {addresses: [198.51.100.128/25]}",
            "(poolOverlap): MetalLB refuses the whole configuration and stays with its last; here this object is not in force",
        ),
        (
            "layer 2",
            "
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: l2, namespace: metallb-system}",
            "L2Advertisement l2 (layer2NotAnnounced): MetalLB announces the addresses by ARP and NDP",
        ),
        (
            "a source address",
            "
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: other, namespace: metallb-system}
spec: {myASN: 64500, peerASN: 64501, peerAddress: 192.0.2.2, sourceAddress: 192.0.2.11}",
            "BGPPeer other spec.sourceAddress (fieldIsUsed): MetalLB ignores it in its default mode; here sessions come from",
        ),
    ] {
        let report = report(more);
        let text = text(&report);
        assert!(report.differs() && text.contains(words), "{name}: no {words:?} in\n{text}");
    }
}

#[test]
fn best_way_that_is_open_is_named_for_each_peer_and_node() {
    let report = report(
        "
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: kept, namespace: metallb-system}
spec: {myASN: 64500, peerASN: 64501, peerAddress: 192.0.2.3, enableGracefulRestart: true}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: fixed, namespace: metallb-system}
spec: {myASN: 64500, peerASN: 64501, peerAddress: 192.0.2.4, sourceAddress: 192.0.2.12}",
    );
    let ways: Vec<(&str, &str, char)> =
        report.sessions.iter().map(|row| (&*row.peer, &*row.node, row.way.letter())).collect();
    let want = [
        ("fixed", "n1", 'c'),
        ("fixed", "n2", 'c'),
        ("kept", "n1", 'b'),
        ("kept", "n2", 'a'),
        ("tor", "n1", 'c'),
        ("tor", "n2", 'a'),
    ];
    assert_eq!(ways, want);
    assert!(text(&report).contains("the router needs: a neighbour 192.0.2.22"));
}
