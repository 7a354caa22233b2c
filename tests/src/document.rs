//! Reading the JSON documents that Ferrocast prints and serves: what is missing is empty.

use std::collections::BTreeSet;

use serde_json::Value;

/// The rows of a part.
#[must_use]
pub fn rows<'a>(document: &'a Value, part: &str) -> &'a [Value] {
    document[part].as_array().map_or(&[], Vec::as_slice)
}

/// A text of a row.
#[must_use]
pub fn word(row: &Value, field: &str) -> String {
    row[field].as_str().unwrap_or_default().to_owned()
}

/// A list of texts, in no order.
#[must_use]
pub fn texts(value: &Value) -> BTreeSet<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
