//! Splits the text of a manifest file into documents, so that each is read by itself and a fault has a line.
use serde_json::Value;

/// YAML nodes of one document at most: a List of every Service of a large cluster has a few million.
const NODES_MAX: usize = 20_000_000;
/// Octets of text in one document at most: as much as a file may have.
const TEXT_LEN_MAX: usize = super::FILE_LEN_MAX_USIZE;

/// One document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// The line it begins at, counted from 1.
    pub(super) line: u64,
    /// Its text.
    pub(super) text: &'a str,
}

/// The documents of a file. A line of `---` begins one, one of `...` ends one; YAML allows neither inside of a document, not even in
/// a text. Source: YAML 1.2.2 §9.1.2.
pub(super) fn documents(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 1, 0);
    let mut only_directives = true;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let marks = |marker: &str| {
            line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
        };
        if marks("---") && !(only_directives && has_directive(&text[start..at])) {
            found.push(Document { line: start_line, text: &text[start..at] });
            (start, start_line) = (at, number);
            only_directives = true;
        } else if marks("...") {
            found.push(Document { line: start_line, text: &text[start..at] });
            (start, start_line) = (at + line.len(), number + 1);
            only_directives = true;
        }
        let words = line.trim();
        only_directives &= words.is_empty() || words.starts_with('#') || line.starts_with('%');
        at += line.len();
    }
    found.push(Document { line: start_line, text: &text[start..] });
    found.retain(|document| !is_blank(document.text));
    found
}

fn has_directive(text: &str) -> bool {
    text.lines().any(|line| line.starts_with('%'))
}

/// Nothing but comments and empty lines?
fn is_blank(text: &str) -> bool {
    text.lines().all(|line| {
        let words = line.strip_prefix("---").unwrap_or(line).trim();
        words.is_empty() || words.starts_with('#')
    })
}

/// A document that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// The line in the file.
    pub(super) line: u64,
    /// What is wrong.
    pub(super) message: String,
}

/// Does a word consist of a y or an n alone? `kubectl` takes these for texts, but yes, no, on and off for booleans; what reads YAML here
/// takes all of them for booleans, or none.
fn has_letter_of_doubt(text: &str) -> bool {
    let ends = |c: char| c.is_whitespace() || matches!(c, ',' | ':' | '{' | '}' | '[' | ']');
    text.split(ends).any(|word| matches!(word, "y" | "Y" | "n" | "N"))
}

fn options(text: &str) -> serde_saphyr::Options {
    let mut budget = serde_saphyr::Budget::default();
    (budget.max_events, budget.max_nodes) = (2 * NODES_MAX, NODES_MAX);
    budget.max_total_scalar_bytes = TEXT_LEN_MAX;
    let mut options = serde_saphyr::Options::default();
    options.budget = Some(budget);
    options.with_snippet = false;
    options.strict_booleans = has_letter_of_doubt(text);
    options
}

impl Document<'_> {
    /// Reads it.
    pub(super) fn value(&self) -> Result<Value, Fault> {
        if self.text.trim_start().starts_with('{')
            && let Ok(value) = serde_json::from_str(self.text)
        {
            return Ok(value); // JSON, which reads faster as such
        }
        self.decode("not YAML: ")
    }

    /// Reads it as a `T`, so that the fault, if there is one, has the line of the field.
    pub(super) fn decode<T: serde::de::DeserializeOwned>(&self, what: &str) -> Result<T, Fault> {
        serde_saphyr::from_str_with_options(self.text, options(self.text)).map_err(|error| {
            let within = error.location().map_or(1, |location| location.line().max(1));
            Fault { line: self.line + within - 1, message: format!("{what}{}", plain(&error.to_string())) }
        })
    }
}

/// An error's text on one line and without its place, which is told in front of it.
fn plain(text: &str) -> String {
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    match line.split_once(": ") {
        Some((place, rest)) if place.starts_with("line ") => rest.to_owned(),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(u64, String)> {
        documents(text).iter().map(|d| (d.line, d.text.trim_end().to_owned())).collect()
    }

    #[test]
    fn documents_are_split_at_their_markers_with_their_lines() {
        for (text, want) in [
            ("a: 1\n", vec![(1, "a: 1")]),
            ("---\na: 1\n---\nb: 2\n", vec![(1, "---\na: 1"), (3, "---\nb: 2")]),
            ("# head\n---\na: 1\n", vec![(2, "---\na: 1")]),
            (
                "--- # first\na: 1\n--- \n\n---\nb: |\n  ---\n  x\n",
                vec![(1, "--- # first\na: 1"), (5, "---\nb: |\n  ---\n  x")],
            ),
            ("%YAML 1.2\n---\na: 1\n...\nb: 2\n", vec![(1, "%YAML 1.2\n---\na: 1"), (5, "b: 2")]),
            ("a: ----\n---x: 1\n", vec![(1, "a: ----\n---x: 1")]),
            ("\u{feff}a: 1\r\n---\r\nb: 2\r\n", vec![(1, "a: 1"), (2, "---\r\nb: 2")]),
            ("# nothing\n\n---\n# nothing\n", vec![]),
        ] {
            let want: Vec<(u64, String)> = want.into_iter().map(|(line, text)| (line, text.to_owned())).collect();
            assert_eq!(lines(text), want, "{text:?}");
        }
    }

    #[test]
    fn single_letters_are_texts_and_words_are_booleans_as_kubectl_has_it() {
        let read = |text: &str| documents(text)[0].value().unwrap().to_string();
        assert_eq!(read("a: n\nb: {c: y, d: true}\n"), r#"{"a":"n","b":{"c":"y","d":true}}"#);
        assert_eq!(read("a: no\nb: on\n"), r#"{"a":false,"b":true}"#);
    }

    #[test]
    fn fault_has_the_line_in_the_file() {
        let text = "a: 1\n---\nb: 2\nc: [\nd: 3\n";
        let documents = documents(text);
        assert!(documents[0].value().is_ok());
        let fault = documents[1].value().unwrap_err();
        assert!((4..=6).contains(&fault.line), "{fault:?}");
        assert!(fault.message.starts_with("not YAML: ") && !fault.message.contains('\n'), "{fault:?}");
        let of_type =
            super::documents("x: 1\n---\n{a: 1,\n b: 2}\n")[1].decode::<std::collections::BTreeMap<String, bool>>("");
        assert_eq!(of_type.unwrap_err().line, 3);
    }
}
