//! Requests for an address or a pool.
use super::{Case, check};

/// Requests for addresses.
const ADDRESSES: &[Case] = &[
    Case {
        name: "by annotation",
        script: &["pools p 10.0.0.0/24; d/a v4 ips=10.0.0.7"],
        want: &[("d/a", "10.0.0.7 p allocated")],
    },
    Case {
        name: "by the deprecated annotation, which is said",
        script: &["pools p 10.0.0.0/24; d/a v4 oldips=10.0.0.7"],
        want: &[(
            "d/a",
            "10.0.0.7 p allocated ~ Warning deprecatedAnnotation Service uses deprecated annotation metallb.universe.tf/loadBalancerIPs",
        )],
    },
    Case {
        name: "by spec.loadBalancerIP",
        script: &["pools p 10.0.0.0/24; d/a v4 lbip=10.0.0.7"],
        want: &[("d/a", "10.0.0.7 p allocated")],
    },
    Case {
        name: "by both",
        script: &["pools p 10.0.0.0/24; d/a v4 lbip=10.0.0.7 ips=10.0.0.7"],
        want: &[(
            "d/a",
            "- - invalidRequest ~ Warning LoadBalancerFailed invalid requested loadbalancer IPs: service can not have both metallb.io/loadBalancerIPs and svc.Spec.LoadBalancerIP",
        )],
    },
    Case {
        name: "no address",
        script: &["pools p 10.0.0.0/24; d/a v4 ips=web; d/b v4 lbip=10.0.0"],
        want: &[
            ("d/a", "- - invalidRequest ~ \"web\" is not an IP address"),
            ("d/b", "- - invalidRequest ~ invalid spec.loadBalancerIP \"10.0.0\""),
        ],
    },
    Case {
        name: "three addresses",
        script: &["pools p 10.0.0.0/24; d/a dual ips=10.0.0.1,fc00::1,10.0.0.2"],
        want: &[("d/a", "- - invalidRequest ~ more than two addresses")],
    },
    Case {
        name: "two of one family",
        script: &["pools p 10.0.0.0/24; d/a dual ips=10.0.0.1,10.0.0.2"],
        want: &[("d/a", "- - invalidRequest ~ \"10.0.0.1\" \"10.0.0.2\" has the same family")],
    },
    Case {
        name: "wrong family",
        script: &["pools p 10.0.0.0/24,fc00::/64; d/a v4 ips=fc00::1"],
        want: &[(
            "d/a",
            "- - requestFamilyMismatch ~ requested loadBalancer IP(s) [\"fc00::1\"] does not match the ipFamily of the service",
        )],
    },
    Case {
        name: "both families",
        script: &["pools p 10.0.0.0/24,fc00::/64; d/a dual require ips=fc00::9,10.0.0.9"],
        want: &[("d/a", "10.0.0.9,fc00::9 p allocated")],
    },
    Case {
        name: "both families from two pools",
        script: &["pools p 10.0.0.0/24 / q fc00::/64; d/a dual require ips=fc00::9,10.0.0.9"],
        want: &[("d/a", "- - addressNotInPools ~ both must be in one")],
    },
    Case {
        name: "one family where both are needed",
        script: &["pools p 10.0.0.0/24,fc00::/64; d/a dual require ips=10.0.0.9"],
        want: &[("d/a", "- - requestFamilyMismatch")],
    },
    Case {
        name: "outside every pool",
        script: &["pools p 10.0.0.0/24; d/a v4 ips=192.0.2.1"],
        want: &[("d/a", "- - addressNotInPools ~ AllocationFailed ~ \"192.0.2.1\" is not allowed in config")],
    },
    Case {
        name: "an avoided address",
        script: &["pools p 10.0.0.0/24 buggy; d/a v4 ips=10.0.0.255"],
        want: &[("d/a", "- - addressNotInPools ~ avoidBuggyIPs")],
    },
    Case {
        name: "from a pool without autoAssign",
        script: &["pools p 10.0.0.0/24 manual; d/a v4 ips=10.0.0.3"],
        want: &[("d/a", "10.0.0.3 p allocated")],
    },
    Case {
        name: "in use, and given when it becomes free",
        script: &["pools p 10.0.0.0/24; d/a v4 ips=10.0.0.3", "d/b v4 ips=10.0.0.3", "- d/a"],
        want: &[("d/b", "10.0.0.3 p allocated")],
    },
    Case {
        name: "in use",
        script: &["pools p 10.0.0.0/24; d/a v4 ips=10.0.0.3", "d/b v4 ips=10.0.0.3"],
        want: &[("d/b", "- - addressInUse ~ existing service does not allow sharing ~ also in use by d/a")],
    },
    Case {
        name: "another pool requested",
        script: &["pools p 10.0.0.0/24 / q 10.1.0.0/24; d/a v4 ips=10.0.0.3 pool=q"],
        want: &[(
            "d/a",
            "- - requestPoolMismatch ~ requested loadBalancer IP(s) [\"10.0.0.3\"] is not compatible with requested address pool q",
        )],
    },
    Case {
        name: "its own pool requested too",
        script: &["pools p 10.0.0.0/24 / q 10.1.0.0/24; d/a v4 ips=10.1.0.3 pool=q"],
        want: &[("d/a", "10.1.0.3 q allocated")],
    },
];

#[test]
fn requested_address_is_given_or_refused_with_its_reason() {
    check(ADDRESSES);
}

#[test]
fn requested_pool_is_used_or_refused_with_its_reason() {
    check(&[
        Case {
            name: "a pool without autoAssign",
            script: &["pools p 10.0.0.0/24 / q 10.1.0.0/24 manual; d/a v4 pool=q"],
            want: &[("d/a", "10.1.0.0 q allocated")],
        },
        Case {
            name: "by the deprecated annotation",
            script: &["pools p 10.0.0.0/24; d/a v4 oldpool=p"],
            want: &[("d/a", "10.0.0.0 p allocated ~ deprecated annotation metallb.universe.tf/address-pool")],
        },
        Case {
            name: "unknown",
            script: &["pools p 10.0.0.0/24; d/a v4 pool=x"],
            want: &[("d/a", "- - unknownPool ~ Failed to allocate IP for \"d/a\": unknown pool \"x\"")],
        },
        Case {
            name: "unknown, and given when it comes",
            script: &["pools p 10.0.0.0/24; d/a v4 pool=x", "pools p 10.0.0.0/24 / x 10.2.0.0/24"],
            want: &[("d/a", "10.2.0.0 x allocated")],
        },
        Case {
            name: "unreadable",
            script: &["pools p 10.0.0.0/24 / x ?; d/a v4 pool=x"],
            want: &[("d/a", "- - unknownPool ~ it exists, but is invalid")],
        },
        Case {
            name: "exhausted",
            script: &["pools p 10.0.0.0/24 / q 10.1.0.0/32; d/a v4 pool=q", "d/b v4 pool=q"],
            want: &[("d/b", "- - poolExhausted ~ no available IPs in pool \"q\" for IPv4 IPFamily")],
        },
        Case {
            name: "preferred both, the pool has one family",
            script: &["pools p 10.0.0.0/24,fc00::/64 / q fc01::/64; d/a dual prefer pool=q"],
            want: &[("d/a", "fc01:: q allocated")],
        },
        Case {
            name: "serviceAllocation holds for requests as well",
            script: &["pools q 10.1.0.0/24 ns=team; d/a v4 pool=q"],
            want: &[("d/a", "- - poolNotForService")],
        },
    ]);
}
