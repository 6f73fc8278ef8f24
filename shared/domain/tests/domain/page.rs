//! The page docs/protocol.md, whose examples refer to common parts shown once.

/// The text of the page.
pub(crate) const PAGE: &str = include_str!("../../../../docs/protocol.md");

/// Common parts: the field that holds the part, and the type under which the page shows the part. A part is
/// listed before the parts that it contains.
const PARTS: [(&str, &str); 3] = [
    ("header", "TaskHeader"),
    ("stage", "StageKey"),
    ("context", "BlockContext"),
];

/// Returns an example with the common parts in place of each `{…}`.
pub(crate) fn fill_in(example: &str) -> String {
    let fill = |text: String, (field, kind): (&str, &str)| {
        let part = first_example(kind).unwrap_or_default();
        text.replace(&format!("\"{field}\": {{…}}"), &format!("\"{field}\": {part}"))
    };
    PARTS.into_iter().fold(example.to_owned(), fill)
}

/// Returns the page's first JSON example of a type, as the page shows it.
pub(crate) fn first_example(kind: &str) -> Option<&'static str> {
    let (_, rest) = PAGE.split_once(&format!("```json {kind}\n"))?;
    rest.split_once("```").map(|(example, _)| example.trim_end())
}
