//! MetalLB's configuration file, as it was before there were resources: all its versions since v0.1, to today's resources.
//!
//! Source: `metallb-reference.md` §2.10; MetalLB removed it in v0.13.
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    reader::{Fields, Remarks},
    tree::{Place, Tree},
};

/// Longest name of an object.
const NAME_LEN_MAX: usize = 253;
/// Any AS number.
const ASN: (i64, i64) = (1, 4_294_967_295);

/// What came of a file.
#[derive(Debug, Default)]
pub struct Converted {
    /// Objects, in the order in which they should be applied.
    pub objects: Vec<Value>,
    /// What was not understood (then there are no objects), and what was left out or changed.
    pub remarks: Remarks,
}

/// Converts a file: the ConfigMap's manifest, or what stands under its key `config`.
#[must_use]
pub fn convert(text: &str, namespace: &str) -> Converted {
    let mut converter = Converter { namespace, ..Converter::default() };
    match Tree::read(text) {
        Err(error) => converter.remarks.error(Place::default(), "", format!("not YAML: {error}")),
        Ok(tree) => match config_of(&tree, text) {
            Ok(None) => converter.config(&tree),
            Ok(Some((inner, offset))) => converter.inner(&inner, offset),
            Err(message) => converter.remarks.error(tree.place, "", message),
        },
    }
    let mut remarks = converter.remarks;
    remarks.errors.sort();
    remarks.warnings.sort();
    let objects = if remarks.errors.is_empty() { converter.objects } else { Vec::new() };
    Converted { objects, remarks }
}

/// How far a text inside a file is from the file's begin: lines before it, columns in front of it.
type Offset = (u64, u64);

/// The text under `data.config` of a ConfigMap; `None`: the tree is the configuration itself.
fn config_of(tree: &Tree, text: &str) -> Result<Option<(String, Offset)>, String> {
    if tree.get("kind").and_then(Tree::scalar) != Some("ConfigMap") {
        return Ok(None);
    }
    let config = tree.get("data").and_then(|data| data.get("config"));
    let Some((config, inner)) = config.and_then(|config| Some((config, config.scalar()?))) else {
        return Err("the ConfigMap has no key config in its data".to_owned());
    };
    // A block scalar's text begins on its own line, as far in as that; anything else where it stands.
    let lines: Vec<&str> = text.lines().collect();
    let at = usize::try_from(config.place.line).unwrap_or(usize::MAX).saturating_sub(1);
    let first = inner.lines().next().unwrap_or_default();
    let begin = lines.iter().enumerate().skip(at).take(2).find(|(_, line)| line.trim_start() == first.trim_start());
    let Some((number, line)) = begin else {
        return Ok(Some((inner.to_owned(), (config.place.line.saturating_sub(1), 0))));
    };
    let indent = |text: &str| text.len() - text.trim_start().len();
    let columns = indent(line).saturating_sub(indent(first));
    Ok(Some((inner.to_owned(), (u64::try_from(number).unwrap_or(0), u64::try_from(columns).unwrap_or(0)))))
}

#[derive(Default)]
struct Converter<'n> {
    namespace: &'n str,
    objects: Vec<Value>,
    remarks: Remarks,
    aliases: BTreeSet<String>,
    profiles: BTreeSet<String>,
    pools: BTreeSet<String>,
    bgp_advertisements: usize,
    layer2_advertisements: usize,
    /// BFD profiles that peers name, to be compared with those there are.
    named_profiles: Vec<(String, Place, String)>,
}

