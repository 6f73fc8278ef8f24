//! The class of a failure: by exit code, by signal, by patterns on the output.

use crate::report::{End, Ended};
use nix::libc;
use push0_domain::message::FailureClass;
use regex::{Regex, RegexSet, RegexSetBuilder};
use serde::Deserialize;

/// Largest compiled set of patterns, in bytes.
const SET_BYTES_MAX: usize = 4 << 20;

/// Texts of common runtimes, by the class that they mean. Exit codes do not tell these failures apart: a GPU
/// that is out of memory ends a Rust program with 101 (panic) or 134 (abort), as any bug does.
const PRESETS: [(FailureClass, &[&str]); 2] = [
    (
        FailureClass::OutOfMemory,
        &[
            r"(?i)cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY|hipErrorOutOfMemory|hipErrorMemoryAllocation",
            r"(?i)\b(cuda|gpu|device|hip|vulkan|metal|opencl)\b[^\n]*\bout[ _-]of[ _-](device[ _-])?memory\b",
            r"(?i)\bout[ _-]of[ _-](device[ _-])?memory\b[^\n]*\b(cuda|gpu|device|hip|vulkan|metal|opencl)\b",
            r"VK_ERROR_OUT_OF_(DEVICE|HOST)_MEMORY|CL_MEM_OBJECT_ALLOCATION_FAILURE|kIOGPUCommandBufferCallbackErrorOutOfMemory",
            r"memory allocation of \d+ bytes failed",
            r"std::bad_alloc|java\.lang\.OutOfMemoryError|fatal error: runtime: out of memory",
            r"Cannot allocate memory|memory exhausted|^MemoryError",
        ],
    ),
    (
        FailureClass::Surroundings,
        &[
            r"No space left on device|Disk quota exceeded|Read-only file system|Too many open files",
            r"error while loading shared libraries",
            r"CUDA_ERROR_NO_DEVICE|cudaErrorNoDevice|no CUDA-capable device|cudaErrorInsufficientDriver|CUDA driver version is insufficient",
        ],
    ),
];

/// Exit codes with a special meaning.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExitCodes {
    /// Codes of permanent failures: no further attempt can succeed.
    pub fatal: Vec<i32>,
    /// Codes for lack of memory: a larger machine may succeed.
    pub out_of_memory: Vec<i32>,
    /// Codes for failed surroundings, which say nothing about the task.
    pub surroundings: Vec<i32>,
}

/// Regular expressions, by the class that a match means. The classes are asked in this order, then the
/// presets. Each pattern is matched against the last 64 KiB of stdout and of stderr.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Patterns {
    /// Another attempt may succeed: takes a text away from the presets.
    pub retryable: Vec<String>,
    /// No attempt can succeed.
    pub fatal: Vec<String>,
    /// A larger machine may succeed.
    pub out_of_memory: Vec<String>,
    /// The prover's surroundings failed.
    pub surroundings: Vec<String>,
    /// Whether the built-in patterns are asked as well. Default true.
    pub presets: bool,
}

impl Default for Patterns {
    fn default() -> Self {
        Self {
            retryable: Vec::new(),
            fatal: Vec::new(),
            out_of_memory: Vec::new(),
            surroundings: Vec::new(),
            presets: true,
        }
    }
}

impl Default for ExitCodes {
    fn default() -> Self {
        Self {
            fatal: Vec::new(),
            // 128 + 9: a shell's exit code for a command killed by SIGKILL.
            out_of_memory: vec![137],
            // EX_TEMPFAIL of sysexits.h.
            surroundings: vec![75],
        }
    }
}

/// Compiled patterns, in the order in which they are asked.
#[derive(Debug)]
pub(crate) struct Classes {
    sets: Vec<(FailureClass, RegexSet)>,
}

/// A pattern that cannot be used.
#[derive(Debug)]
pub(crate) struct WrongPattern {
    pub(crate) key: String,
    pub(crate) expected: String,
}

