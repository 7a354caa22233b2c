//! Reading a tree strictly: every key that nobody asked for, and every value of the wrong shape, is reported with its place.
use std::{collections::BTreeSet, fmt};

use super::tree::{Place, Tree, Value};

/// One thing that was not understood, or understood but not kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// Where.
    pub place: Place,
    /// The path of the value, e.g. `peers[0].my-asn`.
    pub path: String,
    /// What, and what to do.
    pub message: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// What reading found.
#[derive(Debug, Default)]
pub struct Remarks {
    /// What is not understood: nothing is converted then.
    pub errors: Vec<Remark>,
    /// What is left out or changed.
    pub warnings: Vec<Remark>,
}

impl Remarks {
    /// Notes an error.
    pub fn error(&mut self, place: Place, path: &str, message: impl Into<String>) {
        self.errors.push(Remark { place, path: path.to_owned(), message: message.into() });
    }

    /// Notes a warning.
    pub fn warning(&mut self, place: Place, path: &str, message: impl Into<String>) {
        self.warnings.push(Remark { place, path: path.to_owned(), message: message.into() });
    }
}

/// The fields of one map, taken one by one; [`Fields::finish`] reports those that nobody took.
pub struct Fields<'a> {
    /// Path of the map.
    pub path: String,
    /// Where it stands.
    pub place: Place,
    entries: Vec<(&'a Tree, &'a Tree)>,
    known: BTreeSet<&'static str>,
}

impl<'a> Fields<'a> {
    /// The fields of `tree`; `None` (and an error) if it has none.
    pub fn of(tree: &'a Tree, path: &str, remarks: &mut Remarks) -> Option<Self> {
        let Value::Map(entries) = &tree.value else {
            remarks.error(tree.place, path, format!("expected fields, found {}", tree.value.kind()));
            return None;
        };
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for (key, _) in entries {
            match key.scalar() {
                Some(name) if !seen.insert(name) => {
                    remarks.error(key.place, path, format!("{name:?} stands here twice"))
                }
                Some(_) => {}
                None => remarks.error(key.place, path, "a field's name must be a text"),
            }
        }
        let entries = entries.iter().map(|(key, value)| (key, value)).collect();
        Some(Self { path: path.to_owned(), place: tree.place, entries, known: BTreeSet::new() })
    }

    /// The path of a field.
    #[must_use]
    pub fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Is the field there, with a value?
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(k, v)| k.scalar() == Some(key) && !matches!(v.value, Value::Null))
    }

    /// Where the field's name stands; of the map, if it is absent.
    #[must_use]
    pub fn place_of(&self, key: &str) -> Place {
        self.entries.iter().find(|(k, _)| k.scalar() == Some(key)).map_or(self.place, |(k, _)| k.place)
    }

    /// A field's value, if it is there and not null.
    pub fn take(&mut self, key: &'static str) -> Option<&'a Tree> {
        self.known.insert(key);
        let found = self.entries.iter().find(|(k, _)| k.scalar() == Some(key)).map(|(_, value)| *value)?;
        (!matches!(found.value, Value::Null)).then_some(found)
    }

    /// A text.
    pub fn text(&mut self, key: &'static str, remarks: &mut Remarks) -> Option<String> {
        let path = self.at(key);
        let value = self.take(key)?;
        let text = value.scalar();
        if text.is_none() {
            remarks.error(value.place, &path, format!("expected a text, found {}", value.value.kind()));
        }
        text.map(str::to_owned)
    }

    /// A whole number from `min` to `max`.
    pub fn number(&mut self, key: &'static str, (min, max): (i64, i64), remarks: &mut Remarks) -> Option<i64> {
        let path = self.at(key);
        let value = self.take(key)?;
        let number = value.scalar().and_then(|text| text.parse::<i64>().ok()).filter(|n| (min..=max).contains(n));
        if number.is_none() {
            let found = value.scalar().map_or_else(|| value.value.kind().to_owned(), |text| format!("{text:?}"));
            remarks.error(value.place, &path, format!("expected a whole number from {min} to {max}, found {found}"));
        }
        number
    }

    /// True or false.
    pub fn flag(&mut self, key: &'static str, remarks: &mut Remarks) -> Option<bool> {
        let path = self.at(key);
        let value = self.take(key)?;
        match value.scalar() {
            Some("true" | "yes" | "on") => Some(true),
            Some("false" | "no" | "off") => Some(false),
            _ => {
                remarks.error(value.place, &path, "expected true or false");
                None
            }
        }
    }

    /// The items of a list with their paths; none if the field is absent.
    pub fn list(&mut self, key: &'static str, remarks: &mut Remarks) -> Vec<(&'a Tree, String)> {
        let path = self.at(key);
        let Some(value) = self.take(key) else { return Vec::new() };
        let Value::List(items) = &value.value else {
            remarks.error(value.place, &path, format!("expected a list, found {}", value.value.kind()));
            return Vec::new();
        };
        items.iter().enumerate().map(|(i, item)| (item, format!("{path}[{i}]"))).collect()
    }

    /// The texts of a list with their places.
    pub fn texts(&mut self, key: &'static str, remarks: &mut Remarks) -> Vec<(String, Place)> {
        let mut texts = Vec::new();
        for (item, path) in self.list(key, remarks) {
            match item.scalar() {
                Some(text) => texts.push((text.to_owned(), item.place)),
                None => remarks.error(item.place, &path, format!("expected a text, found {}", item.value.kind())),
            }
        }
        texts
    }

    /// The pairs of a map of texts, with the places of the values.
    pub fn pairs(&mut self, key: &'static str, remarks: &mut Remarks) -> Vec<(String, String, Place)> {
        let path = self.at(key);
        let Some(value) = self.take(key) else { return Vec::new() };
        let Value::Map(entries) = &value.value else {
            remarks.error(value.place, &path, format!("expected names and values, found {}", value.value.kind()));
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (name, value) in entries {
            match (name.scalar(), value.scalar()) {
                (Some(name), Some(text)) => pairs.push((name.to_owned(), text.to_owned(), value.place)),
                _ => remarks.error(value.place, &path, "expected a text"),
            }
        }
        pairs
    }

    /// Reports every field that nobody took.
    pub fn finish(self, remarks: &mut Remarks) {
        for (key, _) in &self.entries {
            if let Some(name) = key.scalar().filter(|name| !self.known.contains(name)) {
                let known = self.known.iter().copied().collect::<Vec<_>>().join(", ");
                remarks.error(key.place, &self.path, format!("unknown field {name:?}: known here are {known}"));
            }
        }
    }
}
