//! The list of rules.
use super::*;

#[test]
fn every_rule_is_listed_once_and_in_the_book() {
    let book = include_str!("../../../../book/src/reference/validation.md");
    let mut seen = BTreeSet::new();
    for (code, text) in RULES {
        assert!(seen.insert(code), "{code} is listed twice");
        assert!(!text.is_empty() && code.bytes().all(|b| b.is_ascii_alphanumeric()), "{code}");
        let line = format!("| `{code}` | {text} |");
        assert!(book.contains(&line), "book/src/reference/validation.md lacks the line {line}");
    }
}
