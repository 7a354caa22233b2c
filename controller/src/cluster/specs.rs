//! The specs of configuration objects, from the types of the CRDs to those that are checked.
use ferrocast_api as api;
use ferrocast_core::{
    announce::{Capabilities, Election},
    config::{
        AdvertisementSpec, AnnouncerClassSpec, BfdProfileSpec, BgpAdvertisementSpec, BgpPeerPolicySpec, BgpPeerSpec,
        CommunitySpec, L2AdvertisementSpec, LinkBandwidthSpec, PoolPolicySpec, PoolSpec, RawSelector, ReservationSpec,
        RoutesSpec, SecretRef, ServiceAllocationSpec, SessionSpec, Spec, TcpAoKeySpec,
    },
};

fn selectors(list: Option<Vec<api::LabelSelector>>) -> Vec<RawSelector> {
    list.unwrap_or_default().into_iter().map(selector).collect()
}

fn selector(selector: api::LabelSelector) -> RawSelector {
    let expressions = selector.match_expressions.unwrap_or_default().into_iter();
    RawSelector {
        match_labels: selector.match_labels.unwrap_or_default(),
        match_expressions: expressions.map(|e| (e.key, e.operator, e.values.unwrap_or_default())).collect(),
    }
}

pub(super) fn pool(spec: api::IPAddressPoolSpec) -> Spec {
    Spec::Pool(PoolSpec {
        addresses: spec.addresses,
        auto_assign: spec.auto_assign,
        avoid_buggy_ips: spec.avoid_buggy_ips,
        service_allocation: spec.service_allocation.map(|a| ServiceAllocationSpec {
            priority: a.priority,
            namespaces: a.namespaces.unwrap_or_default(),
            namespace_selectors: selectors(a.namespace_selectors),
            service_selectors: selectors(a.service_selectors),
        }),
    })
}

pub(super) fn peer(spec: api::BGPPeerSpec) -> Spec {
    Spec::Peer(BgpPeerSpec {
        my_asn: Some(spec.my_asn),
        local_asn: spec.local_asn,
        peer_asn: spec.peer_asn,
        dynamic_asn: spec.dynamic_asn,
        peer_address: spec.peer_address,
        interface: spec.interface,
        source_address: spec.source_address,
        peer_port: spec.peer_port,
        hold_time: spec.hold_time,
        keepalive_time: spec.keepalive_time,
        connect_time: spec.connect_time,
        router_id: spec.router_id,
        node_selectors: selectors(spec.node_selectors),
        password: spec.password,
        password_secret: spec
            .password_secret
            .map(|s| SecretRef { name: s.name.unwrap_or_default(), namespace: s.namespace.unwrap_or_default() }),
        bfd_profile: spec.bfd_profile,
        enable_graceful_restart: spec.enable_graceful_restart,
        ebgp_multi_hop: spec.ebgp_multi_hop,
        vrf: spec.vrf,
        disable_mp: spec.disable_mp,
        dual_stack_address_family: spec.dual_stack_address_family,
    })
}

pub(super) fn bgp_advertisement(spec: api::BGPAdvertisementSpec) -> Spec {
    Spec::BgpAdvertisement(BgpAdvertisementSpec {
        aggregation_length: spec.aggregation_length,
        aggregation_length_v6: spec.aggregation_length_v6,
        local_pref: spec.local_pref,
        communities: spec.communities.unwrap_or_default(),
        ip_address_pools: spec.ip_address_pools.unwrap_or_default(),
        ip_address_pool_selectors: selectors(spec.ip_address_pool_selectors),
        node_selectors: selectors(spec.node_selectors),
        peers: spec.peers.unwrap_or_default(),
        service_selectors: selectors(spec.service_selectors),
    })
}

pub(super) fn l2_advertisement(spec: api::L2AdvertisementSpec) -> Spec {
    Spec::L2Advertisement(L2AdvertisementSpec {
        ip_address_pools: spec.ip_address_pools.unwrap_or_default(),
        ip_address_pool_selectors: selectors(spec.ip_address_pool_selectors),
        node_selectors: selectors(spec.node_selectors),
        service_selectors: selectors(spec.service_selectors),
        interfaces: spec.interfaces.unwrap_or_default(),
        preferred_node_selectors: (spec.preferred_node_selectors.unwrap_or_default().into_iter())
            .map(|p| (p.weight.into(), selector(p.preference)))
            .collect(),
    })
}

pub(super) fn community(spec: api::CommunitySpec) -> Spec {
    let pairs = spec.communities.unwrap_or_default();
    let pairs = pairs.into_iter().map(|c| (c.name.unwrap_or_default(), c.value.unwrap_or_default()));
    Spec::Community(CommunitySpec { communities: pairs.collect() })
}

