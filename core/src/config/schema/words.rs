//! What is wrong with parameters, in their author's words.
use jsonschema::{
    JsonType, ValidationError,
    error::{TypeKind, ValidationErrorKind},
};
use serde_json::Value;

use crate::config::{check::Report, json};

/// Names and values listed in a suggestion; the schema has the rest.
const LISTED_MAX: usize = 12;
/// The rule that all of this is about.
const RULE: &str = "parametersInvalid";

/// Reports one violation of a schema by `root`, which stands at `path`.
pub(super) fn tell(
    error: &ValidationError<'_>,
    path: &str,
    root: &Value,
    (schema, class): (&Value, &str),
    report: &mut Report,
) {
    let at = json::path_of(path, root, error.instance_path().iter().map(|segment| segment.to_string()));
    let value = error.instance();
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let suggestion = match listed(schema, error.schema_path().as_str()) {
                Some(names) => format!("write {names}"),
                None => "leave it out".to_owned(),
            };
            let message = format!("the AnnouncerClass {class:?} has no such parameter");
            for name in unexpected {
                let shown = value.get(name).map(json::shown).unwrap_or_default();
                report.error(RULE, json::field(&at, name), shown, message.as_str(), suggestion.as_str());
            }
        }
        ValidationErrorKind::Required { property } => {
            let at = json::field(&at, property.as_str().unwrap_or_default());
            let message = format!("the AnnouncerClass {class:?} requires it");
            report.error(RULE, at, "", message, "write it");
        }
        kind => {
            let (message, suggestion) = words(kind, value);
            report.error(RULE, at, json::shown(value), message, suggestion);
        }
    }
}

/// The properties beside the `additionalProperties` at this place of the schema.
fn listed(schema: &Value, pointer: &str) -> Option<String> {
    let (parent, _) = pointer.rsplit_once('/')?;
    let properties = schema.pointer(parent)?.get("properties")?.as_object()?;
    one_of(properties.keys().map(|name| json::cut(name)))
}

/// `a, b or c`; `None` if there is nothing.
fn one_of(items: impl Iterator<Item = String>) -> Option<String> {
    let mut items: Vec<String> = items.collect();
    let more = items.len() > LISTED_MAX;
    items.truncate(LISTED_MAX);
    let last = if more { "another that the schema lists".to_owned() } else { items.pop()? };
    Some(if items.is_empty() { last } else { format!("{} or {last}", items.join(", ")) })
}

/// What is wrong, and what to write instead.
fn words(kind: &ValidationErrorKind, value: &Value) -> (String, String) {
    use ValidationErrorKind as Kind;
    let or = |limit: &Value, side: &str| format!("write {limit} or {side}");
    match kind {
        Kind::Type { kind } => (format!("is {}", json::kind(value)), format!("write {}", types(kind))),
        Kind::Enum { options } => {
            let options = options.as_array().map(|all| one_of(all.iter().map(json::shown))).unwrap_or_default();
            ("is not one of the values allowed".to_owned(), format!("write {}", options.unwrap_or_default()))
        }
        Kind::Minimum { limit } => ("is too small".to_owned(), or(limit, "more")),
        Kind::Maximum { limit } => ("is too large".to_owned(), or(limit, "less")),
        Kind::ExclusiveMinimum { limit } => ("is too small".to_owned(), format!("write more than {limit}")),
        Kind::ExclusiveMaximum { limit } => ("is too large".to_owned(), format!("write less than {limit}")),
        Kind::MultipleOf { multiple_of } => {
            (format!("is not a multiple of {multiple_of}"), format!("write a multiple of {multiple_of}"))
        }
        Kind::MinLength { limit } => ("is too short".to_owned(), format!("write {limit} characters or more")),
        Kind::MaxLength { limit } => ("is too long".to_owned(), format!("write at most {limit} characters")),
        Kind::Pattern { pattern } => {
            ("is not of the form allowed".to_owned(), format!("write what matches {}", json::cut(pattern)))
        }
        Kind::Format { format } => (format!("is not of the format {format}"), example(format)),
        Kind::MinItems { limit } => ("has too few entries".to_owned(), format!("write {limit} or more")),
        Kind::MaxItems { limit } => ("has too many entries".to_owned(), format!("write at most {limit}")),
        Kind::UniqueItems => ("has an entry twice".to_owned(), "write each once".to_owned()),
        Kind::MinProperties { limit } => ("has too few fields".to_owned(), format!("write {limit} or more")),
        Kind::MaxProperties { limit } => ("has too many fields".to_owned(), format!("write at most {limit}")),
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => {
            ("fits none of the alternatives of the schema".to_owned(), alternatives(context))
        }
        Kind::OneOfMultipleValid { .. } => {
            ("fits more than one of the alternatives of the schema".to_owned(), "write what fits only one".to_owned())
        }
        Kind::Not { .. } => ("is what the schema excludes".to_owned(), String::new()),
        other => (format!("breaks the rule {} of the schema", other.keyword()), String::new()),
    }
}

/// What each alternative lacks first.
fn alternatives(context: &[Vec<ValidationError<'static>>]) -> String {
    let first = |errors: &Vec<ValidationError<'static>>| {
        let error = errors.first()?;
        Some(match error.kind() {
            ValidationErrorKind::Required { property } => format!("write {}", property.as_str().unwrap_or_default()),
            kind => words(kind, error.instance()).1,
        })
    };
    let mut all: Vec<String> = context.iter().filter_map(first).filter(|text| !text.is_empty()).collect();
    all.dedup();
    all.truncate(LISTED_MAX);
    all.join("; or ")
}

/// What a value of the format looks like.
fn example(format: &str) -> String {
    let example = match format {
        "cidr" => "192.0.2.0/24",
        "ipv4" => "192.0.2.1",
        "ipv6" => "2001:db8::1",
        "date-time" => "2026-01-31T12:00:00Z",
        "date" => "2026-01-31",
        "hostname" => "router.example.com",
        "uri" => "https://router.example.com/",
        "email" => "somebody@example.com",
        _ => return String::new(),
    };
    format!("write it as in {example}")
}

fn types(kind: &TypeKind) -> String {
    let name = |of: JsonType| match of {
        JsonType::Null => "null",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "an integer",
        JsonType::Number => "a number",
        JsonType::String => "a string",
        JsonType::Array => "a list",
        JsonType::Object => "an object",
    };
    let all: Vec<&str> = match kind {
        TypeKind::Single(one) => vec![name(*one)],
        TypeKind::Multiple(several) => several.into_iter().map(name).collect(),
    };
    all.join(" or ")
}
