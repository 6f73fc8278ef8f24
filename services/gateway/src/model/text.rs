//! Texts of others, cut: the model holds very many of them.

use push0_domain::message::EndReason;

/// Longest text of a line that people read, in bytes.
pub(super) const LINE_MAX: usize = 512;

/// Returns the beginning of a text, of whole characters.
pub(crate) fn cut(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}

/// Returns the end of a text, of whole characters: the last lines of an error say most.
pub(crate) fn end(text: &str, bytes: usize) -> String {
    text[text.ceil_char_boundary(text.len().saturating_sub(bytes))..].to_owned()
}

/// Returns a reason whose text is short.
pub(super) fn short(reason: &EndReason) -> EndReason {
    match reason {
        EndReason::Cancelled { note } => EndReason::Cancelled {
            note: cut(note, LINE_MAX),
        },
        EndReason::Refused { dead_letter, reason } => EndReason::Refused {
            dead_letter: cut(dead_letter, LINE_MAX),
            reason: cut(reason, LINE_MAX),
        },
        EndReason::Reorged | EndReason::DeadlinePassed | EndReason::OutOfReach => reason.clone(),
    }
}

/// Returns how many bytes the text of a reason has.
pub(super) fn bytes_of(reason: &EndReason) -> usize {
    match reason {
        EndReason::Cancelled { note } => note.len(),
        EndReason::Refused { dead_letter, reason } => dead_letter.len() + reason.len(),
        EndReason::Reorged | EndReason::DeadlinePassed | EndReason::OutOfReach => 0,
    }
}
