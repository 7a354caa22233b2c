//! Helpers for the tests of allocation.
use std::sync::Arc;

use super::*;
use crate::{
    config::{Meta, PoolSpec, RawSelector, Resource, Resources, ServiceAllocationSpec, Spec, build},
    model::{AnnotationText, FamilyPolicy, IpFamily, ObjectKey, Port, Protocol, TrafficPolicy},
};


/// A configuration with these pools; panics if one is invalid.
fn config(pools: &[(&str, PoolSpec)]) -> Arc<Config> {
    let mut resources = Resources::default();
    for (name, spec) in pools {
        let key = ObjectKey { kind: "IPAddressPool", name: (*name).into() };
        let meta = Meta { key: key.clone(), uid: "".into(), resource_version: "".into(), created_s: 0, labels: Labels::default() };
        let resource = Resource { meta, spec: Some(Spec::Pool(spec.clone())), problems: Vec::new() };
        resources.objects.insert(key, Arc::new(resource));
    }
    let config = build(&resources);
    assert_eq!(config.problems, [], "the test's own configuration");
    Arc::new(config)
}

fn pool(addresses: &[&str]) -> PoolSpec {
    PoolSpec { addresses: addresses.iter().map(|a| (*a).to_owned()).collect(), ..PoolSpec::default() }
}
