//! YAML with the place of every value, so that a message can say where something stands.
use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

/// Where something stands, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: u64,
    /// Column.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Where.
    pub place: Place,
    /// What.
    pub value: Value,
}

/// A YAML value.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing.
    Null,
    /// A scalar; numbers and booleans as they are written in YAML 1.2's canonical form.
    Scalar(String),
    /// A list.
    List(Vec<Tree>),
    /// Keys in their order.
    Map(Vec<(Tree, Tree)>),
}

impl Value {
    /// What it is, in a user's words.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "fields",
        }
    }
}

impl Tree {
    /// Reads one document.
    ///
    /// # Errors
    /// If it is no YAML: in words, with the place.
    pub fn read(text: &str) -> Result<Self, String> {
        let tree: Spanned<Value> = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        Ok(Self::from(tree))
    }

    /// Reads every document of a file; empty ones are left out.
    ///
    /// # Errors
    /// If it is no YAML: in words, with the place.
    pub fn read_all(text: &str) -> Result<Vec<Self>, String> {
        let trees: Vec<Spanned<Value>> = serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
        Ok(trees.into_iter().map(Self::from).filter(|tree| !matches!(tree.value, Value::Null)).collect())
    }

    /// The text of a scalar.
    #[must_use]
    pub fn scalar(&self) -> Option<&str> {
        if let Value::Scalar(text) = &self.value { Some(text) } else { None }
    }

    /// The text at a path of keys; empty if there is none.
    #[must_use]
    pub fn text_at(&self, path: &[&str]) -> &str {
        let found = path.iter().try_fold(self, |tree, key| tree.get(key));
        found.and_then(Self::scalar).unwrap_or_default()
    }

    /// The value of a key of a map.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|(k, _)| k.scalar() == Some(key)).map(|(_, value)| value)
    }
}

impl From<Spanned<Value>> for Tree {
    fn from(spanned: Spanned<Value>) -> Self {
        let (line, column) = (spanned.referenced.line(), spanned.referenced.column());
        Self { place: Place { line, column }, value: spanned.value }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Scalar(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Value>>()? {
            list.push(item.into());
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = items.next_entry::<Spanned<Value>, Spanned<Value>>()? {
            entries.push((key.into(), value.into()));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_and_key_has_its_place() {
        let tree = Tree::read("a: 1\nb:\n- c: x:y\n  d:\n- [true, ~]\n").unwrap();
        assert_eq!(tree.get("a").unwrap().place, Place { line: 1, column: 4 });
        let Value::Map(entries) = &tree.value else { panic!("{tree:?}") };
        assert_eq!(entries[1].0.place, Place { line: 2, column: 1 });
        let Value::List(items) = &entries[1].1.value else { panic!("{tree:?}") };
        assert_eq!(items[0].get("c").unwrap().scalar(), Some("x:y"));
        assert_eq!(items[0].get("c").unwrap().place, Place { line: 3, column: 6 });
        assert!(matches!(items[0].get("d").unwrap().value, Value::Null));
        assert!(Tree::read("a: [").is_err());
    }
}
