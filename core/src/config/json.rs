//! JSON documents that users write into a field: how they are measured, named and put into one form.
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::check::Report;

/// How deep a document may be nested: what a person can follow, and far below what would exhaust a stack.
const DEPTH_MAX: usize = 64;
/// Longest piece of a value or a name that is quoted in a problem, characters: enough to recognise it.
const QUOTED_LEN_MAX: usize = 64;

/// A JSON object as canonical text: sorted keys, no spaces. `None` if it is not there or has been reported.
pub(super) fn canonical_object(
    report: &mut Report,
    field: &str,
    written: Option<&Value>,
    octets_max: usize,
) -> Option<String> {
    let value = written.filter(|value| !value.is_null())?;
    if is_deeper(value, DEPTH_MAX) {
        let message = format!("is nested more than {DEPTH_MAX} levels deep");
        report.error("tooLarge", field, "", message, "write it flatter");
        return None;
    }
    if !value.is_object() {
        let message = format!("is {}, not an object", kind(value));
        report.error("wrongType", field, shown(value), message, "write an object");
        return None;
    }
    let text = sorted(value).to_string();
    if text.len() > octets_max {
        let message = format!("has {} octets as JSON", text.len());
        report.error("tooLarge", field, "", message, format!("must have at most {octets_max}"));
        return None;
    }
    Some(text)
}

/// Is the value nested more than `levels` deep?
fn is_deeper(value: &Value, levels: usize) -> bool {
    let Some(left) = levels.checked_sub(1) else { return true };
    match value {
        Value::Array(items) => items.iter().any(|item| is_deeper(item, left)),
        Value::Object(fields) => fields.values().any(|field| is_deeper(field, left)),
        _ => false,
    }
}

/// The value with the keys of every object in order, whatever order its maps keep.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Object(fields) => {
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort_unstable();
            Value::Object(keys.into_iter().map(|key| (key.clone(), sorted(&fields[key]))).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

/// What kind of value it is, with its article.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The value as a problem quotes it: a string as it is, all else as JSON.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => cut(text),
        other => cut(&other.to_string()),
    }
}

/// The text, or its beginning if it is long.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(QUOTED_LEN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The path of a field of an object.
pub(super) fn field(path: &str, name: &str) -> String {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if plain { format!("{path}.{}", cut(name)) } else { format!("{path}[{:?}]", cut(name)) }
}

/// The path of what the segments of a JSON pointer lead to from `root`, which stands at `path`.
pub(super) fn path_of(path: &str, root: &Value, segments: impl Iterator<Item = String>) -> String {
    let (mut path, mut at) = (path.to_owned(), Some(root));
    for segment in segments {
        if let Some(Value::Array(items)) = at {
            // Writing to a String cannot fail.
            let _written = write!(path, "[{segment}]");
            at = segment.parse::<usize>().ok().and_then(|i| items.get(i));
        } else {
            path = field(&path, &segment);
            at = at.and_then(|value| value.get(&segment));
        }
    }
    path
}
