//! AnnouncerClasses and Advertisements: what is read, refused and warned about, and what stays in force.
use serde_json::{Value, json};

use super::*;
use crate::announce::Election;

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

/// Every problem but those of objects of other kinds: severity, rule, field, value, and the rest as text.
fn told(config: &Config, kind: &str) -> Vec<String> {
    let of_kind = config.problems.iter().filter(|p| p.object.kind == kind);
    of_kind
        .map(|p| format!("{} {} {} {:?}: {}: {}", p.severity, p.rule, p.field, p.value, p.message, p.suggestion))
        .collect()
}

/// Exactly these problems, each with this beginning and these parts.
fn expect(name: &str, got: &[String], want: &[&[&str]]) {
    assert_eq!(got.len(), want.len(), "{name}: {got:#?}");
    for (got, want) in got.iter().zip(want) {
        assert!(got.starts_with(want[0]), "{name}: {got}");
        assert!(want.iter().all(|part| got.contains(part)), "{name}: {want:?}: {got}");
    }
}

#[test]
fn class_is_refused_with_field_and_value() {
    let plain = AnnouncerClassSpec::default;
    let elects = |election| Some(Capabilities { ipv4: true, election, ..Capabilities::default() });
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let long = "a".repeat(64);
    let reserved: &[&str] = &["error announcerReserved metadata.name", "choose another name"];
    let no_name: &[&str] = &["error announcerNameInvalid metadata.name", "lower-case letters"];
    let protocol = |min, max| AnnouncerClassSpec { protocol: Some((min, max)), ..plain() };
    let configured = |value: Value| AnnouncerClassSpec { configuration: Some(value), ..plain() };
    for (name, spec, want) in [
        ("bgp", plain(), reserved),
        ("layer2", plain(), reserved),
        ("steering", plain(), reserved),
        ("a.b", plain(), no_name),
        ("-a", plain(), no_name),
        ("a-", plain(), no_name),
        (long.as_str(), plain(), no_name),
        ("x", protocol(0, 1), &["error outOfRange spec.protocol.min \"0\"", "from 1 to 65535"]),
        ("x", protocol(1, 70_000), &["error outOfRange spec.protocol.max \"70000\""]),
        ("x", protocol(2, 1), &["error protocolUnsupported spec.protocol \"2-1\"", "lies below the lowest"]),
        ("x", protocol(2, 3), &["error protocolUnsupported spec.protocol \"2-3\"", "speaks 1", "range with 1 in it"]),
        (
            "x",
            AnnouncerClassSpec { capabilities: elects(Election::PerAddress), ..plain() },
            &["error electionNotServed spec.capabilities.election \"perAddress\"", "come with layer 2", "write none"],
        ),
        (
            "x",
            AnnouncerClassSpec { capabilities: elects(Election::PerCluster), ..plain() },
            &["error electionNotServed spec.capabilities.election \"perCluster\""],
        ),
        (
            "x",
            AnnouncerClassSpec { capabilities: Some(Capabilities::default()), ..plain() },
            &["warning noEffect spec.capabilities \"\"", "neither family"],
        ),
        ("x", configured(json!([1])), &["error wrongType spec.configuration \"[1]\"", "is a list, not an object"]),
        ("x", configured(json!("a")), &["error wrongType spec.configuration \"a\"", "is a string"]),
        ("x", configured(json!({"a": deep})), &["error tooLarge spec.configuration", "levels deep"]),
        ("x", configured(json!({"a": "b".repeat(70_000)})), &["error tooLarge spec.configuration", "at most 65536"]),
    ] {
        let config = World::new().class(name, 0, spec).build();
        expect(name, &told(&config, "AnnouncerClass"), &[want]);
        assert_eq!(config.announcers.is_empty(), want[0].starts_with("error"), "{name}");
    }
}

