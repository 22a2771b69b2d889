//! Text from elsewhere made harmless: no control characters, nothing invisible, and never longer than allowed.
//!
//! Log lines, error texts and a model's words end up on terminals, in prompts and in files that people read. What
//! cannot be seen there (escape sequences, direction overrides, zero-width and tag characters) is taken out.

use serde_json::Value;

/// The text without control characters (line feeds and tabs stay) and without invisible ones.
pub(crate) fn plain(text: &str) -> String {
    text.chars().filter(|c| !is_hidden(*c)).collect()
}

/// The text on one line, at most `bytes_max` long.
pub(crate) fn one_line(text: &str, bytes_max: usize) -> String {
    let flat: String = plain(text)
        .chars()
        .map(|c| if c == '\n' || c == '\t' { ' ' } else { c })
        .collect();
    cut(flat.trim(), bytes_max)
}

/// The text, cut to at most `bytes_max` bytes between characters; what is left out is counted at its end.
pub(crate) fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    // The note has at most 20 digits and 20 bytes of words.
    let keep = text.floor_char_boundary(bytes_max.saturating_sub(40));
    let note = format!("… [{} bytes left out]", text.len() - keep);
    if note.len() + keep <= bytes_max {
        format!("{}{note}", &text[..keep])
    } else {
        text[..text.floor_char_boundary(bytes_max)].to_owned()
    }
}

/// The value with every text and every key passed through `change`.
pub(crate) fn every_text(value: &Value, change: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(s) => Value::String(change(s)),
        Value::Array(items) => items.iter().map(|v| every_text(v, change)).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(k, v)| (change(k), every_text(v, change)))
            .collect(),
        other => other.clone(),
    }
}

fn is_hidden(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(c,
            '\u{ad}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_cannot_be_seen_is_taken_out() {
        assert_eq!(
            plain("a\u{1b}[31mb\u{202e}c\u{e0041}\r\n\td\0"),
            "a[31mbc\n\td"
        );
        assert_eq!(one_line(" two\nlines \r\n", 100), "two lines");
    }

    proptest! {
        #[test]
        fn a_cut_text_is_never_longer_than_allowed(text in ".*", max in 0_usize..200) {
            let out = cut(&text, max);
            prop_assert!(out.len() <= max);
            if text.len() <= max { prop_assert_eq!(out, text); }
        }
    }
}
