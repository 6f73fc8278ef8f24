//! Text in a page of HTML.

/// Replaces the characters that HTML would read as markup.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}