#[test]
fn schema_is_refused_with_the_path_of_what_is_wrong() {
    let at = |property: Value| json!({"type": "object", "properties": {"a": property}});
    let a = "error schemaInvalid spec.parametersSchema.properties.a";
    for (schema, want) in [
        (json!([]), &["error wrongType spec.parametersSchema"][..]),
        (json!({}), &["error schemaInvalid spec.parametersSchema \"\": has no type"]),
        (json!({"type": "string"}), &["error schemaInvalid spec.parametersSchema.type \"string\"", "write object"]),
        (json!({"type": "object", "nullable": true}), &["error schemaInvalid spec.parametersSchema.nullable"]),
        (at(json!({"$ref": "#/a", "type": "string"})), &[a, ".a[\"$ref\"]", "without references"]),
        (json!({"type": "object", "definitions": {}}), &["error schemaInvalid spec.parametersSchema.definitions"]),
        (at(json!({"type": "string", "maxlength": 1})), &[a, ".a.maxlength", "is no keyword"]),
        (at(json!({"type": "string", "x-kubernetes-validations": []})), &[a, "CEL"]),
        (at(json!({"description": "no type"})), &[a, "has no type", "x-kubernetes-int-or-string"]),
        (at(json!({"type": "text"})), &[a, ".a.type \"text\"", "write object, array, string"]),
        (at(json!({"type": ["string", "null"]})), &[a, ".a.type"]),
        (at(json!(true)), &[a, "is a boolean, not a schema"]),
        (at(json!({"type": "array"})), &[a, "a list without items"]),
        (at(json!({"type": "array", "items": {"minimum": 1}})), &[a, ".a.items", "has no type"]),
        (at(json!({"type": "integer", "minimum": "1"})), &[a, ".a.minimum \"1\"", "write a number"]),
        (at(json!({"type": "integer", "exclusiveMinimum": true})), &[a, ".a.exclusiveMinimum", "without minimum"]),
        (at(json!({"type": "integer", "exclusiveMinimum": 1})), &[a, ".a.exclusiveMinimum", "true or false"]),
        (at(json!({"type": "integer", "multipleOf": 0})), &[a, ".a.multipleOf \"0\""]),
        (at(json!({"type": "string", "maxLength": -1})), &[a, ".a.maxLength \"-1\""]),
        (at(json!({"type": "string", "pattern": "("})), &[a, ".a.pattern \"(\"", "regular expression"]),
        (at(json!({"type": "string", "pattern": "(?=a)"})), &[a, "look-around"]),
        (at(json!({"type": "string", "enum": []})), &[a, ".a.enum"]),
        (at(json!({"type": "object", "required": ["b", "b"]})), &[a, ".a.required", "each once"]),
        (at(json!({"type": "string", "x-kubernetes-int-or-string": true})), &[a, ".a.type", "exclude each other"]),
        (
            at(json!({"type": "object", "properties": {}, "additionalProperties": {"type": "string"}})),
            &[a, ".a.additionalProperties", "exclude each other"],
        ),
        (at(json!({"type": "string", "anyOf": [{"type": "string"}]})), &[a, ".a.anyOf[0].type", "say it outside"]),
        (
            at(json!({"type": "object", "properties": {}, "not": {"properties": {"b": {"minimum": 1}}}})),
            &[a, ".a.not.properties.b", "list the property outside"],
        ),
        (json!({"type": "object", "description": "x".repeat(70_000)}), &["error tooLarge spec.parametersSchema"]),
    ] {
        let spec = AnnouncerClassSpec { parameters_schema: Some(schema.clone()), ..AnnouncerClassSpec::default() };
        let config = World::new().class("bird", 0, spec).build();
        let name: String = schema.to_string().chars().take(99).collect();
        expect(&name, &told(&config, "AnnouncerClass"), &[want]);
        assert!(config.announcers.is_empty(), "{name}");
    }
}