impl Classes {
    pub(crate) fn new(patterns: &Patterns) -> Result<Self, WrongPattern> {
        let own: [(&str, FailureClass, &[String]); 4] = [
            ("retryable", FailureClass::Retryable, &patterns.retryable),
            ("fatal", FailureClass::Fatal, &patterns.fatal),
            (
                "out_of_memory",
                FailureClass::OutOfMemory,
                &patterns.out_of_memory,
            ),
            ("surroundings", FailureClass::Surroundings, &patterns.surroundings),
        ];
        let mut sets = Vec::new();
        for (name, class, patterns) in own {
            for (index, pattern) in patterns.iter().enumerate() {
                Regex::new(pattern).map_err(|wrong| WrongPattern {
                    key: format!("exec.patterns.{name}[{index}]"),
                    expected: format!("a regular expression: {wrong}"),
                })?;
            }
            sets.push((class, set(patterns, name)?));
        }
        if patterns.presets {
            for (class, patterns) in PRESETS {
                sets.push((class, set(patterns, "presets")?));
            }
        }
        Ok(Self { sets })
    }

    /// Returns the class of a failure; `None` if nothing tells it.
    pub(crate) fn of(&self, ended: &Ended, codes: &ExitCodes, outputs: [&str; 2]) -> Option<FailureClass> {
        let by_code = |code: i32| {
            [
                (FailureClass::Fatal, &codes.fatal),
                (FailureClass::OutOfMemory, &codes.out_of_memory),
                (FailureClass::Surroundings, &codes.surroundings),
            ]
            .into_iter()
            .find_map(|(class, codes)| codes.contains(&code).then_some(class))
        };
        let known = match ended.end {
            _ if ended.oom_killed => Some(FailureClass::OutOfMemory),
            End::Code(code) => by_code(code),
            // The adapter's own SIGKILL ends the attempt before its end is read.
            End::Signal(libc::SIGKILL) => Some(FailureClass::OutOfMemory),
            End::Signal(_) => None,
        };
        let told = || is_told_to_end(ended).then_some(FailureClass::Surroundings);
        known.or_else(told).or_else(|| self.by_text(outputs))
    }

    fn by_text(&self, outputs: [&str; 2]) -> Option<FailureClass> {
        self.sets
            .iter()
            .find_map(|(class, set)| outputs.iter().any(|text| set.is_match(text)).then_some(*class))
    }
}

/// Returns whether a program was ended by another than the adapter: a service manager that stops all
/// processes of a service, a machine that shuts down, a terminal. A program that the adapter ends has no report.
pub(crate) fn is_told_to_end(ended: &Ended) -> bool {
    let signal = match ended.end {
        End::Signal(signal) => signal,
        // A shell reports the signal that ended its command as 128 and the signal's number.
        End::Code(code) => code - 128,
    };
    ended.was_signalled || [libc::SIGTERM, libc::SIGINT, libc::SIGHUP].contains(&signal)
}

fn set(patterns: &[impl AsRef<str>], name: &str) -> Result<RegexSet, WrongPattern> {
    RegexSetBuilder::new(patterns)
        // `^` and `$` mean lines: the start of a long output is lost.
        .multi_line(true)
        .size_limit(SET_BYTES_MAX)
        .build()
        .map_err(|wrong| WrongPattern {
            key: format!("exec.patterns.{name}"),
            expected: format!("regular expressions that are small enough: {wrong}"),
        })
}

/// Describes how a program ended.
pub(crate) fn describe(end: End) -> String {
    match end {
        End::Signal(libc::SIGKILL) => "was killed with SIGKILL, as a kernel out of memory does".into(),
        End::Signal(signal) => format!("was ended by signal {signal}{}", named(signal)),
        // A shell reports the signal that ended its command as 128 and the signal's number.
        End::Code(code @ 129..=159) => match named(code - 128).as_str() {
            "" => format!("exited with code {code}"),
            name => format!("exited with code {code}, as after signal {}{name}", code - 128),
        },
        End::Code(code) => format!("exited with code {code}"),
    }
}

