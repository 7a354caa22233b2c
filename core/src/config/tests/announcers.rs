//! AnnouncerClasses and Advertisements: what is read, refused and warned about, and what stays in force.
use serde_json::{Value, json};

use super::*;

/// A class with parameters of every kind.
fn class() -> AnnouncerClassSpec {
    AnnouncerClassSpec { parameters_schema: Some(schema()), ..AnnouncerClassSpec::default() }
}

fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["area"],
        "properties": {
            "area": {"type": "string", "pattern": "^[0-9]+$", "description": "OSPF area"},
            "cost": {"type": "integer", "minimum": 1, "maximum": 65535, "default": 10},
            "kind": {"type": "string", "enum": ["E1", "E2"], "nullable": false},
            "tags": {"type": "array", "maxItems": 3, "items": {"type": "object", "properties": {"tag": {"type": "integer"}}}},
            "port": {"x-kubernetes-int-or-string": true},
            "via": {"type": "string", "format": "ipv4"},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "free": {"x-kubernetes-preserve-unknown-fields": true},
        },
    })
}

fn with_parameters(parameters: Value) -> AdvertisementSpec {
    AdvertisementSpec { announcer: "bird".to_owned(), parameters: Some(parameters), ..AdvertisementSpec::default() }
}

fn names_of(config: &Config, announcer: &str) -> Vec<String> {
    config.advertisements_of(announcer).into_iter().flatten().map(|(name, _)| name.to_string()).collect()
}

#[test]
fn class_and_advertisement_are_read_field_by_field() {
    let capabilities = Capabilities { ipv4: true, ipv6: true, aggregation: true, ..Capabilities::default() };
    let spec = AnnouncerClassSpec {
        capabilities: Some(capabilities),
        protocol: Some((1, 3)),
        configuration: Some(json!({"z": 1, "a": {"c": [1, 2], "b": null}})),
        ..class()
    };
    let advertisement = AdvertisementSpec {
        aggregation_length: Some(24),
        aggregation_length_v6: Some(64),
        ip_address_pools: strings(&["p"]),
        ip_address_pool_selectors: vec![selector("name", "p")],
        node_selectors: vec![selector("rack", "a")],
        targets: strings(&["core", "edge"]),
        ..with_parameters(json!({"kind": "E2", "area": "0", "tags": [{"tag": 7}], "port": "http"}))
    };
    let world = World::new().pool("p", 0, &["10.0.0.0/24", "fc00::/64"]);
    let config = world.class("bird", 1, spec).advertisement("a", 2, advertisement).build();
    assert_eq!(config.problems, []);
    let class = &config.announcers["bird"];
    assert_eq!((&*class.name, class.capabilities, class.protocol), ("bird", Some(capabilities), Some((1, 3))));
    assert_eq!(class.configuration.as_deref(), Some(r#"{"a":{"b":null,"c":[1,2]},"z":1}"#));
    let schema: Value = serde_json::from_str(class.parameters_schema.as_ref().unwrap()).unwrap();
    assert_eq!(schema, self::schema());
    let read = &class.advertisements["a"];
    assert_eq!((read.aggregation_length_v4, read.aggregation_length_v6), (24, 64));
    assert_eq!((read.pools.len(), read.pool_selectors.len(), read.node_selectors.len()), (1, 1, 1));
    assert_eq!(read.peers, ["core".into(), "edge".into()].into());
    let text = r#"{"area":"0","kind":"E2","port":"http","tags":[{"tag":7}]}"#;
    assert_eq!(read.parameters.as_deref(), Some(text));
    assert!(config.advertisements.is_empty(), "they are not BGP's");
    assert_eq!((names_of(&config, "bird"), names_of(&config, "other")), (strings(&["a"]), strings(&[])));
}
