//! What an OpenAPI v3 structural schema may be, and the JSON Schema that says the same.
//!
//! Source: <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>
use serde_json::{Map, Value, json};

use crate::config::{check::Report, json};

/// Patterns in one schema: far more than parameters have that are texts of a form of their own.
pub(super) const PATTERNS_MAX: usize = 64;
/// Alternatives that a node may have together: each is tried on the same value.
const ALTERNATIVES_MAX: usize = 64;
/// Extension: an integer or a string.
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";
/// Extension: fields that are not listed are allowed.
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

/// What the value of a keyword has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// Whatever.
    Any,
    Text,
    Pattern,
    Flag,
    Number,
    /// A number above zero.
    Divisor,
    /// An integer of zero or more.
    Count,
    /// One of the types.
    Type,
    /// A list of different names.
    Names,
    /// A list of at least one value.
    Values,
    Schema,
    SchemaOrFlag,
    Schemas,
    /// A list of at least one schema.
    Alternatives,
}

/// The keywords, and what their values are.
const KEYWORDS: &[(&str, Shape)] = &[
    ("title", Shape::Text),
    ("description", Shape::Text),
    ("externalDocs", Shape::Any),
    ("example", Shape::Any),
    ("default", Shape::Any),
    ("type", Shape::Type),
    ("format", Shape::Text),
    ("nullable", Shape::Flag),
    ("enum", Shape::Values),
    ("pattern", Shape::Pattern),
    ("minLength", Shape::Count),
    ("maxLength", Shape::Count),
    ("minimum", Shape::Number),
    ("maximum", Shape::Number),
    ("exclusiveMinimum", Shape::Flag),
    ("exclusiveMaximum", Shape::Flag),
    ("multipleOf", Shape::Divisor),
    ("items", Shape::Schema),
    ("minItems", Shape::Count),
    ("maxItems", Shape::Count),
    ("uniqueItems", Shape::Flag),
    ("properties", Shape::Schemas),
    ("additionalProperties", Shape::SchemaOrFlag),
    ("required", Shape::Names),
    ("minProperties", Shape::Count),
    ("maxProperties", Shape::Count),
    ("allOf", Shape::Alternatives),
    ("anyOf", Shape::Alternatives),
    ("oneOf", Shape::Alternatives),
    ("not", Shape::Schema),
    (INT_OR_STRING, Shape::Flag),
    (PRESERVE, Shape::Flag),
];
/// The types.
const TYPES: [&str; 6] = ["object", "array", "string", "integer", "number", "boolean"];
/// What only describes, and says nothing of a value.
const DESCRIBING: [&str; 5] = ["title", "description", "externalDocs", "example", "default"];
/// What a schema inside allOf, anyOf, oneOf and not must leave to the one outside.
const OUTSIDE_ONLY: [&str; 5] = ["nullable", "default", "additionalProperties", INT_OR_STRING, PRESERVE];

/// Where a schema stands.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// It says what there is.
    Structure,
    /// Inside allOf, anyOf, oneOf or not: it says more of what the schema outside has, which is this if it can be told.
    Condition(Option<&'a Map<String, Value>>),
}

/// The JSON Schema that says what `schema` does; `None` if it is none, which is reported.
pub(super) fn translate(path: &str, schema: &Value, report: &mut Report) -> Option<Value> {
    let mut walk = Walk { report, patterns: 0, wrong: false };
    let root_type = schema.get("type").and_then(Value::as_str);
    if root_type.is_some_and(|root| root != "object" && TYPES.contains(&root)) {
        let message = "parameters are an object";
        walk.refuse(&json::field(path, "type"), schema.get("type"), message, "write object");
    }
    if schema.get("nullable") == Some(&Value::Bool(true)) {
        let message = "parameters that are null are the same as none";
        walk.refuse(&json::field(path, "nullable"), schema.get("nullable"), message, "leave it out");
    }
    if schema.get(INT_OR_STRING) == Some(&Value::Bool(true)) {
        walk.refuse(&json::field(path, INT_OR_STRING), None, "parameters are an object", "leave it out");
    }
    let translated = walk.node(path, schema, Place::Structure);
    (!walk.wrong).then_some(translated)
}

struct Walk<'r> {
    report: &'r mut Report,
    patterns: usize,
    wrong: bool,
}