/// Returns the name of a signal in parentheses, with the limit that it stands for.
fn named(signal: i32) -> String {
    let limit = match signal {
        libc::SIGXCPU => ": its processor time is used up, see exec.limits.cpu_seconds",
        libc::SIGXFSZ => ": a file grew too large, see exec.limits.file_bytes",
        _ => "",
    };
    nix::sys::signal::Signal::try_from(signal).map_or(String::new(), |signal| format!(" ({signal}{limit})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(patterns: &Patterns, end: End, output: &str) -> Option<FailureClass> {
        class_of(patterns, &ended(end), output)
    }

    fn class_of(patterns: &Patterns, ended: &Ended, output: &str) -> Option<FailureClass> {
        let classes = Classes::new(patterns).unwrap();
        classes.of(ended, &ExitCodes::default(), ["", output])
    }

    fn ended(end: End) -> Ended {
        Ended {
            end,
            stdout: String::new(),
            stderr: String::new(),
            was_signalled: false,
            oom_killed: false,
            log_lost: None,
        }
    }

    #[test]
    fn a_program_that_others_told_to_end_says_nothing_of_the_task() {
        let patterns = Patterns {
            fatal: vec!["panicked".into()],
            ..Patterns::default()
        };
        let of = |ended: &Ended| class_of(&patterns, ended, "panicked");
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            for end in [End::Signal(signal), End::Code(128 + signal)] {
                assert_eq!(of(&ended(end)), Some(FailureClass::Surroundings), "{end:?}");
            }
        }
        // A program may catch the signal.
        let caught = Ended {
            was_signalled: true,
            ..ended(End::Code(1))
        };
        assert_eq!(of(&caught), Some(FailureClass::Surroundings));
        let known = Ended {
            was_signalled: true,
            ..ended(End::Code(137))
        };
        assert_eq!(of(&known), Some(FailureClass::OutOfMemory));
        assert_eq!(of(&ended(End::Signal(libc::SIGSEGV))), Some(FailureClass::Fatal));
    }

    #[test]
    fn a_gpu_out_of_memory_is_known_by_its_text_and_a_panic_is_not_one() {
        for output in [
            "thread 'main' panicked: CUDA Error: \"out of memory\"",
            "cudaErrorMemoryAllocation: out of memory",
            "sppark error: cudaMalloc failed: CUDA_ERROR_OUT_OF_MEMORY",
            "GPU 0: out of memory allocating 8589934592 bytes",
            "memory allocation of 34359738368 bytes failed",
            "terminate called after throwing an instance of 'std::bad_alloc'",
            "Traceback (most recent call last):\nMemoryError",
            "dd: memory exhausted by input buffer of size 1073741824 bytes (1.0 GiB)",
        ] {
            for end in [End::Code(101), End::Code(134), End::Signal(libc::SIGABRT)] {
                assert_eq!(
                    class(&Patterns::default(), end, output),
                    Some(FailureClass::OutOfMemory),
                    "{output}"
                );
            }
        }
        let panic = "thread 'main' panicked at src/main.rs:7: the guest ran out of memory pages it asked for";
        assert_eq!(class(&Patterns::default(), End::Code(101), panic), None);
        let off = Patterns {
            presets: false,
            ..Patterns::default()
        };
        assert_eq!(class(&off, End::Code(101), "CUDA_ERROR_OUT_OF_MEMORY"), None);
    }

    #[test]
    fn own_patterns_come_before_presets_and_codes_before_patterns() {
        let patterns = Patterns {
            retryable: vec!["(?i)busy.*No space left".into()],
            fatal: vec!["^guest panicked".into()],
            ..Patterns::default()
        };
        let of = |end, output| class(&patterns, end, output);
        assert_eq!(
            of(End::Code(1), "busy: No space left on device"),
            Some(FailureClass::Retryable)
        );
        assert_eq!(of(End::Code(1), "guest panicked: x"), Some(FailureClass::Fatal));
        assert_eq!(
            of(End::Code(137), "guest panicked: x"),
            Some(FailureClass::OutOfMemory)
        );
        assert_eq!(of(End::Code(75), ""), Some(FailureClass::Surroundings));
        assert_eq!(
            of(End::Code(1), "write: No space left on device"),
            Some(FailureClass::Surroundings)
        );
    }

    #[test]
    fn a_wrong_pattern_is_named() {
        let patterns = Patterns {
            out_of_memory: vec!["fine".into(), "(".into()],
            ..Patterns::default()
        };
        assert_eq!(
            Classes::new(&patterns).unwrap_err().key,
            "exec.patterns.out_of_memory[1]"
        );
    }

    #[test]
    fn the_signal_behind_an_exit_code_is_named() {
        assert_eq!(
            describe(End::Code(134)),
            "exited with code 134, as after signal 6 (SIGABRT)"
        );
        assert_eq!(
            describe(End::Code(139)),
            "exited with code 139, as after signal 11 (SIGSEGV)"
        );
        assert_eq!(describe(End::Signal(11)), "was ended by signal 11 (SIGSEGV)");
        assert_eq!(describe(End::Code(101)), "exited with code 101");
    }
}
