//! Command-line arguments with placeholders.

use std::{ffi::OsString, path::Path};

/// Placeholders allowed in any argument.
pub(crate) const ABOUT_BLOCK: [&str; 6] = [
    "block_number",
    "block_hash",
    "first_number",
    "first_hash",
    "parent_hash",
    "program_id",
];

/// Splits a template into pieces, each a text and the name of the placeholder after it. Braces around
/// anything but a name are text.
fn pieces(template: &str) -> Vec<(&str, Option<&str>)> {
    let mut pieces = Vec::new();
    let (mut text_from, mut look_from) = (0, 0);
    while let Some(open) = template[look_from..].find('{').map(|at| look_from + at) {
        let rest = &template[open + 1..];
        let len = rest
            .find(|c: char| !c.is_ascii_lowercase() && c != '_')
            .unwrap_or(rest.len());
        if len > 0 && rest[len..].starts_with('}') {
            pieces.push((&template[text_from..open], Some(&rest[..len])));
            text_from = open + len + 2;
            look_from = text_from;
        } else {
            look_from = open + 1;
        }
    }
    pieces.push((&template[text_from..], None));
    pieces
}

/// Returns the first placeholder that is neither in `files` nor in [`ABOUT_BLOCK`].
pub(crate) fn unknown<'a>(template: &'a str, files: &[&str]) -> Option<&'a str> {
    let names = pieces(template).into_iter().filter_map(|(_, name)| name);
    names
        .into_iter()
        .find(|name| !files.contains(name) && !ABOUT_BLOCK.contains(name))
}

/// Values of the placeholders for one call.
pub(crate) struct Values<'a> {
    pub(crate) files: &'a [(&'a str, &'a Path)],
    /// Values in the order of [`ABOUT_BLOCK`].
    pub(crate) about: [String; ABOUT_BLOCK.len()],
}

impl Values<'_> {
    pub(crate) fn fill(&self, template: &str) -> OsString {
        let mut filled = OsString::new();
        for (text, name) in pieces(template) {
            filled.push(text);
            let Some(name) = name else { continue };
            if let Some((_, path)) = self.files.iter().find(|(file, _)| *file == name) {
                filled.push(path);
            } else if let Some(at) = ABOUT_BLOCK.iter().position(|known| *known == name) {
                filled.push(&self.about[at]);
            }
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_once_and_other_braces_stay() {
        let values = Values {
            files: &[("input", Path::new("/tmp/{output}"))],
            about: ["7", "0xab", "5", "0x12", "0xcd", ""].map(String::from),
        };
        assert_eq!(values.fill("--in={input}"), "--in=/tmp/{output}");
        assert_eq!(
            values.fill("{block_number}:{block_hash}:{program_id}."),
            "7:0xab:."
        );
        assert_eq!(values.fill(r#"{"a": {}}{"#), r#"{"a": {}}{"#);
        assert_eq!(values.fill("{{input}}"), "{/tmp/{output}}");
    }

    #[test]
    fn an_unknown_placeholder_is_found() {
        assert_eq!(unknown("--x={inptu}", &["input"]), Some("inptu"));
        assert_eq!(unknown("{proof}", &["input", "output"]), Some("proof"));
        assert_eq!(
            unknown(r#"{input} {parent_hash} {"json": 1} {1}"#, &["input"]),
            None
        );
    }
}
