//! `parametersSchema` of an AnnouncerClass: what it may be, and what it says of parameters.
//!
//! It is an OpenAPI v3 structural schema, as in a CustomResourceDefinition. [`structure`] checks that and turns it into a JSON Schema,
//! which is what parameters are checked with; [`words`] says what is wrong with them. Nothing is ever loaded from anywhere.
mod structure;
mod words;

use std::sync::Arc;

use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::Value;

use super::{check::Report, json};

/// The field with the schema.
const SCHEMA_AT: &str = "spec.parametersSchema";
/// Largest schema, octets of JSON: some hundred parameters with a description each.
const SCHEMA_LEN_MAX: usize = 64 * 1024;
/// Largest compiled pattern, octets. Together with [`structure::PATTERNS_MAX`] it bounds what a class costs in memory.
const PATTERN_SIZE_MAX: usize = 512 * 1024;
/// Problems told of the parameters of one Advertisement; who has more mends these first.
const VIOLATIONS_MAX: usize = 100;

/// A schema, ready to be asked.
#[derive(Debug)]
pub(super) struct Schema {
    /// As canonical JSON.
    pub(super) text: Arc<str>,
    /// The JSON Schema that it was turned into.
    translated: Value,
    validator: Validator,
}

impl Schema {
    /// Reads the schema of a class; what is wrong is reported. `known` is returned if it is the same.
    pub(super) fn read(written: Option<&Value>, known: Option<Arc<Self>>, report: &mut Report) -> Option<Arc<Self>> {
        let text = json::canonical_object(report, SCHEMA_AT, written, SCHEMA_LEN_MAX)?;
        if let Some(known) = known.filter(|known| *known.text == *text) {
            return Some(known);
        }
        let translated = structure::translate(SCHEMA_AT, written?, report)?;
        match compile(&translated) {
            Ok(validator) => Some(Arc::new(Self { text: text.into(), translated, validator })),
            Err(error) => {
                let segments = error.instance_path().iter().map(|segment| segment.to_string());
                let field = json::path_of(SCHEMA_AT, &translated, segments);
                let message = format!("is not a schema: {}", json::cut(&error.masked().to_string()));
                report.error("schemaInvalid", field, json::shown(error.instance()), message, "");
                None
            }
        }
    }

    /// Reports everything that is wrong with the parameters `value`, which stand at `path`, by the schema of `class`.
    pub(super) fn check(&self, path: &str, value: &Value, class: &str, report: &mut Report) {
        for error in self.validator.iter_errors(value).take(VIOLATIONS_MAX) {
            words::tell(&error, path, value, (&self.translated, class), report);
        }
    }
}

/// A pattern is matched in time that grows with the text, whatever it is; formats are checked where they are known.
fn compile(schema: &Value) -> Result<Validator, ValidationError<'static>> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .offline()
        .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_SIZE_MAX).dfa_size_limit(PATTERN_SIZE_MAX))
        .should_validate_formats(true)
        .with_format("cidr", |text: &str| text.parse::<ipnet::IpNet>().is_ok())
        .build(schema)
}
