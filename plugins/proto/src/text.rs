//! Texts for people: of bounded length, and nothing but text.

/// Cuts a text to at most `len_max` octets, between two characters.
#[must_use]
pub fn cut(mut text: String, len_max: usize) -> String {
    text.truncate(text.floor_char_boundary(len_max));
    text
}

/// A text of somebody who is not trusted: cut, and with spaces in place of control characters, which a terminal or a log would
/// obey. Whether something was cut off.
#[must_use]
pub fn clean(text: &str, len_max: usize) -> (String, bool) {
    let kept = &text[..text.floor_char_boundary(len_max)];
    let clean = kept.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    (clean, kept.len() < text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters_and_loses_control_characters() {
        assert_eq!(cut("grüße".to_owned(), 3), "gr");
        assert_eq!(cut("kurz".to_owned(), 100), "kurz");
        assert_eq!(clean("a\n\u{1b}[31mb", 100), ("a  [31mb".to_owned(), false));
        assert_eq!(clean("abc", 2), ("ab".to_owned(), true));
    }
}
