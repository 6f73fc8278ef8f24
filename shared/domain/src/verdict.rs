//! The verdict of a verifying program, in its exit code and on its stdout.
//!
//! A crash must not pass for a verdict: a Python script that raises ends with 1, a Rust program that panics with
//! 101, a wrong command line with 2 or 64, a missing program with 127. So a false proof takes two signs that no
//! crash gives together, an exit code and a line of words. A program that ends well without a line has accepted
//! the proof.
//!
//! | exit code | stdout | verdict |
//! |---|---|---|
//! | 0 | the line `push0: valid`, or no line that begins with `push0: ` | valid |
//! | 65 | the line `push0: invalid: REASON` | false |
//! | any other pair | | none |

/// Exit code of a program that refuses a proof (`EX_DATAERR`).
pub const INVALID_CODE: u8 = 65;
/// The line of a program that accepts a proof.
pub const VALID: &str = "push0: valid";
/// The begin of the line of a program that refuses a proof; the reason follows.
pub const INVALID: &str = "push0: invalid";

/// Returns the line with which a program refuses a proof.
pub fn invalid_line(reason: &str) -> String {
    let words: Vec<&str> = reason.split_whitespace().collect();
    format!("{INVALID}: {}", words.join(" "))
}

/// Reads the verdict of a program from its exit code (`None` if a signal ended it) and its stdout: `Ok` for a
/// valid proof, the reason for a false one, `None` for no verdict.
pub fn of_program(code: Option<i32>, stdout: &str) -> Option<Result<(), String>> {
    let said: Vec<&str> = stdout
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("push0: "))
        .collect();
    match (code, &said[..]) {
        (Some(0), said) if said.iter().all(|line| *line == VALID) => Some(Ok(())),
        (Some(code), [line]) if code == i32::from(INVALID_CODE) => {
            let reason = line.strip_prefix(INVALID)?;
            let reason = match reason.strip_prefix(':') {
                Some(reason) => reason.trim(),
                None if reason.is_empty() => "",
                None => return None,
            };
            let given = if reason.is_empty() {
                "the verifier gave no reason"
            } else {
                reason
            };
            Some(Err(given.to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_word_is_a_verdict() {
        let refused = |reason: &str| Some(Err(reason.to_owned()));
        assert_eq!(of_program(Some(0), ""), Some(Ok(())));
        assert_eq!(of_program(Some(0), "log\npush0: valid\n"), Some(Ok(())));
        assert_eq!(
            of_program(Some(65), "log\n push0: invalid: wrong parent \nmore\n"),
            refused("wrong parent")
        );
        assert_eq!(
            of_program(Some(65), "push0: invalid"),
            refused("the verifier gave no reason")
        );
    }

    #[test]
    fn no_crash_is_a_verdict() {
        for code in [1, 2, 64, 65, 70, 101, 126, 127, 134, 137, 139, 255] {
            assert_eq!(
                of_program(Some(code), "Traceback (most recent call last)"),
                None,
                "{code}"
            );
            assert_eq!(of_program(Some(code), VALID), None, "{code}");
        }
        for code in [0, 1, 2, 101] {
            assert_eq!(of_program(Some(code), "push0: invalid: no"), None, "{code}");
        }
        assert_eq!(of_program(None, "push0: invalid: no"), None);
        assert_eq!(of_program(None, VALID), None);
        assert_eq!(of_program(Some(65), "push0: invalidated"), None);
        assert_eq!(of_program(Some(65), "push0: valid\npush0: invalid: no"), None);
        assert_eq!(of_program(Some(0), "push0: valid\npush0: invalid: no"), None);
    }

    #[test]
    fn a_reason_of_several_lines_is_one_line() {
        assert_eq!(invalid_line("a\n b\r\nc"), "push0: invalid: a b c");
        assert_eq!(
            of_program(Some(65), &invalid_line("a\nb")),
            Some(Err("a b".into()))
        );
    }
}
