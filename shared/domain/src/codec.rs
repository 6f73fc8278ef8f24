//! The one place that turns bodies into bytes and back.
//!
//! Two encodings of the same types: bincode between our services, JSON for adapters in other
//! languages, told apart by the `Push0-Encoding` header (absent means JSON, as a person with a NATS
//! client would send it). The crate bincode is frozen and no longer maintained; its format is
//! simple and stable, nothing else in the project names it, and [`SCHEMA`] guards its evolution.

use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, str::FromStr};

/// The version of the bodies. bincode names no fields, so a body of another schema is refused.
pub const SCHEMA: &str = "1";
/// The header that carries [`SCHEMA`].
pub const SCHEMA_HEADER: &str = "Push0-Schema";
/// The header that carries the [`Encoding`].
pub const ENCODING_HEADER: &str = "Push0-Encoding";
/// The largest body that is decoded, in bytes: the broker's own default limit for messages.
pub const BODY_MAX: usize = 1024 * 1024;

/// How a body is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// bincode 2, standard configuration (little endian, variable-length integers).
    Bincode,
    /// JSON.
    #[default]
    Json,
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bincode => "bincode",
            Self::Json => "json",
        })
    }
}

impl FromStr for Encoding {
    type Err = CodecError;
    fn from_str(text: &str) -> Result<Self, CodecError> {
        match text {
            "bincode" => Ok(Self::Bincode),
            "json" => Ok(Self::Json),
            _ => Err(CodecError::Encoding(text.chars().take(40).collect())),
        }
    }
}

/// Why a body was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The encoding is unknown.
    #[error("unknown {ENCODING_HEADER} `{0}`: expected `bincode` or `json`")]
    Encoding(String),
    /// The schema is another one.
    #[error("{SCHEMA_HEADER} is `{0}`: expected `{SCHEMA}`")]
    Schema(String),
    /// The body is too large.
    #[error("body of {0} bytes: expected at most {BODY_MAX}")]
    TooLarge(usize),
    /// It can be read, and asks for what cannot be.
    #[error("{0}")]
    Refused(String),
    /// The bytes are not such a message.
    #[error("not a valid {encoding} body: {reason}")]
    Malformed {
        /// The encoding that was tried.
        encoding: Encoding,
        /// What the decoder said.
        reason: String,
    },
}

/// Writes a body.
pub fn encode<T: Serialize>(value: &T, encoding: Encoding) -> Result<Vec<u8>, CodecError> {
    let malformed = |reason: String| CodecError::Malformed { encoding, reason };
    let bytes = match encoding {
        Encoding::Bincode => bincode::serde::encode_to_vec(value, bincode::config::standard())
            .map_err(|e| malformed(e.to_string()))?,
        Encoding::Json => serde_json::to_vec(value).map_err(|e| malformed(e.to_string()))?,
    };
    if bytes.len() > BODY_MAX {
        Err(CodecError::TooLarge(bytes.len()))
    } else {
        Ok(bytes)
    }
}

/// Reads a body. Bytes left over after it are an error: they would mean another type.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], encoding: Encoding) -> Result<T, CodecError> {
    if bytes.len() > BODY_MAX {
        return Err(CodecError::TooLarge(bytes.len()));
    }
    let malformed = |reason: String| CodecError::Malformed { encoding, reason };
    match encoding {
        Encoding::Json => serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string())),
        Encoding::Bincode => {
            // The limit bounds what a hostile length prefix can make the decoder allocate.
            let config = bincode::config::standard().with_limit::<BODY_MAX>();
            let (value, read) =
                bincode::serde::decode_from_slice(bytes, config).map_err(|e| malformed(e.to_string()))?;
            if read == bytes.len() {
                Ok(value)
            } else {
                Err(malformed(format!("{} bytes left over", bytes.len() - read)))
            }
        }
    }
}

/// Reads a body as its headers describe it.
pub fn decode_described<T: DeserializeOwned>(
    bytes: &[u8],
    schema: Option<&str>,
    encoding: Option<&str>,
) -> Result<T, CodecError> {
    if let Some(other) = schema.filter(|s| *s != SCHEMA) {
        return Err(CodecError::Schema(other.chars().take(40).collect()));
    }
    decode(bytes, encoding.map(str::parse).transpose()?.unwrap_or_default())
}