impl Walk<'_> {
    fn refuse(&mut self, field: &str, value: Option<&Value>, message: &str, suggestion: &str) {
        let value = value.map(json::shown).unwrap_or_default();
        self.report.error("schemaInvalid", field, value, message, suggestion);
        self.wrong = true;
    }

    fn node(&mut self, path: &str, value: &Value, place: Place<'_>) -> Value {
        let Some(node) = value.as_object() else {
            let message = format!("is {}, not a schema", json::kind(value));
            self.refuse(path, Some(value), &message, "write an object");
            return Value::Null;
        };
        let mut known = Map::new();
        for (keyword, value) in node {
            if self.keyword(&json::field(path, keyword), keyword, value, place) {
                known.insert(keyword.clone(), value.clone());
            }
        }
        self.together(path, node, &known, place);
        let mut out = Map::new();
        for (keyword, value) in &known {
            let at = json::field(path, keyword);
            let said = match keyword.as_str() {
                "properties" => self.properties(&at, value, place),
                "additionalProperties" | "items" | "not" if value.is_object() => {
                    self.node(&at, value, inside(keyword, &known, place))
                }
                "allOf" | "anyOf" | "oneOf" => self.alternatives(&at, value, inside(keyword, &known, place)),
                _ => value.clone(),
            };
            out.insert(keyword.clone(), said);
        }
        restate(&mut out, place);
        Value::Object(out)
    }

    /// Looks at one keyword by itself: can it be used?
    fn keyword(&mut self, field: &str, keyword: &str, value: &Value, place: Place<'_>) -> bool {
        let Some((_, shape)) = KEYWORDS.iter().find(|(known, _)| *known == keyword) else {
            let (message, suggestion) = match keyword {
                "$ref" | "definitions" | "$defs" | "$schema" | "$id" | "id" => {
                    ("a structural schema is one piece, without references", "write the schema in its place")
                }
                "x-kubernetes-validations" => ("rules in CEL are not supported", "leave it out"),
                _ => ("is no keyword of a structural schema", "check its spelling, or leave it out"),
            };
            self.refuse(field, None, message, suggestion);
            return false;
        };
        if let Place::Condition(outer) = place {
            let int_or_string = outer.is_some_and(|outer| outer.get(INT_OR_STRING) == Some(&Value::Bool(true)));
            if OUTSIDE_ONLY.contains(&keyword) || (keyword == "type" && !int_or_string) {
                let message = "inside allOf, anyOf, oneOf and not a structural schema does not say this";
                self.refuse(field, None, message, "say it outside");
                return false;
            }
        }
        let Some(wanted) = shape.refuses(value) else {
            return *shape != Shape::Pattern || self.pattern(field, value);
        };
        self.refuse(field, Some(value), &format!("is {}", json::kind(value)), &format!("write {wanted}"));
        false
    }

    fn pattern(&mut self, field: &str, value: &Value) -> bool {
        self.patterns += 1;
        if self.patterns > PATTERNS_MAX {
            let message = format!("a schema has at most {PATTERNS_MAX} patterns");
            self.refuse(field, None, &message, "leave it out, or write enum or format");
            return false;
        }
        let usable = super::compile(&json!({"pattern": value})).is_ok();
        if !usable {
            let message = "is not a regular expression that can be used, or is too large";
            self.refuse(field, Some(value), message, "write one without look-around and back-references");
        }
        usable
    }

    /// Looks at what keywords of one schema make of each other.
    fn together(&mut self, path: &str, node: &Map<String, Value>, known: &Map<String, Value>, place: Place<'_>) {
        let set = |keyword: &str| node.get(keyword) == Some(&Value::Bool(true));
        if let Place::Structure = place {
            let typed = node.contains_key("type");
            if set(INT_OR_STRING) && typed {
                let message = format!("type and {INT_OR_STRING} exclude each other");
                self.refuse(&json::field(path, "type"), node.get("type"), &message, "leave one of them out");
            } else if !typed && !set(INT_OR_STRING) && !set(PRESERVE) {
                let message = "has no type";
                let suggestion = format!("write type: {}, or {INT_OR_STRING}, or {PRESERVE}", TYPES.join(", "));
                self.refuse(path, None, message, &suggestion);
            }
            if known.get("type").is_some_and(|of| of == "array") && !node.contains_key("items") {
                self.refuse(path, None, "is a list without items", "write in items what the entries are");
            }
        }
        let open = known.get("additionalProperties").is_some_and(|value| *value != Value::Bool(false));
        if open && node.contains_key("properties") {
            let message = "properties and additionalProperties exclude each other";
            let suggestion = format!("leave one of them out, or write {PRESERVE}: true instead");
            self.refuse(&json::field(path, "additionalProperties"), None, message, &suggestion);
        }
        for (flag, limit) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
            if set(flag) && !node.contains_key(limit) {
                let message = format!("says nothing without {limit}");
                self.refuse(&json::field(path, flag), None, &message, &format!("write {limit} as well"));
            }
        }
    }

    fn properties(&mut self, path: &str, value: &Value, place: Place<'_>) -> Value {
        let Some(properties) = value.as_object() else { return Value::Null };
        let mut out = Map::new();
        for (name, schema) in properties {
            let at = json::field(path, name);
            let inner = match place {
                Place::Structure => Place::Structure,
                Place::Condition(outer) => Place::Condition(self.outside(&at, name, outer)),
            };
            out.insert(name.clone(), self.node(&at, schema, inner));
        }
        Value::Object(out)
    }

    /// The schema outside of a condition that says what the property `name` is.
    fn outside<'o>(
        &mut self,
        at: &str,
        name: &str,
        outer: Option<&'o Map<String, Value>>,
    ) -> Option<&'o Map<String, Value>> {
        let outer = outer?;
        let listed = outer.get("properties").and_then(|properties| properties.get(name));
        let found = listed.or_else(|| outer.get("additionalProperties")).and_then(Value::as_object);
        let open = outer.get("additionalProperties").is_some_and(|value| *value != Value::Bool(false));
        if listed.is_none() && !open && outer.get(PRESERVE) != Some(&Value::Bool(true)) {
            let message = "what a condition is about must be described outside of it";
            self.refuse(at, None, message, "list the property outside as well");
        }
        found
    }

    fn alternatives(&mut self, path: &str, value: &Value, place: Place<'_>) -> Value {
        let Some(all) = value.as_array() else { return Value::Null };
        let node = |(i, schema): (usize, &Value)| self.node(&format!("{path}[{i}]"), schema, place);
        Value::Array(all.iter().enumerate().map(node).collect())
    }
}

