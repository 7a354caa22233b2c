//! Configuration objects, read so that no object can stop a list: anything becomes a [`Resource`], with problems if need be.
use std::sync::Arc;

use ferrocast_api as api;
use ferrocast_core::{
    alloc::RELEASES_MAX,
    config::{Meta, Password, Problem, Release, Resource, Resources, Severity, Spec},
    model::{ObjectKey, ServiceKey},
};
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::core::{ApiResource, DynamicObject};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

use super::{convert, specs, watch::Feed};

/// A kind of configuration object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `IPAddressPool`.
    Pool,
    /// `BGPPeer`.
    Peer,
    /// `BGPAdvertisement`.
    BgpAdvertisement,
    /// `L2Advertisement`.
    L2Advertisement,
    /// `Community`.
    Community,
    /// `BFDProfile`.
    BfdProfile,
    /// `BGPPeerPolicy`.
    PeerPolicy,
    /// `PoolPolicy`.
    PoolPolicy,
    /// `AddressReservation`.
    Reservation,
    /// `Advertisement`.
    Advertisement,
    /// `AnnouncerClass`.
    AnnouncerClass,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::Pool,
        Self::Peer,
        Self::BgpAdvertisement,
        Self::L2Advertisement,
        Self::Community,
        Self::BfdProfile,
        Self::PeerPolicy,
        Self::PoolPolicy,
        Self::Reservation,
        Self::Advertisement,
        Self::AnnouncerClass,
    ];

    /// As users write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pool => "IPAddressPool",
            Self::Peer => "BGPPeer",
            Self::BgpAdvertisement => "BGPAdvertisement",
            Self::L2Advertisement => "L2Advertisement",
            Self::Community => "Community",
            Self::BfdProfile => "BFDProfile",
            Self::PeerPolicy => "BGPPeerPolicy",
            Self::PoolPolicy => "PoolPolicy",
            Self::Reservation => "AddressReservation",
            Self::Advertisement => "Advertisement",
            Self::AnnouncerClass => "AnnouncerClass",
        }
    }

    /// As it stands in paths.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Pool => "ipaddresspools",
            Self::Peer => "bgppeers",
            Self::BgpAdvertisement => "bgpadvertisements",
            Self::L2Advertisement => "l2advertisements",
            Self::Community => "communities",
            Self::BfdProfile => "bfdprofiles",
            Self::PeerPolicy => "bgppeerpolicies",
            Self::PoolPolicy => "poolpolicies",
            Self::Reservation => "addressreservations",
            Self::Advertisement => "advertisements",
            Self::AnnouncerClass => "announcerclasses",
        }
    }

    /// The version read: the stored one.
    #[must_use]
    pub fn version(self) -> &'static str {
        match self {
            Self::Peer => "v1beta2",
            Self::PeerPolicy | Self::PoolPolicy | Self::Reservation | Self::Advertisement | Self::AnnouncerClass => {
                "v1alpha1"
            }
            _ => "v1beta1",
        }
    }

    /// The API group.
    #[must_use]
    pub fn group(self) -> &'static str {
        if self.is_own() { api::OWN_GROUP } else { api::GROUP }
    }

    /// Is it of Ferrocast's own group? Then an installation may lack it: what MetalLB's resources say is complete without.
    #[must_use]
    pub fn is_own(self) -> bool {
        matches!(
            self,
            Self::PeerPolicy | Self::PoolPolicy | Self::Reservation | Self::Advertisement | Self::AnnouncerClass
        )
    }

    /// `group/version`.
    #[must_use]
    pub fn api_version(self) -> String {
        format!("{}/{}", self.group(), self.version())
    }

    /// For requests.
    #[must_use]
    pub fn api_resource(self) -> ApiResource {
        ApiResource {
            group: self.group().into(),
            version: self.version().into(),
            api_version: self.api_version(),
            kind: self.name().into(),
            plural: self.plural().into(),
        }
    }

    /// The kind called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.name() == name)
    }
}