fn fields(pairs: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Value {
    let present = pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(present.collect::<Map<_, _>>())
}

fn list(items: Vec<Value>) -> Option<Value> {
    (!items.is_empty()).then_some(Value::Array(items))
}

impl Converter<'_> {
    /// Converts a text that stands inside another file.
    fn inner(&mut self, text: &str, (lines, columns): Offset) {
        match Tree::read(text) {
            Err(error) => {
                self.remarks.error(Place { line: lines, column: 1 }, "data.config", format!("not YAML: {error}"))
            }
            Ok(tree) => self.config(&tree),
        }
        for remark in self.remarks.errors.iter_mut().chain(&mut self.remarks.warnings) {
            remark.place = Place { line: remark.place.line + lines, column: remark.place.column + columns };
        }
    }

    fn add(&mut self, version: &str, kind: &str, name: &str, spec: Value) {
        let metadata = json!({"name": name, "namespace": self.namespace});
        let api_version = format!("metallb.io/{version}");
        self.objects.push(json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}));
    }

    fn config(&mut self, tree: &Tree) {
        let mut remarks = std::mem::take(&mut self.remarks);
        if let Some(mut top) = Fields::of(tree, "", &mut remarks) {
            let mut communities = top.pairs("bgp-communities", &mut remarks);
            communities.extend(top.pairs("communities", &mut remarks)); // v0.1, v0.2
            self.communities(communities, &mut remarks);
            for (profile, path) in top.list("bfd-profiles", &mut remarks) {
                self.profile(profile, &path, &mut remarks);
            }
            for (index, (pool, path)) in top.list("address-pools", &mut remarks).into_iter().enumerate() {
                self.pool(pool, &path, index, &mut remarks);
            }
            for (index, (peer, path)) in top.list("peers", &mut remarks).into_iter().enumerate() {
                self.peer(peer, &path, index, &mut remarks);
            }
            top.finish(&mut remarks);
        }
        for (name, place, path) in std::mem::take(&mut self.named_profiles) {
            if !self.profiles.contains(&name) {
                remarks.error(place, &path, format!("there is no BFD profile {name:?} in bfd-profiles"));
            }
        }
        self.remarks = remarks;
    }

    fn communities(&mut self, pairs: Vec<(String, String, Place)>, remarks: &mut Remarks) {
        let mut entries = Vec::new();
        for (name, value, place) in pairs {
            let path = format!("bgp-communities.{name}");
            if !is_community(&value) {
                remarks.error(place, &path, format!("{value:?} is no BGP community: two numbers from 0 to 65535, a:b"));
            }
            if !self.aliases.insert(name.clone()) {
                remarks.error(place, &path, "this community stands here twice");
            }
            entries.push(json!({"name": name, "value": value}));
        }
        if !entries.is_empty() {
            self.add("v1beta1", "Community", "communities", json!({ "communities": entries }));
        }
    }

    fn profile(&mut self, tree: &Tree, path: &str, remarks: &mut Remarks) {
        let Some(mut profile) = Fields::of(tree, path, remarks) else { return };
        let name = self.name(&mut profile, "BFD profile", remarks);
        let interval = (10, 60_000);
        let spec = fields([
            ("receiveInterval", profile.number("receive-interval", interval, remarks).map(Value::from)),
            ("transmitInterval", profile.number("transmit-interval", interval, remarks).map(Value::from)),
            ("detectMultiplier", profile.number("detect-multiplier", (2, 255), remarks).map(Value::from)),
            ("echoInterval", profile.number("echo-interval", interval, remarks).map(Value::from)),
            ("echoMode", profile.flag("echo-mode", remarks).map(Value::from)),
            ("passiveMode", profile.flag("passive-mode", remarks).map(Value::from)),
            ("minimumTtl", profile.number("minimum-ttl", (1, 254), remarks).map(Value::from)),
        ]);
        let place = profile.place;
        profile.finish(remarks);
        if let Some(name) = name {
            if !self.profiles.insert(name.clone()) {
                remarks.error(place, path, format!("BFD profile {name:?} stands here twice"));
            }
            self.add("v1beta1", "BFDProfile", &object_name(&name), spec);
        }
    }

    /// The required name of something.
    fn name(&self, of: &mut Fields<'_>, what: &str, remarks: &mut Remarks) -> Option<String> {
        let path = of.at("name");
        let place = of.place_of("name");
        let name = of.text("name", remarks).filter(|name| !name.is_empty());
        match &name {
            None => remarks.error(place, &path, format!("a {what} needs a name")),
            Some(name) if object_name(name) != *name => {
                let new = object_name(name);
                remarks.warning(
                    place,
                    &path,
                    format!("{name:?} cannot be the name of a resource: it becomes {new:?}; mend what refers to it"),
                );
            }
            Some(_) => {}
        }
        name
    }

    fn peer(&mut self, tree: &Tree, path: &str, index: usize, remarks: &mut Remarks) {
        let Some(mut peer) = Fields::of(tree, path, remarks) else { return };
        for key in ["my-asn", "peer-asn", "peer-address"] {
            if !peer.has(key) {
                remarks.error(peer.place, &peer.at(key), "missing: a peer needs my-asn, peer-asn and peer-address");
            }
        }
        let mut selectors = Vec::new();
        for (selector, path) in peer.list("node-selectors", remarks) {
            selectors.extend(selector_of(selector, &path, remarks));
        }
        let duration = |peer: &mut Fields<'_>, key: &'static str, remarks: &mut Remarks| {
            let (place, path) = (peer.place_of(key), peer.at(key));
            let text = peer.text(key, remarks)?;
            if let Err(why) = ferrocast_core::config::parse_duration(&text) {
                remarks.error(place, &path, format!("{text:?} {why}"));
            }
            Some(Value::from(text))
        };
        let address = |peer: &mut Fields<'_>, key: &'static str, remarks: &mut Remarks| {
            let (place, path) = (peer.place_of(key), peer.at(key));
            let text = peer.text(key, remarks)?;
            if text.parse::<std::net::IpAddr>().is_err() {
                remarks.error(place, &path, format!("{text:?} is not an IP address"));
            }
            Some(Value::from(text))
        };
        let spec = fields([
            ("myASN", peer.number("my-asn", ASN, remarks).map(Value::from)),
            ("peerASN", peer.number("peer-asn", ASN, remarks).map(Value::from)),
            ("peerAddress", address(&mut peer, "peer-address", remarks)),
            ("sourceAddress", address(&mut peer, "source-address", remarks)),
            ("peerPort", peer.number("peer-port", (0, 16_384), remarks).filter(|port| *port != 0).map(Value::from)),
            ("holdTime", duration(&mut peer, "hold-time", remarks)),
            ("keepaliveTime", duration(&mut peer, "keepalive-time", remarks)),
            ("routerID", address(&mut peer, "router-id", remarks)),
            ("nodeSelectors", list(selectors)),
            ("password", peer.text("password", remarks).filter(|text| !text.is_empty()).map(Value::from)),
            ("bfdProfile", self.peer_profile(&mut peer, remarks)),
            ("ebgpMultiHop", peer.flag("ebgp-multihop", remarks).map(Value::from)),
        ]);
        peer.finish(remarks);
        self.add("v1beta2", "BGPPeer", &format!("peer{}", index + 1), spec);
    }

    fn peer_profile(&mut self, peer: &mut Fields<'_>, remarks: &mut Remarks) -> Option<Value> {
        let (place, path) = (peer.place_of("bfd-profile"), peer.at("bfd-profile"));
        let name = peer.text("bfd-profile", remarks).filter(|text| !text.is_empty())?;
        self.named_profiles.push((name.clone(), place, path));
        Some(Value::from(object_name(&name)))
    }

    fn pool(&mut self, tree: &Tree, path: &str, index: usize, remarks: &mut Remarks) {
        let Some(mut pool) = Fields::of(tree, path, remarks) else { return };
        let name = self.name(&mut pool, "pool", remarks);
        let name = object_name(&name.unwrap_or_else(|| format!("pool{}", index + 1)));
        if !self.pools.insert(name.clone()) {
            remarks.error(pool.place, path, format!("another pool is called {name:?}"));
        }
        // `cidr` and `advertisements` are of v0.1 and v0.2, whose pools had no protocol; `cidr` lived on until v0.5.
        let old = !pool.has("protocol") && (pool.has("cidr") || pool.has("advertisements"));
        let mut addresses = pool.texts("addresses", remarks);
        addresses.extend(pool.texts("cidr", remarks));
        if addresses.is_empty() {
            remarks.error(pool.place, path, "a pool needs addresses: CIDRs or start-end ranges");
        }
        let addresses: Vec<String> = addresses.into_iter().map(|(text, _)| text).collect();
        let spec = fields([
            ("addresses", Some(json!(addresses))),
            ("autoAssign", pool.flag("auto-assign", remarks).map(Value::from)),
            ("avoidBuggyIPs", pool.flag("avoid-buggy-ips", remarks).map(Value::from)),
        ]);
        self.add("v1beta1", "IPAddressPool", &name, spec);
        let protocol = (pool.place_of("protocol"), pool.at("protocol"), pool.text("protocol", remarks));
        if let Some(network) = pool.text("arp-network", remarks) {
            let (place, path) = (pool.place_of("arp-network"), pool.at("arp-network"));
            remarks.warning(place, &path, format!("{network:?} is left out: nothing needs it any more"));
        }
        let key = if pool.has("advertisements") { "advertisements" } else { "bgp-advertisements" };
        let advertisements = pool.list(key, remarks);
        let other = if key == "advertisements" { "bgp-advertisements" } else { "advertisements" };
        if pool.has(other) {
            remarks.error(
                pool.place_of(other),
                &pool.at(other),
                "advertisements and bgp-advertisements are one thing: keep one",
            );
        }
        let _ = pool.take(other);
        let place = pool.place_of(key);
        pool.finish(remarks);
        match protocol.2.as_deref() {
            None if old => {
                // An empty list meant no announcement then.
                advertisements.iter().for_each(|(tree, path)| self.advertisement(tree, path, &name, remarks));
            }
            Some("bgp") if advertisements.is_empty() => self.add_advertisement(&name, Vec::new()),
            Some("bgp") => {
                advertisements.iter().for_each(|(tree, path)| self.advertisement(tree, path, &name, remarks))
            }
            Some("layer2" | "arp" | "ndp") => {
                if !advertisements.is_empty() {
                    remarks.error(place, path, "a layer 2 pool cannot have bgp-advertisements");
                }
                self.layer2_advertisements += 1;
                let object = format!("l2advertisement{}", self.layer2_advertisements);
                self.add("v1beta1", "L2Advertisement", &object, json!({"ipAddressPools": [name]}));
            }
            Some(other) => {
                remarks.error(protocol.0, &protocol.1, format!("unknown protocol {other:?}: bgp or layer2"));
            }
            None => remarks.error(protocol.0, &protocol.1, "missing: bgp or layer2"),
        }
    }

    fn advertisement(&mut self, tree: &Tree, path: &str, pool: &str, remarks: &mut Remarks) {
        let Some(mut advertisement) = Fields::of(tree, path, remarks) else { return };
        let mut communities = Vec::new();
        for (text, place) in advertisement.texts("communities", remarks) {
            if !self.aliases.contains(&text) && !is_community(&text) {
                let message = format!("{text:?} is neither a community, a:b, nor a name of bgp-communities");
                remarks.error(place, &advertisement.at("communities"), message);
            }
            communities.push(Value::from(text));
        }
        let spec = vec![
            ("aggregationLength", advertisement.number("aggregation-length", (1, 32), remarks).map(Value::from)),
            ("aggregationLengthV6", advertisement.number("aggregation-length-v6", (1, 128), remarks).map(Value::from)),
            ("localPref", advertisement.number("localpref", (0, 4_294_967_295), remarks).map(Value::from)),
            ("communities", list(communities)),
        ];
        advertisement.finish(remarks);
        self.add_advertisement(pool, spec);
    }

    fn add_advertisement(&mut self, pool: &str, spec: Vec<(&'static str, Option<Value>)>) {
        self.bgp_advertisements += 1;
        let name = format!("bgpadvertisement{}", self.bgp_advertisements);
        let pools = ("ipAddressPools", Some(json!([pool])));
        self.add("v1beta1", "BGPAdvertisement", &name, fields(spec.into_iter().chain([pools])));
    }
}