/// Where the schema in `keyword` of `node` stands.
fn inside<'a>(keyword: &str, node: &'a Map<String, Value>, place: Place<'a>) -> Place<'a> {
    match (keyword, place) {
        ("items" | "additionalProperties", Place::Structure) => Place::Structure,
        ("items" | "additionalProperties", Place::Condition(outer)) => {
            Place::Condition(outer.and_then(|outer| outer.get("items")).and_then(Value::as_object))
        }
        (_, Place::Structure) => Place::Condition(Some(node)),
        // A condition in a condition is about the same.
        (_, Place::Condition(outer)) => Place::Condition(outer),
    }
}

/// Turns what OpenAPI says in words of its own into JSON Schema's.
fn restate(out: &mut Map<String, Value>, place: Place<'_>) {
    for keyword in DESCRIBING {
        out.remove(keyword);
    }
    let mut take = |keyword: &str| out.remove(keyword) == Some(Value::Bool(true));
    let (nullable, int_or_string, preserve) = (take("nullable"), take(INT_OR_STRING), take(PRESERVE));
    if int_or_string {
        out.insert("type".to_owned(), json!(["integer", "string"]));
    }
    if nullable {
        let types = match out.remove("type") {
            Some(Value::Array(types)) => types,
            Some(one) => vec![one],
            None => Vec::new(),
        };
        if !types.is_empty() {
            let types: Vec<Value> = types.into_iter().chain([json!("null")]).collect();
            out.insert("type".to_owned(), types.into());
        }
    }
    for (flag, limit) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        if out.remove(flag) == Some(Value::Bool(true))
            && let Some(value) = out.remove(limit)
        {
            out.insert(flag.to_owned(), value);
        }
    }
    let closed = out.contains_key("properties") && !out.contains_key("additionalProperties") && !preserve;
    if closed && matches!(place, Place::Structure) {
        out.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
}

impl Shape {
    /// What the value should be, if it is not.
    fn refuses(self, value: &Value) -> Option<String> {
        let fits = match self {
            Self::Any => true,
            Self::Text | Self::Pattern => value.is_string(),
            Self::Flag => value.is_boolean(),
            Self::Number => value.is_number(),
            Self::Divisor => value.as_f64().is_some_and(|n| n > 0.0),
            Self::Count => value.is_u64(),
            Self::Type => value.as_str().is_some_and(|text| TYPES.contains(&text)),
            Self::Names => value.as_array().is_some_and(|all| all.iter().all(Value::is_string) && differ(all)),
            Self::Values => value.as_array().is_some_and(|all| !all.is_empty() && differ(all)),
            Self::Schema | Self::Schemas => value.is_object(),
            Self::SchemaOrFlag => value.is_object() || value.is_boolean(),
            Self::Alternatives => value.as_array().is_some_and(|all| (1..=ALTERNATIVES_MAX).contains(&all.len())),
        };
        let wanted = match self {
            Self::Any => "anything".to_owned(),
            Self::Text => "a string".to_owned(),
            Self::Pattern => "a regular expression".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Number => "a number".to_owned(),
            Self::Divisor => "a number above 0".to_owned(),
            Self::Count => "an integer, 0 or more".to_owned(),
            Self::Type => TYPES.join(", "),
            Self::Names => "a list of names, each once".to_owned(),
            Self::Values => "a list of one or more values, each once".to_owned(),
            Self::Schema => "a schema".to_owned(),
            Self::SchemaOrFlag => "a schema, true or false".to_owned(),
            Self::Schemas => "an object with a schema for each property".to_owned(),
            Self::Alternatives => format!("a list of 1 to {ALTERNATIVES_MAX} schemas"),
        };
        (!fits).then_some(wanted)
    }
}

/// Is nothing in the list twice?
fn differ(values: &[Value]) -> bool {
    let mut texts: Vec<String> = values.iter().map(Value::to_string).collect();
    texts.sort_unstable();
    texts.windows(2).all(|pair| pair[0] != pair[1])
}