#[test]
fn parameters_are_refused_one_by_one_with_field_and_value() {
    for (parameters, want) in [
        (json!({"area": "0"}), &[][..]),
        (json!({"area": "0", "free": {"any": ["thing"]}, "labels": {"a.b": "c"}, "port": 7}), &[]),
        (Value::Null, &[&["error parametersInvalid spec.parameters.area \"\"", "requires it"][..]]),
        (json!({}), &[&["error parametersInvalid spec.parameters.area \"\""]]),
        (json!([]), &[&["error wrongType spec.parameters"]]),
        (json!({"area": "0", "b": "c".repeat(20_000)}), &[&["error tooLarge spec.parameters", "at most 16384"]]),
        (json!({"area": 0}), &[&["error parametersInvalid spec.parameters.area \"0\": is an integer: write a string"]]),
        (json!({"area": "x"}), &[&["error parametersInvalid spec.parameters.area \"x\"", "what matches ^[0-9]+$"]]),
        (
            json!({"area": "0", "cost": 0}),
            &[&["error parametersInvalid spec.parameters.cost \"0\"", "write 1 or more"]],
        ),
        (json!({"area": "0", "cost": 65_536}), &[&["error parametersInvalid spec.parameters.cost", "65535 or less"]]),
        (json!({"area": "0", "cost": null}), &[&["error parametersInvalid spec.parameters.cost \"null\": is null"]]),
        (
            json!({"area": "0", "kind": "E3"}),
            &[&["error parametersInvalid spec.parameters.kind \"E3\"", "write E1 or E2"]],
        ),
        (
            json!({"area": "0", "port": true}),
            &[&["error parametersInvalid spec.parameters.port", "an integer or a string"]],
        ),
        (
            json!({"area": "0", "via": "::1"}),
            &[&["error parametersInvalid spec.parameters.via \"::1\"", "as in 192.0.2.1"]],
        ),
        (
            json!({"area": "0", "tags": [{"tag": 1}, {}, {"tag": "x"}]}),
            &[&["error parametersInvalid spec.parameters.tags[2].tag \"x\"", "write an integer"]],
        ),
        (
            json!({"area": "0", "tags": [{}, {"tga": 1}]}),
            &[&["error parametersInvalid spec.parameters.tags[1].tga \"1\"", "no such parameter", "write tag"]],
        ),
        (
            json!({"area": "0", "labels": {"a.b": 1}}),
            &[&["error parametersInvalid spec.parameters.labels[\"a.b\"] \"1\""]],
        ),
        (
            json!({"are": "0", "cost": "1"}),
            &[
                &["error parametersInvalid spec.parameters.are \"0\"", "area, cost, free, kind"],
                &["error parametersInvalid spec.parameters.area \"\""],
                &["error parametersInvalid spec.parameters.cost \"1\""],
            ],
        ),
    ] {
        let name = format!("{:.99}", parameters.to_string());
        let config = World::new().class("bird", 0, class()).advertisement("a", 0, with_parameters(parameters)).build();
        expect(&name, &told(&config, "Advertisement"), want);
        assert_eq!(names_of(&config, "bird").is_empty(), !want.is_empty(), "{name}");
    }
}

#[test]
fn advertisement_is_refused_or_warned_about_with_field_and_value() {
    let to = |announcer: &str| AdvertisementSpec { announcer: announcer.to_owned(), ..AdvertisementSpec::default() };
    let v4 = Capabilities { ipv4: true, ..Capabilities::default() };
    let world = World::new()
        .pool("p", 0, &["10.0.0.0/25"])
        .pool("q", 0, &["fc00::/120"])
        .class("plain", 0, AnnouncerClassSpec::default())
        .class("v4", 0, AnnouncerClassSpec { capabilities: Some(v4), ..AnnouncerClassSpec::default() })
        .class("broken", 0, AnnouncerClassSpec { protocol: Some((9, 9)), ..AnnouncerClassSpec::default() });
    let p = || strings(&["p"]);
    for (spec, want) in [
        (to(""), &["error missing spec.announcer"][..]),
        (to("bgp"), &["error announcerReserved spec.announcer \"bgp\"", "write a BGPAdvertisement"]),
        (to("layer2"), &["error announcerReserved spec.announcer \"layer2\"", "not served yet"]),
        (to("steering"), &["error announcerReserved spec.announcer \"steering\""]),
        (to("No Name"), &["error announcerNameInvalid spec.announcer \"No Name\""]),
        (to("ghost"), &["error announcerUnknown spec.announcer \"ghost\"", "does not exist"]),
        (to("broken"), &["error announcerUnknown spec.announcer \"broken\"", "no valid version"]),
        (
            AdvertisementSpec { parameters: Some(json!({"a": 1})), ..to("plain") },
            &["error parametersInvalid spec.parameters", "no parametersSchema"],
        ),
        (
            AdvertisementSpec { aggregation_length: Some(33), ..to("plain") },
            &["error outOfRange spec.aggregationLength"],
        ),
        (
            AdvertisementSpec { aggregation_length: Some(24), ..to("plain") },
            &["error aggregationTooShort spec.aggregationLength"],
        ),
        (
            AdvertisementSpec {
                aggregation_length_v6: Some(127),
                service_selectors: vec![selector("a", "b")],
                ..to("plain")
            },
            &["error aggregationWithServiceSelectors spec.aggregationLengthV6"],
        ),
        (AdvertisementSpec { targets: strings(&["a", "a"]), ..to("plain") }, &["error duplicate spec.targets[1]"]),
        (
            AdvertisementSpec { node_selectors: vec![expression("a", "In", &[])], ..to("plain") },
            &["error selectorInvalid spec.nodeSelectors[0]"],
        ),
        (
            AdvertisementSpec { ip_address_pools: strings(&["z"]), ..to("plain") },
            &["warning unknownName spec.ipAddressPools[0] \"z\""],
        ),
        (
            AdvertisementSpec { ip_address_pool_selectors: vec![selector("a", "b")], ..to("plain") },
            &["warning selectsNothing spec.ipAddressPoolSelectors[0]"],
        ),
        (
            AdvertisementSpec { aggregation_length: Some(26), ip_address_pools: p(), ..to("v4") },
            &["error capabilityMissing spec.aggregationLength \"26\"", "write 32"],
        ),
        (to("v4"), &["warning capabilityMissing spec.ipAddressPools \"q\"", "does not announce IPv6"]),
        (
            AdvertisementSpec { ip_address_pools: strings(&["p", "q"]), ..to("v4") },
            &["warning capabilityMissing spec.ipAddressPools[1] \"q\""],
        ),
    ] {
        let config = world.clone().advertisement("a", 0, spec.clone()).build();
        expect(&format!("{spec:?}"), &told(&config, "Advertisement"), &[want]);
        assert_eq!(names_of(&config, &spec.announcer).is_empty(), want[0].starts_with("error"), "{spec:?}");
        let mends = want[0].contains("announcerUnknown");
        assert!(
            config.problems.iter().filter(|p| p.object.kind == "Advertisement").all(|p| p.may_mend_itself() == mends)
        );
    }
}