/// What is to become of living addresses that an edit of the object takes away: `hold`, `move-<digest>`.
pub const ON_ADDRESS_LOSS: &str = "ferrocast.io/on-address-loss";

fn meta(kind: Kind, object: &ObjectMeta) -> Meta {
    Meta {
        key: ObjectKey { kind: kind.name(), name: object.name.as_deref().unwrap_or_default().into() },
        uid: object.uid.as_deref().unwrap_or_default().into(),
        resource_version: object.resource_version.as_deref().unwrap_or_default().into(),
        created_s: convert::created_s(object),
        labels: convert::labels(object),
        on_address_loss: object.annotations.as_ref().and_then(|a| a.get(ON_ADDRESS_LOSS)).map(|v| v.as_str().into()),
    }
}

/// The value at a path like `spec.addresses[0]`, as a user would recognise it; secrets are never shown.
fn value_at(object: &Value, path: &str) -> String {
    if path.to_lowercase().contains("password") {
        return String::new();
    }
    let mut at = object;
    for part in path.split(['.', '[', ']']).filter(|p| !p.is_empty()) {
        let next = part.parse::<usize>().ok().and_then(|i| at.get(i)).or_else(|| at.get(part));
        match next {
            Some(next) => at = next,
            None => return String::new(),
        }
    }
    match at {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A decoding error without Rust's names of types.
fn plain_words(error: &str) -> String {
    const WORDS: [(&str, &str); 10] = [
        ("expected a sequence", "expected a list"),
        ("invalid type: sequence", "invalid type: list"),
        ("expected a map", "expected an object with fields"),
        ("invalid type: map", "invalid type: object with fields"),
        ("expected a boolean", "expected true or false"),
        ("expected i32", "expected a whole number"),
        ("expected i64", "expected a whole number"),
        ("expected unit", "expected nothing"),
        ("invalid type: unit value", "invalid type: null"),
        ("invalid type: null, ", "the value is null, "),
    ];
    let plain = WORDS.iter().fold(error.to_owned(), |text, (from, to)| text.replace(from, to));
    match plain.split_once("expected struct ") {
        Some((before, _)) => format!("{before}expected an object with fields"),
        None => plain,
    }
}

/// Decodes `spec`, naming the field if its type is wrong, and every field that does not exist.
fn decode<T: DeserializeOwned>(key: &ObjectKey, data: &Value) -> (Option<T>, Vec<Problem>) {
    let empty = Value::Object(serde_json::Map::new());
    let spec = data.get("spec").unwrap_or(&empty);
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let decoded: Result<T, _> = {
        let tracked = serde_path_to_error::Deserializer::new(spec, &mut track);
        serde_ignored::deserialize(tracked, |path| unknown.push(path.to_string().replace(".?", "")))
    };
    let problem = |rule, field: String, message: String, suggestion: &str, severity| Problem {
        object: key.clone(),
        value: value_at(data, &field),
        field,
        rule,
        message,
        suggestion: suggestion.to_owned(),
        severity,
    };
    let mut problems: Vec<Problem> = unknown
        .into_iter()
        .map(|path| {
            let message = "no such field: it has no effect".to_owned();
            let suggestion = "check the spelling against `kubectl explain`";
            problem("unknownField", format!("spec.{path}"), message, suggestion, Severity::Warning)
        })
        .collect();
    match decoded {
        Ok(spec) => (Some(spec), problems),
        Err(error) => {
            let path = track.path().to_string();
            let field = if path == "." { "spec".to_owned() } else { format!("spec.{path}") };
            let message = plain_words(&error.to_string());
            problems.push(problem("wrongType", field, message, "", Severity::Error));
            (None, problems)
        }
    }
}

/// Releases that a status remembers, the newest last. It is ours to write, but anybody may: what cannot be read is left out, and
/// so is what is beyond the most that one object remembers, the oldest first.
fn releases(kind: Kind, data: &Value) -> Vec<Release> {
    let entries = |list: &str| data.pointer(list).and_then(Value::as_array).into_iter().flatten();
    let text = |entry: &Value, field: &str| entry.get(field).and_then(Value::as_str).map(str::to_owned);
    let second = |entry: &Value| {
        text(entry, "releasedAt").and_then(|at| at.parse::<jiff::Timestamp>().ok()).map(jiff::Timestamp::as_second)
    };
    let mut read: Vec<Release> = match kind {
        Kind::PoolPolicy => entries("/status/releases")
            .filter_map(|e| {
                let (ip, service) = (text(e, "address")?.parse().ok()?, text(e, "service")?.parse().ok()?);
                Some(Release { at_s: second(e)?, ip, service })
            })
            .collect(),
        Kind::Reservation => entries("/status/holders")
            .filter_map(|e| {
                let at_s = second(e)?;
                let service: ServiceKey = format!("{}/{}", text(e, "namespace")?, text(e, "name")?).parse().ok()?;
                let ips = e.get("addresses")?.as_array()?.iter().filter_map(|ip| ip.as_str()?.parse().ok());
                Some(ips.map(|ip| Release { at_s, ip, service: service.clone() }).collect::<Vec<_>>())
            })
            .flatten()
            .collect(),
        _ => Vec::new(),
    };
    read.sort();
    read.split_off(read.len().saturating_sub(RELEASES_MAX))
}

/// Reads one object, whatever its shape. `data` is the object without `metadata`, or with it.
#[must_use]
pub fn resource(kind: Kind, object_meta: &ObjectMeta, data: &Value) -> Resource {
    let meta = meta(kind, object_meta);
    fn map<T>((spec, problems): (Option<T>, Vec<Problem>), to: fn(T) -> Spec) -> (Option<Spec>, Vec<Problem>) {
        (spec.map(to), problems)
    }
    let key = &meta.key;
    let (spec, problems) = match kind {
        Kind::Pool => map(decode(key, data), specs::pool),
        Kind::Peer => map(decode(key, data), specs::peer),
        Kind::BgpAdvertisement => map(decode(key, data), specs::bgp_advertisement),
        Kind::L2Advertisement => map(decode(key, data), specs::l2_advertisement),
        Kind::Community => map(decode(key, data), specs::community),
        Kind::BfdProfile => map(decode(key, data), specs::bfd_profile),
        Kind::PeerPolicy => map(decode(key, data), specs::peer_policy),
        Kind::PoolPolicy => map(decode(key, data), specs::pool_policy),
        Kind::Reservation => map(decode(key, data), specs::reservation),
        Kind::Advertisement => map(decode(key, data), specs::advertisement),
        Kind::AnnouncerClass => map(decode(key, data), specs::announcer_class),
    };
    Resource { meta, spec, problems, releases: releases(kind, data) }
}

/// [`Resources`] while its parts are being listed.
#[derive(Clone, Debug, Default)]
pub struct ResourcesDraft {
    /// The objects so far.
    pub resources: Resources,
    /// Epoch of the last list, per kind (in [`Kind::ALL`] order), and of the Secrets.
    pub epochs: [u64; Kind::ALL.len() + 1],
}

/// Where the Secrets' epoch stands in [`ResourcesDraft::epochs`].
pub const SECRETS: usize = Kind::ALL.len();

impl ResourcesDraft {
    /// The lowest epoch: everything has listed in it or later; zero: something never has.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epochs.iter().copied().min().unwrap_or(0)
    }
}

/// One kind of configuration object into the resources.
pub struct ResourceFeed {
    /// Which kind.
    pub kind: Kind,
    /// The resources.
    pub draft: Arc<watch::Sender<ResourcesDraft>>,
}

impl Feed for ResourceFeed {
    type Object = DynamicObject;
    type Item = Arc<Resource>;

    fn digest(&mut self, object: DynamicObject) -> Arc<Resource> {
        Arc::new(resource(self.kind, &object.metadata, &object.data))
    }

    fn replace(&mut self, items: Vec<Arc<Resource>>, epoch: u64) {
        let kind = self.kind;
        self.draft.send_modify(|draft| {
            let objects = &mut draft.resources.objects;
            *objects =
                objects.iter().filter(|(k, _)| k.kind != kind.name()).map(|(k, v)| (k.clone(), v.clone())).collect();
            objects.extend(items.into_iter().map(|r| (r.meta.key.clone(), r)));
            draft.epochs[kind as usize] = epoch;
        });
    }

    fn restore(&mut self, items: Vec<Arc<Resource>>, epoch: u64) {
        self.draft.send_modify(|draft| {
            draft.resources.objects.extend(items.into_iter().map(|r| (r.meta.key.clone(), r)));
            draft.epochs[self.kind as usize] = epoch;
        });
    }

    fn apply(&mut self, item: Arc<Resource>) {
        self.draft.send_if_modified(|draft| {
            draft.resources.objects.insert(item.meta.key.clone(), item.clone()).as_ref() != Some(&item)
        });
    }

    fn remove(&mut self, item: Arc<Resource>) {
        self.draft.send_if_modified(|draft| draft.resources.objects.remove(&item.meta.key).is_some());
    }
}

/// Passwords from the Secrets of type `kubernetes.io/basic-auth` into the resources.
pub struct SecretFeed {
    /// The resources.
    pub draft: Arc<watch::Sender<ResourcesDraft>>,
}

impl Feed for SecretFeed {
    type Object = Secret;
    type Item = (Arc<str>, Result<Password, String>);

    fn digest(&mut self, object: Secret) -> Self::Item {
        let name: Arc<str> = object.metadata.name.as_deref().unwrap_or_default().into();
        let password = match object.data.as_ref().and_then(|d| d.get("password")) {
            None => Err(format!("Secret {name} has no key `password`")),
            Some(bytes) => match std::str::from_utf8(&bytes.0) {
                Ok(text) => Ok(Password(text.into())),
                Err(_) => Err(format!("the key `password` of Secret {name} is not UTF-8 text")),
            },
        };
        (name, password)
    }

    fn replace(&mut self, items: Vec<Self::Item>, epoch: u64) {
        self.draft.send_modify(|draft| {
            draft.resources.passwords = items.into_iter().collect();
            draft.epochs[SECRETS] = epoch;
        });
    }

    fn apply(&mut self, (name, password): Self::Item) {
        self.draft.send_if_modified(|draft| draft.resources.passwords.insert(name, password.clone()) != Some(password));
    }

    fn remove(&mut self, (name, _): Self::Item) {
        self.draft.send_if_modified(|draft| draft.resources.passwords.remove(&name).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(kind: Kind, spec: Value) -> Resource {
        resource(kind, &ObjectMeta { name: Some("x".into()), ..ObjectMeta::default() }, &json!({ "spec": spec }))
    }

    #[test]
    fn object_of_the_wrong_shape_names_field_and_value() {
        let cases = [
            (Kind::Pool, json!({"addresses": "10.0.0.0/8"}), "spec.addresses", "10.0.0.0/8"),
            (Kind::Pool, json!({"addresses": ["10.0.0.0/8", 5]}), "spec.addresses[1]", "5"),
            (Kind::Peer, json!({"myASN": "x", "peerASN": 1}), "spec.myASN", "x"),
            (Kind::BgpAdvertisement, json!({"communities": [{"a": 1}]}), "spec.communities[0]", "{\"a\":1}"),
            (Kind::Peer, json!({"myASN": 1, "password": 7}), "spec.password", ""),
        ];
        for (kind, spec, field, value) in cases {
            let resource = read(kind, spec);
            assert_eq!(resource.spec, None);
            let problem = &resource.problems[0];
            assert_eq!((problem.field.as_str(), problem.value.as_str()), (field, value), "{problem}");
            for rust in ["i64", "sequence", " map", "struct", "unit"] {
                assert!(!problem.message.contains(rust), "{problem}");
            }
        }
    }

    #[test]
    fn unknown_field_is_a_warning_and_the_object_is_read() {
        let resource = read(Kind::Pool, json!({"addresses": ["10.0.0.0/8"], "autoasign": false}));
        assert!(resource.spec.is_some());
        assert_eq!(resource.problems[0].field, "spec.autoasign");
        assert_eq!(resource.problems[0].severity, Severity::Warning);
    }

    #[test]
    fn object_that_is_not_restored_yet_stays_until_a_list_is_the_truth_again() {
        let object = |name: &str| {
            Arc::new(resource(Kind::Pool, &ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() }, &json!({})))
        };
        let (draft, reader) = watch::channel(ResourcesDraft::default());
        let mut feed = ResourceFeed { kind: Kind::Pool, draft: Arc::new(draft) };
        let names =
            || reader.borrow().resources.objects.keys().map(|key| key.name.to_string()).collect::<Vec<_>>().join(" ");
        feed.replace(vec![object("a"), object("b")], 1);
        feed.restore(vec![], 2);
        assert_eq!((names().as_str(), reader.borrow().epochs[Kind::Pool as usize]), ("a b", 2));
        feed.restore(vec![object("b"), object("c")], 3);
        assert_eq!(names(), "a b c");
        feed.remove(object("c"));
        feed.replace(vec![object("b")], 4);
        assert_eq!(names(), "b");
    }

    #[test]
    fn releases_are_read_from_the_status_and_what_is_wrong_there_is_left_out() {
        let meta = || ObjectMeta { name: Some("x".into()), ..ObjectMeta::default() };
        let policy = json!({"spec": {}, "status": {"releases": [
            {"address": "10.0.0.2", "service": "a/b", "releasedAt": "2026-01-02T03:04:06Z"},
            {"address": "10.0.0.1", "service": "a/b", "releasedAt": "2026-01-02T03:04:05Z"},
            {"address": "here", "service": "a/b", "releasedAt": "2026-01-02T03:04:05Z"},
            {"address": "10.0.0.3", "service": "b", "releasedAt": "2026-01-02T03:04:05Z"},
            {"address": "10.0.0.4", "service": "a/b", "releasedAt": "yesterday"},
            {"address": "10.0.0.5", "service": "a/b"}, 7]}});
        let read = resource(Kind::PoolPolicy, &meta(), &policy);
        let ips = |r: &Resource| r.releases.iter().map(|r| r.ip.to_string()).collect::<Vec<_>>();
        assert_eq!((ips(&read), read.releases[0].at_s), (vec!["10.0.0.1".into(), "10.0.0.2".into()], 1_767_323_045));
        assert!(read.spec.is_some() && read.problems.is_empty());
        let reservation = json!({
            "spec": {"pool": "p", "count": 2, "family": "IPv4", "for": {"namespaces": ["a"]}},
            "status": {"holders": [
                {"namespace": "a", "name": "b", "addresses": ["10.0.0.1", "x"], "releasedAt": "2026-01-02T03:04:05Z"},
                {"namespace": "a", "name": "c", "addresses": ["10.0.0.2"]}]}});
        let read = resource(Kind::Reservation, &meta(), &reservation);
        assert_eq!(ips(&read), ["10.0.0.1"], "who still has an address has not given it back");
        for status in [json!(7), json!({"holders": 7}), json!({"releases": {}}), json!(null)] {
            for kind in [Kind::PoolPolicy, Kind::Reservation] {
                assert_eq!(resource(kind, &meta(), &json!({"spec": {}, "status": status})).releases, []);
            }
        }
    }

    #[test]
    fn kinds_of_our_own_are_read_field_by_field() {
        let policy = json!({"ipAddressPools": ["p"], "ipAddressPoolSelectors": [{}], "strategy": "First",
            "quotas": [{"namespaceSelector": {"matchLabels": {"a": "b"}}, "addressesMax": 3}], "noNewAddresses": ["10.0.0.0/30"],
            "addressesPerFamilyMax": 2, "pairWith": "q", "sharing": {"namespaces": "Same", "trafficPolicies": "Mixed"}});
        let Some(Spec::PoolPolicy(spec)) = read(Kind::PoolPolicy, policy).spec else { panic!() };
        assert_eq!(
            (spec.quotas[0].1, spec.addresses_per_family_max, spec.pair_with.as_deref()),
            (3, Some(2), Some("q"))
        );
        assert_eq!(
            (spec.sharing_namespaces.as_deref(), spec.sharing_traffic_policies.as_deref()),
            (Some("Same"), Some("Mixed"))
        );
        assert_eq!(
            (spec.ip_address_pools.len(), spec.ip_address_pool_selectors.len(), spec.no_new_addresses.len()),
            (1, 1, 1)
        );
        let reservation = json!({"pool": "p", "addresses": ["10.0.0.1"], "releaseAfter": "1h",
            "for": {"services": [{"namespace": "a", "name": "b"}], "namespaces": ["c"], "serviceSelector": {}}});
        let Some(Spec::Reservation(spec)) = read(Kind::Reservation, reservation).spec else { panic!() };
        assert_eq!((spec.services, spec.namespaces.len()), (vec![("a".to_owned(), "b".to_owned())], 1));
        assert!(spec.service_selector.is_some() && spec.release_after.is_some());
        let problem = &read(Kind::Reservation, json!({"pool": "p", "addresses": ["10.0.0.1"]})).problems[0];
        assert_eq!((problem.rule, &*problem.field), ("wrongType", "spec"));
        assert!(problem.message.contains("missing field `for`"), "{problem}");
        let preferred = json!({"preferredNodeSelectors": [{"weight": 7, "preference": {"matchLabels": {"a": "b"}}}]});
        let Some(Spec::L2Advertisement(spec)) = read(Kind::L2Advertisement, preferred).spec else { panic!() };
        assert_eq!(spec.preferred_node_selectors[0].0, 7);
    }

    /// JSON with the words of the kinds in it, of any shape.
    fn any_json() -> impl Strategy<Value = Value> {
        let word = prop::sample::select(vec![
            "addresses",
            "spec",
            "pool",
            "for",
            "quotas",
            "namespaceSelector",
            "addressesMax",
            "10.0.0.0/24",
            "::",
            "IPv4",
            "In",
            "key",
            "operator",
            "values",
            "matchLabels",
            "matchExpressions",
            "services",
            "namespace",
            "name",
            "peers",
            "myASN",
            "peerASN",
            "peerAddress",
            "count",
            "family",
            "communities",
            "value",
            "strategy",
            "holdTime",
            "90s",
            "",
            "weight",
            "preference",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            prop_oneof![-1i64..200, any::<i64>()].prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            word.clone().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(word.clone().prop_map(str::to_owned), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn anything_becomes_a_resource_that_validation_takes(
            objects in prop::collection::vec((0..Kind::ALL.len(), any_json(), any_json(), 0i64..3), 0..5),
        ) {
            let mut resources = Resources { namespace: "metallb-system".into(), ..Resources::default() };
            for (i, (kind, spec, status, _)) in objects.into_iter().enumerate() {
                let meta = ObjectMeta { name: Some(format!("o{}", i % 3)), ..ObjectMeta::default() };
                let object = resource(Kind::ALL[kind], &meta, &json!({"spec": spec, "status": status}));
                prop_assert!(object.spec.is_some() || object.problems.iter().any(|p| p.severity == Severity::Error));
                resources.objects.insert(object.meta.key.clone(), Arc::new(object));
            }
            let config = ferrocast_core::config::build(&resources);
            prop_assert!(config.problems.iter().all(|p| !p.rule.is_empty() && !p.message.is_empty()));
        }
    }
}