/// A node selector.
fn selector_of(tree: &Tree, path: &str, remarks: &mut Remarks) -> Option<Value> {
    let mut selector = Fields::of(tree, path, remarks)?;
    let labels: BTreeMap<String, String> =
        selector.pairs("match-labels", remarks).into_iter().map(|(key, value, _)| (key, value)).collect();
    let mut expressions = Vec::new();
    for (expression, path) in selector.list("match-expressions", remarks) {
        let Some(mut expression) = Fields::of(expression, &path, remarks) else { continue };
        let (place, at) = (expression.place_of("operator"), expression.at("operator"));
        let operator = expression.text("operator", remarks).unwrap_or_default();
        if !["In", "NotIn", "Exists", "DoesNotExist"].contains(&&*operator) {
            remarks.error(place, &at, format!("{operator:?} is no operator: In, NotIn, Exists or DoesNotExist"));
        }
        let values: Vec<Value> =
            expression.texts("values", remarks).into_iter().map(|(text, _)| Value::from(text)).collect();
        let key = expression.text("key", remarks).unwrap_or_default();
        expressions.push(fields([
            ("key", Some(Value::from(key))),
            ("operator", Some(Value::from(operator))),
            ("values", list(values)),
        ]));
        expression.finish(remarks);
    }
    selector.finish(remarks);
    let labels = (!labels.is_empty()).then(|| json!(labels));
    Some(fields([("matchLabels", labels), ("matchExpressions", list(expressions))]))
}

fn is_community(text: &str) -> bool {
    let half = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && part.parse::<u16>().is_ok();
    text.split_once(':').is_some_and(|(a, b)| half(a) && half(b))
}

/// The nearest name that a resource may have. Source: RFC 1123, as Kubernetes' object names.
#[must_use]
pub fn object_name(text: &str) -> String {
    let mut name: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.' { c } else { '-' })
        .take(NAME_LEN_MAX)
        .collect();
    name = name.trim_matches(['-', '.']).to_owned();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

#[cfg(test)]
#[path = "configmap_tests.rs"]
mod tests;