#[test]
fn younger_of_two_equal_advertisements_for_one_announcer_is_refused() {
    let spec = |announcer: &str, n: i64| AdvertisementSpec {
        announcer: announcer.to_owned(),
        ..with_parameters(json!({"area": "0", "cost": n}))
    };
    let world = World::new()
        .class("bird", 0, class())
        .class("other", 0, class())
        .advertisement("z", 1, spec("bird", 1))
        .advertisement("a", 2, spec("bird", 1))
        .advertisement("b", 3, spec("bird", 2))
        .advertisement("c", 4, spec("other", 1));
    let config = world.build();
    assert_eq!((names_of(&config, "bird"), names_of(&config, "other")), (strings(&["b", "z"]), strings(&["c"])));
    expect(
        "equal",
        &told(&config, "Advertisement"),
        &[&["error advertisementsEqual spec", "\"a\" and \"z\" are equal"]],
    );
}

#[test]
fn last_valid_versions_stay_in_force_also_over_a_restart() {
    let world = World::new().class("bird", 0, class()).advertisement("a", 0, with_parameters(json!({"area": "0"})));
    let mut builder = Builder::default();
    let first = builder.build(&world.resources);
    assert_eq!(first.problems, []);
    let text = serde_json::to_string(&builder.in_force(&first)).unwrap();
    let narrower = json!({"type": "object", "properties": {"zone": {"type": "integer"}}});
    let edited = AnnouncerClassSpec { parameters_schema: Some(narrower), ..AnnouncerClassSpec::default() };
    let no_schema = AnnouncerClassSpec { parameters_schema: Some(json!({})), ..AnnouncerClassSpec::default() };
    for (name, bad, kind) in [
        (
            "parameters that are wrong",
            world.clone().advertisement("a", 0, with_parameters(json!({"area": 0}))),
            "Advertisement",
        ),
        ("no shape", world.clone().with("Advertisement", "a", 0, None), "Advertisement"),
        (
            "moved to nobody",
            world.clone().advertisement(
                "a",
                0,
                AdvertisementSpec { announcer: "x".to_owned(), ..AdvertisementSpec::default() },
            ),
            "Advertisement",
        ),
        ("class edited", world.clone().class("bird", 0, edited), "Advertisement"),
        ("class broken", world.clone().class("bird", 0, no_schema), "AnnouncerClass"),
    ] {
        let mut restarted = Builder::default();
        restarted.restore(&serde_json::from_str(&text).unwrap());
        let config = restarted.build(&bad.resources);
        assert_eq!(builder.build(&bad.resources), config, "{name}: with and without a restart");
        assert_eq!(config.announcers["bird"].advertisements, first.announcers["bird"].advertisements, "{name}");
        let told = told(&config, kind);
        assert!(
            !told.is_empty() && told.iter().all(|text| text.contains("last valid version stays")),
            "{name}: {told:?}"
        );
        assert_eq!(builder.build(&world.resources), first, "{name}: mended");
    }
    let gone = builder.build(&world.clone().without("AnnouncerClass", "bird").resources);
    assert!(gone.announcers.is_empty());
    expect("gone", &told(&gone, "Advertisement"), &[&["error announcerUnknown spec.announcer"]]);
    assert_eq!(builder.build(&world.resources), first, "the class has come back");
    assert!(build(&world.without("AnnouncerClass", "bird").resources).announcers.is_empty());
}
