//! Texts of programs: the verdict of a verifier, the lines for a terminal, and the tail in a failure.
#![no_main]

use libfuzzer_sys::fuzz_target;
use push0_domain::{
    message::{TEXT_LEN_MAX, clip},
    plain::{one_line, plain},
    verdict,
};
use push0_fuzz::seeds;

fn read(text: &str) {
    for code in [None, Some(0), Some(1), Some(i32::from(verdict::INVALID_CODE))] {
        match verdict::of_program(code, text) {
            Some(Ok(())) => assert_eq!(code, Some(0)),
            Some(Err(reason)) => {
                assert_eq!(code, Some(i32::from(verdict::INVALID_CODE)));
                assert!(!reason.is_empty() && !reason.contains('\n'));
            }
            None => assert_ne!(code.filter(|_| text.is_empty()), Some(0)),
        }
    }
    // A text of any lines is a reason on one line.
    let told = verdict::invalid_line(text);
    let refused = verdict::of_program(Some(i32::from(verdict::INVALID_CODE)), &told);
    assert!(matches!(refused, Some(Err(_))), "{told:?} is no verdict");
    let shown = plain(text);
    assert!(shown.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')));
    assert_eq!(plain(&shown), shown);
    assert!(!one_line(text).contains(['\n', '\t']));
    let kept = clip(text);
    assert!(kept.len() <= TEXT_LEN_MAX && text.ends_with(&kept));
}

fuzz_target!(
    init: seeds::write(
        ["push0: valid\n", "log\npush0: invalid: wrong parent\n", "\u{1b}[1;31mERROR\u{1b}[0m\r\n\u{202e}"]
            .map(|text| text.as_bytes().to_vec())
    ),
    |text: &str| read(text)
);