pub(super) fn bfd_profile(spec: api::BFDProfileSpec) -> Spec {
    Spec::BfdProfile(BfdProfileSpec {
        receive_interval: spec.receive_interval.map(Into::into),
        transmit_interval: spec.transmit_interval.map(Into::into),
        detect_multiplier: spec.detect_multiplier.map(Into::into),
        echo_interval: spec.echo_interval.map(Into::into),
        echo_mode: spec.echo_mode,
        passive_mode: spec.passive_mode,
        minimum_ttl: spec.minimum_ttl.map(Into::into),
    })
}

pub(super) fn peer_policy(spec: api::BGPPeerPolicySpec) -> Spec {
    let session = |s: api::SessionPolicy| SessionSpec {
        passive: s.passive,
        families: s.families,
        next_hop_v4: s.next_hop_v4,
        next_hop_v6: s.next_hop_v6,
        send_hold_time: s.send_hold_time,
        role: s.role,
        ttl_security_hops: s.ttl_security_hops,
        tcp_ao_keys: s.tcp_ao.map(|ao| ao.keys.into_iter().map(tcp_ao_key).collect()),
    };
    let link_bandwidth = |l: api::LinkBandwidth| LinkBandwidthSpec {
        unit: l.unit,
        weight: l.weight,
        value: l.value,
        transitive: l.transitive,
        interval: l.interval,
    };
    let routes = |r: api::RoutesPolicy| RoutesSpec {
        med: r.med,
        as_path_prepend: r.as_path_prepend,
        extended_communities: r.extended_communities.unwrap_or_default(),
        link_bandwidth: r.link_bandwidth.map(link_bandwidth),
    };
    Spec::PeerPolicy(BgpPeerPolicySpec {
        peers: spec.peers.unwrap_or_default(),
        peer_selectors: selectors(spec.peer_selectors),
        advertisements: spec.advertisements.unwrap_or_default(),
        advertisement_selectors: selectors(spec.advertisement_selectors),
        session: spec.session.map(session),
        routes: spec.routes.map(routes),
    })
}

fn tcp_ao_key(key: api::TcpAoKey) -> TcpAoKeySpec {
    let (send_id, receive_id, algorithm, secret) = (key.send_id, key.receive_id, key.algorithm, key.secret.name);
    TcpAoKeySpec { send_id, receive_id, algorithm, secret }
}

pub(super) fn pool_policy(spec: api::PoolPolicySpec) -> Spec {
    let sharing = spec.sharing.unwrap_or_default();
    let quotas = spec.quotas.unwrap_or_default().into_iter();
    Spec::PoolPolicy(PoolPolicySpec {
        ip_address_pools: spec.ip_address_pools.unwrap_or_default(),
        ip_address_pool_selectors: selectors(spec.ip_address_pool_selectors),
        strategy: spec.strategy,
        quotas: quotas.map(|q| (selector(q.namespace_selector), q.addresses_max)).collect(),
        no_new_addresses: spec.no_new_addresses.unwrap_or_default(),
        addresses_per_family_max: spec.addresses_per_family_max,
        pair_with: spec.pair_with,
        sharing_namespaces: sharing.namespaces,
        sharing_traffic_policies: sharing.traffic_policies,
    })
}

pub(super) fn reservation(spec: api::AddressReservationSpec) -> Spec {
    let services = spec.for_whom.services.unwrap_or_default().into_iter();
    Spec::Reservation(ReservationSpec {
        pool: spec.pool,
        addresses: spec.addresses.unwrap_or_default(),
        count: spec.count,
        family: spec.family,
        services: services.map(|s| (s.namespace, s.name)).collect(),
        namespaces: spec.for_whom.namespaces.unwrap_or_default(),
        service_selector: spec.for_whom.service_selector.map(selector),
        release_after: spec.release_after,
    })
}

pub(super) fn advertisement(spec: api::AdvertisementSpec) -> Spec {
    Spec::Advertisement(AdvertisementSpec {
        announcer: spec.announcer,
        aggregation_length: spec.aggregation_length,
        aggregation_length_v6: spec.aggregation_length_v6,
        ip_address_pools: spec.ip_address_pools.unwrap_or_default(),
        ip_address_pool_selectors: selectors(spec.ip_address_pool_selectors),
        node_selectors: selectors(spec.node_selectors),
        service_selectors: selectors(spec.service_selectors),
        targets: spec.targets.unwrap_or_default(),
        parameters: spec.parameters,
    })
}

pub(super) fn announcer_class(spec: api::AnnouncerClassSpec) -> Spec {
    let capabilities = spec.capabilities.map(|c| Capabilities {
        ipv4: c.ipv4,
        ipv6: c.ipv6,
        aggregation: c.aggregation,
        attributes: c.attributes,
        weights: c.weights,
        drain: c.drain,
        // The schema knows no other word.
        election: match c.election.as_deref() {
            Some("perAddress") => Election::PerAddress,
            Some("perCluster") => Election::PerCluster,
            _ => Election::None,
        },
    });
    Spec::AnnouncerClass(AnnouncerClassSpec {
        parameters_schema: spec.parameters_schema,
        capabilities,
        protocol: spec.protocol.map(|range| (range.min, range.max)),
        configuration: spec.configuration,
    })
}
